"""What `add` and `swap` are asked for, and what they and `remove` hand to a reviewer: the files, and what they mean."""

from pydantic import BaseModel

from manifests.contract import ModelEndpoint
from manifests.sizing import ModelFacts, Sizing
from manifests.tree import ChangeSet


class Wanted(BaseModel, frozen=True):
    """What somebody wants an endpoint to serve. What is None is derived, or stays as it is.

    `context` is in tokens, `gpu_utilization` a share of the GPU's memory; `quantization` is vLLM's name, or "none" for no
    such argument; prices are US dollars per token, as text, so that no float rounds them.
    """

    name: str
    facts: ModelFacts
    served_name: str | None = None
    context: int | None = None
    quantization: str | None = None
    gpu_utilization: float | None = None
    storage: str | None = None
    price_in: str | None = None
    price_out: str | None = None
    args: tuple[str, ...] = ()


class Change(BaseModel, frozen=True):
    """A planned pull request: its commit subject, the contract as rows of label and value, and what to beware of.

    `intent` is a sentence on what is done; `before` are the rows that another contract had until now; `endpoint` is the
    endpoint after the change, None when it is gone.
    """

    changes: ChangeSet
    title: str
    intent: str
    summary: tuple[tuple[str, str], ...] = ()
    before: tuple[tuple[str, str], ...] = ()
    sizing: Sizing | None = None
    warnings: tuple[str, ...] = ()
    endpoint: ModelEndpoint | None = None
