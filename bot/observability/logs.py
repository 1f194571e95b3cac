"""Configures the log: JSON in the cluster, text on a terminal. Each line has `op`, `actor` and `model`; secrets are removed.

Log lines of the libraries (docket, Bolt, aiohttp) go through the same processors, so they have the same format.
"""

import base64
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import structlog
from pydantic import SecretStr
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

CUT = "***"
_SHAPES = re.compile(
    r"xox[a-z]-[\w-]+|xapp-[\w-]+|gh[a-z]_\w+|github_pat_\w+|hf_\w{8,}|(?<![\w-])sk-[\w-]{6,}"
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+|eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|(?<=password=)[^&\s]+"
    r"|https://hooks\.slack\.com/\S+|-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*-----|$)",
    re.DOTALL,
)
"""Patterns of tokens, keys and URLs with passwords, for secrets that were not passed to `conceal`."""

_concealed: set[str] = set()
"""The secrets of this process. It grows when a secret is rotated, or read from the cluster."""


def conceal(secret: SecretStr) -> SecretStr:
    """Remove this secret from all later log lines and messages, and return it. Call this before using a secret."""
    value = secret.get_secret_value().strip()
    if len(value) >= 8:  # a short secret would match parts of ordinary words
        _concealed.add(value)
    return secret


def configure(log_format: Literal["auto", "json", "text"], secrets: Iterable[SecretStr] = ()) -> None:
    """Write all log lines to standard error, without `secrets`. `auto` is text on a terminal, otherwise JSON."""
    for secret in secrets:
        conceal(secret)
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
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
    for package in ("bot", "commands"):
        logging.getLogger(package).setLevel(logging.INFO)
    logging.getLogger("docket").setLevel(logging.ERROR)
    logging.captureWarnings(True)  # otherwise Python writes warnings to standard error without removing secrets
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write an uncaught exception to standard error without secrets, which Python would not remove."""
    sys.stderr.write(cleaned("".join(traceback.format_exception(kind, error, trace))))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    """Write an error that nothing can catch (raised in `__del__` or at shutdown) to standard error, without secrets."""
    if args.exc_value:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def about(*, op: str = "", actor: str = "", model: str = "") -> AbstractContextManager[Any]:
    """Add these fields to every log line inside the block."""
    return bound_contextvars(**{k: v for k, v in (("op", op), ("actor", actor), ("model", model)) if v})


def _about(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in ("op", "actor", "model"):
        event.setdefault(name, "")
    return event


def cleaned(text: str) -> str:
    """Remove all secrets from a text that is sent to Slack or GitHub, or written to the audit log.

    Known secrets are found unchanged, URL-encoded, in base64, and split across lines. A secret is not found if it is
    encoded differently or truncated, or if it was never passed to `conceal` and does not look like a token.
    """
    if (pattern := _secrets_pattern()) is not None:
        text = pattern.sub(CUT, text)
    return _SHAPES.sub(CUT, text)


_forms: tuple[int, re.Pattern[str] | None] = (0, None)


def _secrets_pattern() -> re.Pattern[str] | None:
    """The pattern of all known secrets in all their forms, the longest first. It is rebuilt when secrets are added."""
    global _forms
    if _forms[0] != len(_concealed):
        forms = {form for secret in _concealed for form in (secret, quote(secret, safe=""), _base64(secret))}
        patterns = (r"\s*".join(map(re.escape, form)) for form in sorted(forms, key=len, reverse=True))
        _forms = len(_concealed), re.compile("|".join(patterns))
    return _forms[1]


def _base64(secret: str) -> str:
    return base64.b64encode(secret.encode()).decode().rstrip("=")


_TEXTS = ("text", "alt_text", "alt_txt", "title", "initial_comment", "body", "description", "placeholder", "value")
"""The text fields in requests to Slack and GitHub. Other fields contain ids and are not changed."""


def cleaned_texts(value: Any, name: str = "") -> Any:
    """Remove all secrets from the text fields of a request. `value` is the request, or the value of its field `name`."""
    if isinstance(value, Mapping):
        return {key: cleaned_texts(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned_texts(item, name) for item in value]
    return cleaned(str(value)) if isinstance(value, str) and name in _TEXTS else value


def _redacted(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove secrets from all parts of a log line. It is the last processor before rendering."""
    return {key: _clean(value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return cleaned(str(value))
