"""A cause of a failure: its text in a log, Stoker's headline, and the remedy."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Groups = dict[str, str | None]


class Kind(StrEnum):
    """The category of the missing or wrong thing, which determines who can fix it."""

    MEMORY = "memory"
    CONTEXT = "context"
    DRIVER = "driver"
    GPU = "GPU"
    WEIGHTS = "weights"
    ARCHITECTURE = "architecture"
    ARGUMENTS = "arguments"
    TOKENIZER = "tokenizer"
    PERMISSION = "permission"
    DISK = "disk"
    NETWORK = "network"
    GATED = "gated"
    NOT_FOUND = "not found"
    RATE_LIMIT = "rate limit"
    PORT = "port"
    IMAGE = "image"
    CONFIGURATION = "configuration"
    VOLUME = "volume"
    CAPACITY = "capacity"
    SCHEDULING = "scheduling"
    ADMISSION = "admission"
    EVICTION = "eviction"
    PROBE = "probe"
    CHANGED = "changed from outside"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Cause:
    """One cause: its pattern in a log, Stoker's headline, and the remedy.

    `headline` and `remedy` are templates over the named groups of the matched pattern; `words` computes additional
    values. A cause that may be temporary is reported only after `crashes` ends of the container.
    """

    name: str
    kind: Kind
    signs: tuple[str, ...]
    headline: str
    remedy: str
    words: Callable[[Groups], dict[str, str]] = lambda _: {}
    crashes: int = 1
    vague: bool = False
    """A symptom that may also follow from another cause: it is used only if nothing else is found."""

    def find(self, text: str) -> re.Match[str] | None:
        return next((found for sign in self.signs if (found := re.search(sign, text, re.IGNORECASE | re.DOTALL))), None)

    def said(self, found: re.Match[str]) -> tuple[str, str]:
        """Headline and remedy for a match."""
        groups = {name: (text or "").strip() for name, text in found.groupdict().items()} | self.words(
            found.groupdict()
        )
        filled = (template.format_map(_Blank(groups)) for template in (self.headline, self.remedy))
        headline, remedy = (re.sub(r"\s+([.,:])", r"\1", " ".join(text.split())) for text in filled)
        return headline, remedy


class _Blank(dict[str, str]):
    """Missing groups are empty."""

    def __missing__(self, key: str) -> str:
        return ""
