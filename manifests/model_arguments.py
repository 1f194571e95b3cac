"""The engine's arguments that depend on the model: arguments that the new model needs, and arguments of the old model that are removed."""

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
    """Arguments to write (`--flag=value`, or a bare `--flag`), names of arguments to remove, and warnings."""

    args: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def model_arguments(
    pieces: Pieces, before: ModelEndpoint, facts: ModelFacts, requested: tuple[str, ...]
) -> ModelArguments:
    """The changes to the arguments when an endpoint, or a copy of it, serves this model.

    `requested` are the arguments of the request; they take precedence and come last. Raises ManifestError for a model
    that runs code from its repository, unless the request allows it, because `--trust-remote-code` is never derived.
    """
    requested_names = {argument.partition("=")[0] for argument in requested}
    if not pieces.runtime.derives:
        pins = [flag for flag in pieces.flags if flag.name in pieces.runtime.pins - requested_names]
        removed_pins = pins if before.hf_id != facts.hf_id else []
        return ModelArguments(
            args=requested,
            removed=tuple(flag.name for flag in removed_pins),
            warnings=tuple(_removal_warning(flag.name, flag.value, before) for flag in removed_pins),
        )
    present = {flag.name: flag.value for flag in pieces.flags}
    is_same_model = before.hf_id == facts.hf_id
    if (
        needs_remote_code(facts)
        and _REMOTE_CODE not in requested_names
        and not (is_same_model and _REMOTE_CODE in present)
    ):
        raise ManifestError(
            f"{facts.hf_id} runs Python code from its own repository: read the code and, if you trust it, allow it with "
            f"arg={_REMOTE_CODE}."
        )
    if is_same_model:
        return ModelArguments(args=requested)
    flags = flags_for(facts, before.engine_version)
    derived = tuple(
        argument
        for argument in flags.all
        if argument.partition("=")[0] not in requested_names and argument != _REMOTE_CODE
    )
    needed_names = {*requested_names, *(argument.partition("=")[0] for argument in derived)}
    old, new = (
        CommentFacts(endpoint="", hf_id=model_id, served_name="").family for model_id in (before.hf_id, facts.hf_id)
    )
    removed = [
        name
        for name in present
        if name in OF_THE_MODEL
        and name not in needed_names
        and not (name == "--load-format" and present[name] in ("auto", "safetensors"))  # these values suit every model
        and not (name == _DRAFTS and re.search(r"\b(ngram|suffix)\b", present[name]))  # these methods need no weights
        and not (facts.kind in POOLING_KINDS and present[name] == _POOLING.get(name))
        and (old != new or _cannot_stay(name, facts))
    ]
    warnings = [_removal_warning(name, present[name], before) for name in removed]
    return ModelArguments(args=(*derived, *requested), removed=tuple(removed), warnings=(*warnings, *flags.warnings))


def _removal_warning(name: str, argument_value: str, before: ModelEndpoint) -> str:
    argument = f"{name}={argument_value}" if argument_value else name
    return f"{argument} was chosen for {before.hf_id} and is removed{_effect_of_removal(name)}."


def _cannot_stay(name: str, facts: ModelFacts) -> bool:
    """Return whether the argument is also wrong for another model of the same family."""
    if name == _REMOTE_CODE:
        return not needs_remote_code(facts)
    return name == _DRAFTS or (name in _ONLY_WITH_IMAGES and not facts.multimodal)


def _effect_of_removal(name: str) -> str:
    lost = {
        "--tool-call-parser": "; for tool calls, give the new model's parser with arg=--tool-call-parser=",
        "--reasoning-parser": "; for separate reasoning, give the new model's parser with arg=--reasoning-parser=",
        "--chat-template": "; the new model's own template is used",
        "--mmproj": "; for images, give the new model's file with arg=--mmproj=",
    }
    return lost.get(name, "")
