"""The model contract: one endpoint read from its five pieces.

The pieces are written by hand in five files, and nothing in Kubernetes, Argo CD or LiteLLM notices when they disagree.
`check` does, and names each disagreement with its file, its line and the fix (the rules themselves are in `rules/`).
"""

import re
from typing import Literal

from pydantic import BaseModel

from manifests.edit import find, value
from manifests.pieces import GPU, Entry, Layout, Pieces, group_of, locate, names, require
from manifests.rules import Finding, check
from manifests.sizing import quantity_bytes, tokens
from manifests.tree import Tree

__all__ = ["Finding", "Kind", "Layout", "ModelEndpoint", "check", "describe", "read_endpoint", "read_endpoints"]

Kind = Literal["gpu-chat", "gpu-completion", "cpu-embeddings"]

_COMPLETES = re.compile(
    r"(?<!/chat)/(v1/)?completions\b|text completions|\bbase model\b|fill-in-the-middle", re.IGNORECASE
)


class ModelEndpoint(BaseModel, frozen=True):
    """What one endpoint serves and how tenants reach it, as the manifests say.

    `alias` is what tenants call (LiteLLM's `model_name`), `served_name` what the engine answers to.
    Prices are dollars per token, as they are written. Empty strings mean that the manifests do not say.
    """

    name: str
    kind: Kind
    hf_id: str
    served_name: str
    alias: str = ""
    context: int | None = None
    quantization: str | None = None
    gpu_utilization: float | None = None
    gpus: int = 0
    memory_limit_bytes: int | None = None
    pvc_name: str = ""
    pvc_size: str = ""
    service_port: int = 0
    price_in: str = ""
    price_out: str = ""
    application: str = ""
    application_file: str = ""
    group: str = ""
    manual_sync: bool = False
    files: tuple[str, ...] = ()


def read_endpoints(tree: Tree, layout: Layout) -> tuple[ModelEndpoint, ...]:
    """Every endpoint that follows the contract, by name. What is outside of it is left out."""
    found = (locate(tree, layout, name) for name in names(tree, layout))
    return tuple(describe(pieces, layout) for pieces in found if pieces is not None)


def read_endpoint(tree: Tree, layout: Layout, name: str) -> ModelEndpoint:
    """One endpoint; ManifestError says when there is none, or when it is outside the contract."""
    return describe(require(tree, layout, name), layout)


def describe(pieces: Pieces, layout: Layout) -> ModelEndpoint:
    """The values that the pieces hold."""
    engine, entry, app = pieces.container, pieces.entry, pieces.application
    limits = find(engine, "resources", "limits")
    gpus = _integer(value(limits, GPU)) or 0
    served = pieces.flag("--served-model-name")
    context = pieces.flag("--max-model-len")
    quantization = pieces.flag("--quantization")
    utilization = pieces.flag("--gpu-memory-utilization")
    hf_id = pieces.model.value
    price = find(entry.node, "litellm_params") if entry else None
    application_file = app.document.path if app else ""
    return ModelEndpoint(
        name=pieces.name,
        kind=_kind(pieces, gpus),
        hf_id=hf_id,
        # TEI has no served name: it answers to anything, and LiteLLM's entry says what tenants' calls are named.
        served_name=served.value if served else _after_provider(entry) if not gpus else hf_id,
        alias=entry.alias if entry else "",
        context=tokens(context.value) if context else None,
        quantization=quantization.value if quantization else None,
        gpu_utilization=_decimal(utilization.value) if utilization else None,
        gpus=gpus,
        memory_limit_bytes=_bytes(value(limits, "memory")),
        pvc_name=value(pieces.pvc.node, "metadata", "name") if pieces.pvc else "",
        pvc_size=value(pieces.pvc.node, "spec", "resources", "requests", "storage") if pieces.pvc else "",
        service_port=_integer(value(pieces.service.node, "spec", "ports", 0, "port")) or 0 if pieces.service else 0,
        price_in=value(price, "input_cost_per_token"),
        price_out=value(price, "output_cost_per_token"),
        application=value(app.node, "metadata", "name") if app else "",
        application_file=application_file,
        group=group_of(layout, application_file),
        # Read from the Application itself, never from a list: this is the cost gate.
        manual_sync=app is not None and find(app.node, "spec", "syncPolicy", "automated") is None,
        files=pieces.files,
    )


def chats(endpoint: ModelEndpoint) -> bool | None:
    """Whether it chats or completes; None for one that does neither."""
    return None if endpoint.kind == "cpu-embeddings" else endpoint.kind == "gpu-chat"


def _kind(pieces: Pieces, gpus: int) -> Kind:
    """The kind, by what the manifests say: TEI is told by its flag, a base model by how LiteLLM or people speak of it."""
    if pieces.model.name == "--model-id":
        return "cpu-embeddings"
    task = pieces.flag("--task") or pieces.flag("--runner")
    if task is not None and task.value in ("embed", "embedding", "pooling"):
        return "cpu-embeddings" if not gpus else "gpu-chat"
    if any(pieces.flag(flag) for flag in ("--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser")):
        return "gpu-chat"
    if pieces.entry is not None and _completion_only(pieces.entry):
        return "gpu-completion"
    said = " ".join(each.text for each in pieces.deployment.document.comments())
    by_name = re.search(r"(^|-)(fim|base|completion|completions|autocomplete)(-|$)", pieces.name)
    if by_name or _COMPLETES.search(said) or is_base_model(pieces.model.value):
        return "gpu-completion"
    return "gpu-chat"


def is_base_model(hf_id: str) -> bool:
    """Whether a model's name says that it completes and does not chat, by the convention of its family.

    The families below publish their chat models with a mark (`Qwen2.5-Coder-7B-Instruct`) and the base model without.
    Of other families the name tells nothing (`Qwen3-8B` chats).
    """
    name = hf_id.rsplit("/", 1)[-1]
    if re.search(r"(?i)[-_]base\b", name):
        return True
    marked = re.search(r"(?i)[-_](instruct|chat|it|sft|dpo|rlhf|distill|thinking|reasoning)\b", name)
    return not marked and bool(re.match(r"(?i)(qwen2|(meta-)?llama-3|codellama|starcoder|codegemma|granite-3)", name))


def _completion_only(entry: Entry) -> bool:
    if value(entry.node, "model_info", "mode") == "completion" or entry.model.startswith("text-completion-openai/"):
        return True
    said = (each.text for each in entry.document.comments() if entry.first <= each.line <= entry.last)
    return bool(_COMPLETES.search(" ".join(said)))


def _after_provider(entry: Entry | None) -> str:
    return entry.model.partition("/")[2] if entry else ""


def _integer(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bytes(text: str) -> int | None:
    try:
        return quantity_bytes(text)
    except ValueError:
        return None
