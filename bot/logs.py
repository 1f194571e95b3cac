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
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|(?<=password=)[^&\s]+"
    r"|https://hooks\.slack\.com/\S+|-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*-----|$)",
    re.DOTALL,
)
"""What tokens, keys and addresses with passwords look like, whoever they belong to."""

_concealed: set[str] = set()
"""What this process was given to keep secret. It grows: a secret may be rotated, or be read from the cluster, at any time."""


def conceal(secret: SecretStr) -> SecretStr:
    """Cut this secret out of every line from now on; whoever reads one calls this before handing it out."""
    value = secret.get_secret_value().strip()
    if len(value) >= 8:  # a short one would cut ordinary words to pieces
        _concealed.add(value)
    return secret


def configure(how: Literal["auto", "json", "text"], secrets: Iterable[SecretStr] = ()) -> None:
    """Send every line to stderr; `auto` is text on a terminal, else JSON."""
    for secret in secrets:
        conceal(secret)
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
        _redacted,
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


def _redacted(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The last processor before the text is made: no secret passes, however it got into the line."""
    longest_first = sorted(_concealed, key=len, reverse=True)  # one may be the beginning of another
    return {key: _clean(value, longest_first) for key, value in event.items()}


def _clean(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: _clean(below, secrets) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(below, secrets) for below in value]
    text = str(value)
    for secret in secrets:
        text = text.replace(secret, CUT)
    return _SHAPES.sub(CUT, text)
