"""Arguments of the engine that depend on the model: the ones that the new model needs, and the old model's to remove."""

import re

from pydantic import BaseModel

from manifests.contract import ModelEndpoint
from manifests.pieces import Pieces
from manifests.sizing import POOLING_KINDS, ModelFacts
from manifests.sizing.flags import OF_THE_MODEL, flags_for, needs_remote_code
from manifests.tree import ManifestError
from manifests.wording import CommentFacts

_DRAFTS = "--speculative-config"
_REMOTE_CODE = "--trust-remote-code"
_POOLING = {"--runner": "pooling", "--convert": "embed"}
"""Arguments of any embedding model; vLLM ignores them if the model's architecture implies them."""
_ONLY_WITH_IMAGES = ("--limit-mm-per-prompt", "--mm-processor-kwargs")


class ModelArguments(BaseModel, frozen=True, defer_build=True):
    """Arguments to write (`--flag=value`, or a bare `--flag`), names of arguments to remove, and warnings for a
    reviewer.
    """

    args: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def model_arguments(pieces: Pieces, before: ModelEndpoint, facts: ModelFacts, given: tuple[str, ...]) -> ModelArguments:
    """Return how the arguments change when an endpoint, or a copy of it, serves this model.

    `given` are the arguments of the request; they take precedence and come last. Raises ManifestError for a model that
    runs code from its repository without an explicit request: that argument is never derived.
    """
    named = {each.partition("=")[0] for each in given}
    if not pieces.runtime.derives:
        pins = [each for each in pieces.flags if each.name in pieces.runtime.pins - named]
        gone = pins if before.hf_id != facts.hf_id else []
        return ModelArguments(
            args=given,
            removed=tuple(each.name for each in gone),
            warnings=tuple(_removed(each.name, each.value, before) for each in gone),
        )
    present = {flag.name: flag.value for flag in pieces.flags}
    same = before.hf_id == facts.hf_id
    if needs_remote_code(facts) and _REMOTE_CODE not in named and not (same and _REMOTE_CODE in present):
        raise ManifestError(
            f"{facts.hf_id} runs Python code from its own repository: read the code and, if you trust it, allow it with "
            f"arg={_REMOTE_CODE}."
        )
    if same:
        return ModelArguments(args=given)
    flags = flags_for(facts, before.engine_version)
    derived = tuple(each for each in flags.all if each.partition("=")[0] not in named and each != _REMOTE_CODE)
    kept = {*named, *(each.partition("=")[0] for each in derived)}
    old, new = (CommentFacts(endpoint="", hf_id=each, served_name="").family for each in (before.hf_id, facts.hf_id))
    removed = [
        name
        for name in present
        if name in OF_THE_MODEL
        and name not in kept
        and not (name == "--load-format" and present[name] in ("auto", "safetensors"))  # any model has it
        and not (name == _DRAFTS and re.search(r"\b(ngram|suffix)\b", present[name]))  # needs no weights
        and not (facts.kind in POOLING_KINDS and present[name] == _POOLING.get(name))
        and (old != new or _cannot_stay(name, facts))
    ]
    told = [_removed(name, present[name], before) for name in removed]
    return ModelArguments(args=(*derived, *given), removed=tuple(removed), warnings=(*told, *flags.warnings))


def _removed(name: str, given: str, before: ModelEndpoint) -> str:
    said = f"{name}={given}" if given else name
    return f"{said} was chosen for {before.hf_id} and is removed{_what_is_lost(name)}."


def _cannot_stay(name: str, facts: ModelFacts) -> bool:
    """Return whether the argument is also wrong for another model of the same family."""
    if name == _REMOTE_CODE:
        return not needs_remote_code(facts)
    return name == _DRAFTS or (name in _ONLY_WITH_IMAGES and not facts.multimodal)


def _what_is_lost(name: str) -> str:
    lost = {
        "--tool-call-parser": "; for tool calls, give the new model's with arg=--tool-call-parser=",
        "--reasoning-parser": "; for separate reasoning, give the new model's with arg=--reasoning-parser=",
        "--chat-template": "; the new model's own template is used",
        "--mmproj": "; for images, give the new model's file with arg=--mmproj=",
    }
    return lost.get(name, "")
