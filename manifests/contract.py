"""The model contract: read one endpoint from its five pieces.

People write the pieces by hand in five files, and neither Kubernetes, Argo CD nor LiteLLM detects contradictions
between them. `check` reports each contradiction with file, line and fix (the rules are in `rules/`).
"""

import re
from typing import Literal

from pydantic import BaseModel

from manifests.deployers.argocd import group_of
from manifests.edit import find, value
from manifests.gateway import ENVIRON
from manifests.layout import Layout
from manifests.model_names import model_of
from manifests.pieces import Entry, Pieces
from manifests.platform import Platform
from manifests.retarget import main_name
from manifests.rules import Finding, check
from manifests.sizing import quantity_bytes, tokens
from manifests.sizing.flags import engine_version

__all__ = ["Finding", "Kind", "Layout", "ModelEndpoint", "check", "describe", "read_endpoint", "read_endpoints"]

Kind = Literal["gpu-chat", "gpu-completion", "gpu-embeddings", "gpu-reranker", "cpu-embeddings", "cpu-reranker"]

_COMPLETES = re.compile(
    r"(?<!/chat)/(v1/)?completions\b|text completions|\bbase model\b|fill-in-the-middle", re.IGNORECASE
)


class ModelEndpoint(BaseModel, frozen=True, defer_build=True):
    """The model that one endpoint serves, and how tenants reach it, according to the manifests.

    `alias` is the name that tenants call (LiteLLM's `model_name`), `aliases` are all names that lead to the endpoint.
    `served_name` is the name that LiteLLM requests: one of the names that the engine answers to (`served_names`; empty
    for TEI). `has_key` is true if the engine refuses requests without a key. `workload` is the Deployment's name in the
    cluster. `upstream_key` is the variable (`os.environ/NAME`) from which LiteLLM reads the engine's key. `form` is the
    kind of object that declares the endpoint. `deployed_by` is the Flux Kustomization that deploys it; "" if an
    Application does. Prices are dollars per token, as in the file. Empty strings mean unknown.
    """

    name: str
    kind: Kind
    hf_id: str
    engine: str = "vLLM"
    form: str = "Deployment"
    namespace: str = ""
    deployed_by: str = ""
    served_name: str
    served_names: tuple[str, ...] = ()
    alias: str = ""
    aliases: tuple[str, ...] = ()
    context: int | None = None
    quantization: str | None = None
    gpu_utilization: float | None = None
    gpus: int = 0
    memory_limit_bytes: int | None = None
    engine_version: tuple[int, int] | None = None
    pvc_name: str = ""
    pvc_size: str = ""
    service_port: int = 0
    price_in: str = ""
    price_out: str = ""
    application: str = ""
    application_file: str = ""
    group: str = ""
    manual_sync: bool = False
    has_key: bool = True
    workload: str = ""
    upstream_key: str = ""
    files: tuple[str, ...] = ()

    @property
    def is_free(self) -> bool:
        """True if the manifests explicitly set every price to zero."""
        prices = [price for price in (self.price_in, self.price_out) if price]
        return bool(prices) and all(_decimal(price) == 0 for price in prices)


def read_endpoints(platform: Platform) -> tuple[ModelEndpoint, ...]:
    """Every endpoint that follows the contract, by name. Other endpoints are skipped."""
    return tuple(describe(pieces, platform.layout) for pieces in platform.endpoints())


def read_endpoint(platform: Platform, name: str) -> ModelEndpoint:
    """One endpoint; raises ManifestError if it does not exist or does not follow the contract."""
    return describe(platform.require(name), platform.layout)


def template_of(platform: Platform) -> ModelEndpoint | None:
    """The configured template, or the first GPU chat endpoint; None if there is neither."""
    endpoints = read_endpoints(platform)
    chats = (endpoint for endpoint in endpoints if endpoint.kind == "gpu-chat")
    return next((endpoint for endpoint in endpoints if endpoint.name == platform.layout.template), next(chats, None))


def describe(pieces: Pieces, layout: Layout) -> ModelEndpoint:
    """The endpoint that the pieces describe."""
    engine, entry, app = pieces.container, pieces.entry, pieces.application
    limits = find(engine, "resources", "limits")
    gpus = pieces.gpus
    served_names = pieces.served_names
    context, utilization = pieces.argument_for("context"), pieces.argument_for("utilization")
    model = model_of(pieces)
    application_file = app.document.path if app else ""
    return ModelEndpoint(
        name=pieces.name,
        kind=_kind(pieces, gpus),
        hf_id=model.hf_id,
        engine=pieces.engine,
        form=pieces.form,
        namespace=pieces.namespace,
        deployed_by=pieces.deployed_by,
        # TEI accepts any name, so the served name is the one that LiteLLM requests.
        served_name=main_name(pieces) if served_names else entry.requested_model if entry else "",
        served_names=served_names,
        alias=entry.alias if entry else "",
        aliases=tuple(dict.fromkeys(entry_of_alias.alias for entry_of_alias in pieces.entries)),
        context=tokens(context.value) if context else None,
        quantization=model.quantization,
        gpu_utilization=_decimal(utilization.value) if utilization else None,
        gpus=gpus,
        memory_limit_bytes=_bytes(value(limits, "memory")),
        engine_version=engine_version(pieces.image),
        pvc_name=value(pieces.pvc.node, "metadata", "name") if pieces.pvc else "",
        pvc_size=value(pieces.pvc.node, "spec", "resources", "requests", "storage") if pieces.pvc else "",
        service_port=pieces.service_port,
        price_in=entry.per_token("input") if entry else "",
        price_out=entry.per_token("output") if entry else "",
        has_key=pieces.requires_key,
        workload=pieces.workload,
        upstream_key=_reference(entry),
        application=value(app.node, "metadata", "name") if app else "",
        application_file=application_file,
        group=group_of(layout, application_file),
        # The Application decides whether the endpoint is cost-gated, so this is never read from a list.
        manual_sync=app is not None and find(app.node, "spec", "syncPolicy", "automated") is None,
        files=pieces.files,
    )


