"""The rules of the model contract, one function a piece."""

from pydantic import BaseModel

from manifests.pieces import Layout
from manifests.tree import Tree


class Finding(BaseModel, frozen=True):
    """One disagreement: where it stands (lines are counted from 1), what is wrong, and what to write instead."""

    path: str
    line: int
    message: str
    fix: str


def check(tree: Tree, layout: Layout, name: str | None = None) -> tuple[Finding, ...]:
    """Every disagreement between the pieces of one endpoint, or of all, by file and line."""
    return ()
