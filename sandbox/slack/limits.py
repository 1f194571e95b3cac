"""Checks of single values in Block Kit against Slack's limits."""

from collections.abc import Iterator, Sequence


def text_object(name: str, text: object, limit: int, *, plain: bool = False) -> Iterator[str]:
    if not isinstance(text, dict) or text.get("type") not in (("plain_text",) if plain else ("plain_text", "mrkdwn")):
        yield f"{name}: not a valid text object"
        return
    yield from length(name, text.get("text", ""), limit)


def length(name: str, text: object, limit: int) -> Iterator[str]:
    if not isinstance(text, str) or not text:
        yield f"{name}: must be more than 0 characters"
    elif len(text) > limit:
        yield f"{name}: must be less than {limit + 1} characters"


def count(name: str, items: Sequence[object], limit: int, *, least: int = 1) -> Iterator[str]:
    if not least <= len(items) <= limit:
        yield f"{name}: must have between {least} and {limit} items"
