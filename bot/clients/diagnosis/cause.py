"""A cause of a failure: its text in a log, Stoker's headline, and the remedy."""

import re
from collections.abc import Callable
from enum import StrEnum

from manifests.frozen import frozen

Groups = dict[str, str | None]


class Kind(StrEnum):
    """The category of a failure, which determines who can fix it."""

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


@frozen
class Cause:
    """One cause: the regular expressions that identify it in a log (`signs`), Stoker's headline, and the remedy.

    `headline` and `remedy` are templates that use the named groups of the matched pattern; `words` computes additional
    values. A cause that may be temporary is reported only after the container has ended `crashes` times.
    """

    name: str
    kind: Kind
    signs: tuple[str, ...]
    headline: str
    remedy: str
    words: Callable[[Groups], dict[str, str]] = lambda _: {}
    crashes: int = 1
    vague: bool = False
    """True for a symptom that another cause may produce; it is used only if no other cause matches."""

    def find(self, text: str) -> re.Match[str] | None:
        """The match of the first sign that occurs in the text; None if none does."""
        return next((match for sign in self.signs if (match := re.search(sign, text, re.IGNORECASE | re.DOTALL))), None)

    def explain(self, match: re.Match[str]) -> tuple[str, str]:
        """Headline and remedy for a match."""
        groups = {name: (text or "").strip() for name, text in match.groupdict().items()} | self.words(
            match.groupdict()
        )
        filled = (template.format_map(_Blank(groups)) for template in (self.headline, self.remedy))
        headline, remedy = (re.sub(r"\s+([.,:])", r"\1", " ".join(text.split())) for text in filled)
        return headline, remedy


class _Blank(dict[str, str]):
    """A dictionary in which missing groups are empty."""

    def __missing__(self, key: str) -> str:
        return ""
