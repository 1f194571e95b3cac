"""What a log line looks like: JSON in the cluster, readable on a terminal; always with `op`, `actor` and `model`, never
with a secret.

Lines of the libraries (docket, Bolt, aiohttp) take the same way, so the whole output is of one kind.
"""

import logging
import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import structlog
from pydantic import SecretStr
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

CUT = "***"
_SHAPES = re.compile(
    r"xox[a-z]-[\w-]+|xapp-[\w-]+|gh[a-z]_\w+|github_pat_\w+|hf_\w+|sk-[\w-]{6,}"
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|https://hooks\.slack\.com/\S+|-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*-----|$)",
    re.DOTALL,
)
"""What tokens, keys and addresses with passwords look like, whoever they belong to."""


def configure(how: Literal["auto", "json", "text"], secrets: Iterable[SecretStr] = ()) -> None:
    """Send every line to stderr; `auto` is text on a terminal, else JSON."""
    text = how == "text" or (how == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _about,
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        Redaction(secrets),
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if text else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    foreign: list[Processor] = [*shared, structlog.stdlib.add_logger_name]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for room in ("bot", "commands"):
        logging.getLogger(room).setLevel(logging.INFO)
    logging.getLogger("docket").setLevel(logging.ERROR)


def about(*, op: str = "", actor: str = "", model: str = "") -> AbstractContextManager[Any]:
    """Every line inside of the block is about this."""
    return bound_contextvars(**{k: v for k, v in (("op", op), ("actor", actor), ("model", model)) if v})


def _about(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in ("op", "actor", "model"):
        event.setdefault(name, "")
    return event


class Redaction:
    """The last processor before the text is made: no secret passes, however it got into the line."""

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        # A short one would cut ordinary words to pieces.
        known = sorted((s.get_secret_value() for s in secrets if len(s.get_secret_value()) >= 8), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {key: self._clean(value) for key, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, dict):
            return {key: self._clean(below) for key, below in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(below) for below in value]
        text = str(value)
        if self._known:
            text = self._known.sub(CUT, text)
        return _SHAPES.sub(CUT, text)