def chats(endpoint: ModelEndpoint) -> bool | None:
    """True for a chat model, False for a completion model; None for other kinds."""
    return {"gpu-chat": True, "gpu-completion": False}.get(endpoint.kind)


def litellm_mode(endpoint: ModelEndpoint) -> str:
    """`mode` in LiteLLM's `model_info` (docs.litellm.ai/docs/proxy/health); empty for a model that chats."""
    return {"embeddings": "embedding", "reranker": "rerank", "completion": "completion"}.get(task_of(endpoint), "")


def task_of(endpoint: ModelEndpoint) -> str:
    """The task without the hardware: chat, completion, embeddings or reranker."""
    return endpoint.kind.partition("-")[2]


def _kind(pieces: Pieces, gpus: int) -> Kind:
    """The kind, from the engine's flags, LiteLLM's mode, the endpoint's name, comments, and the model's name."""
    task = pieces.flag("--task") or pieces.flag("--runner")
    if task is not None and task.value in ("embed", "embedding", "score", "pooling"):
        return ("gpu-reranker" if gpus else "cpu-reranker") if _is_reranker(pieces) else _embeddings_kind(gpus)
    if pieces.flag("--embeddings") or pieces.flag("--embedding") or pieces.flag("--is-embedding"):
        return "gpu-embeddings" if gpus else "cpu-embeddings"
    if pieces.flag("--reranking") or pieces.flag("--rerank"):
        return "gpu-reranker" if gpus else "cpu-reranker"
    if pieces.runtime.pools:
        return "cpu-reranker" if _is_reranker(pieces) else _embeddings_kind(gpus)
    if any(pieces.flag(flag) for flag in ("--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser")):
        return "gpu-chat"
    if pieces.entry is not None and _completion_only(pieces.entry):
        return "gpu-completion"
    comments = " ".join(comment.text for comment in pieces.deployment.document.comments())
    by_name = re.search(r"(^|-)(fim|base|completion|completions|autocomplete)(-|$)", pieces.name)
    if by_name or _COMPLETES.search(comments) or is_base_model(pieces.model.value):
        return "gpu-completion"
    return "gpu-chat"


def _embeddings_kind(gpus: int) -> Kind:
    return "gpu-embeddings" if gpus else "cpu-embeddings"


def _is_reranker(pieces: Pieces) -> bool:
    """Return whether a pooling model scores pairs of texts, by LiteLLM's mode, vLLM's overrides, or the model's name."""
    mode = value(pieces.entry.node, "model_info", "mode") if pieces.entry else ""
    overrides = pieces.flag("--hf-overrides")
    scores = overrides is not None and "ForSequenceClassification" in overrides.value
    return mode == "rerank" or scores or bool(re.search(r"(?i)re-?rank", pieces.model.value))


def is_base_model(hf_id: str) -> bool:
    """Return whether the name marks a completion model without chat, by the convention of its family.

    The families below add a suffix to the names of chat models (`Qwen2.5-Coder-7B-Instruct`), and none to base models.
    In other families, a name without a suffix does not mark a base model (`Qwen3-8B` is a chat model).
    """
    name = hf_id.rsplit("/", 1)[-1]
    if re.search(r"(?i)[-_]base\b", name):
        return True
    has_suffix = re.search(r"(?i)[-_](instruct|chat|it|sft|dpo|rlhf|distill|thinking|reasoning|omni)\b", name)
    return not has_suffix and bool(
        re.match(r"(?i)(qwen2|(meta-)?llama-3|codellama|starcoder|codegemma|granite-3)", name)
    )


def _completion_only(entry: Entry) -> bool:
    if value(entry.node, "model_info", "mode") == "completion" or entry.model.startswith("text-completion-openai/"):
        return True
    comments = (comment.text for comment in entry.document.comments() if entry.first <= comment.line <= entry.last)
    return bool(_COMPLETES.search(" ".join(comments)))


def _reference(entry: Entry | None) -> str:
    """The variable from which LiteLLM reads the engine's key; never the key itself."""
    key = value(entry.node, "litellm_params", "api_key") if entry else ""
    return key if key.startswith(ENVIRON) else ""


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
