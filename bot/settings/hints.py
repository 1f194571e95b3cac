"""Hints for invalid settings: the most similar key for an unknown key, and the kind of a misplaced token."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import BaseModel, SecretStr


def similar(unknown: tuple[int | str, ...], config: type[BaseModel]) -> str:
    """A question with the most similar setting, as text to append to an error; empty if none is similar."""
    keys = sorted(".".join(path) for path in _keys(config))
    *section, name = map(str, unknown)
    siblings = {key.rpartition(".")[2]: key for key in keys if key.split(".")[:-1] == section}
    matches = [siblings[sibling] for sibling in get_close_matches(name, siblings, n=1)]
    matches = matches or [key for key in keys if key.rpartition(".")[2] == name] or get_close_matches(name, keys, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The path of each setting in the file."""
    for name, field in model.model_fields.items():
        yield (name,)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *path) for path in _keys(field.annotation))


_TOKENS = {
    "a bot token of Slack": re.compile(r"xoxb-"),
    "an app-level token of Slack": re.compile(r"xapp-"),
    "a user token of Slack": re.compile(r"xox[ps]-"),
    "a token of GitHub": re.compile(r"gh[a-z]_|github_pat_"),
    "a token of Hugging Face": re.compile(r"hf_"),
    "a key of an OpenAI-like API": re.compile(r"sk-"),
}
"""Prefixes of tokens, from the documentation of Slack ("Tokens"), GitHub ("authentication formats") and Hugging Face.
"""

PREFIXED = {
    "slack_bot_token": "a bot token of Slack",
    "slack_app_token": "an app-level token of Slack",
    "slack_signing_secret": "",
    "github_token": "a token of GitHub",
    "hf_token": "a token of Hugging Face",
}
"""The kind of token of each variable; "" if it has no prefix."""


def refuse_other_tokens(name: str, value: SecretStr | None) -> None:
    """Raise ValueError for a token that belongs in another variable. Tokens of an unknown form are accepted here; their
    server checks them.
    """
    kind = next((kind for kind, begins in _TOKENS.items() if value and begins.match(value.get_secret_value())), None)
    if kind is None or kind == PREFIXED[name]:
        return
    place = next((variable.upper() for variable, expected in PREFIXED.items() if expected == kind), None)
    raise ValueError(f"{name.upper()} contains {kind}" + (f", which belongs in {place}" if place else ""))
