"""What `add`, `swap` and `remove` hand to a reviewer: the files, and what they mean."""

from pydantic import BaseModel

from manifests.contract import ModelEndpoint
from manifests.sizing import Sizing
from manifests.tree import ChangeSet


class Change(BaseModel, frozen=True):
    """A planned pull request: its commit subject, the contract as rows of label and value, and what to beware of.

    `endpoint` is the endpoint after the change, None when it is gone.
    """

    changes: ChangeSet
    title: str
    summary: tuple[tuple[str, str], ...] = ()
    sizing: Sizing | None = None
    warnings: tuple[str, ...] = ()
    endpoint: ModelEndpoint | None = None
