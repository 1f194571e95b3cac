"""The input of `add` and `swap`, and the planned change that `add`, `swap` and `remove` return."""

from pydantic import BaseModel

from manifests.contract import ModelEndpoint
from manifests.sizing import ModelFacts, Sizing
from manifests.sizing.facts import Kind
from manifests.tree import ChangeSet


class ModelRequest(BaseModel, frozen=True, defer_build=True):
    """The requested settings of an endpoint. Fields that are None are derived, or keep their value.

    `context` is in tokens; `gpu_utilization` is a share of the GPU's memory; `quantization` is vLLM's name, or "none"
    to remove the argument; `memory` and `cpu` are Kubernetes quantities; prices are US dollars per token, as text, to
    avoid rounding.
    """

    name: str
    facts: ModelFacts
    served_name: str | None = None
    context: int | None = None
    quantization: str | None = None
    gpu_utilization: float | None = None
    storage: str | None = None
    memory: str | None = None
    cpu: str | None = None
    kind: Kind | None = None
    price_in: str | None = None
    price_out: str | None = None
    args: tuple[str, ...] = ()


class Change(BaseModel, frozen=True, defer_build=True):
    """A planned pull request: commit subject, contract as rows of label and value, and warnings.

    `intent` is a sentence that describes the change; `before` contains the rows of the contract before the change;
    `endpoint` is the endpoint after the change, or None if it is removed; `template` is the endpoint from which the new
    endpoint is copied.
    """

    changes: ChangeSet
    title: str
    intent: str
    summary: tuple[tuple[str, str], ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    sizing: Sizing | None = None
    warnings: tuple[str, ...] = ()
    endpoint: ModelEndpoint | None = None
    template: str = ""


def of_kind(facts: ModelFacts, kind: Kind | None) -> ModelFacts:
    """The facts with the requested kind, if one was requested."""
    return facts if kind is None else facts.model_copy(update={"kind": kind})
