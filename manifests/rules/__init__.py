"""The check: every rule of the model contract, asked of every endpoint.

No CI of a platform notices most of these faults, and each of them is an outage, an endless bill or a free lunch.
"""

from manifests.edit import InvalidYaml
from manifests.pieces import Layout, Pieces, locate, names, require
from manifests.rules import argo, gateway, lists, workload
from manifests.rules.finding import RULES, Finding, Rule, reference
from manifests.tree import Tree, without

__all__ = ["RULES", "Finding", "Rule", "check", "reference"]


def check(tree: Tree, layout: Layout, name: str | None = None) -> tuple[Finding, ...]:
    """Every disagreement between the pieces of one endpoint, or of all, by file and line.

    A file that is no YAML is a finding of its own, and the rest is checked without it. With a `name` that does not
    exist, or lies outside the contract, ManifestError says so.
    """
    broken: list[Finding] = []
    while True:
        try:
            found = _check(without(tree, {each.path for each in broken}), layout, name)
        except InvalidYaml as error:
            message, fix = f"this is not valid YAML: {error.problem}", "mend the syntax here"
            broken.append(Finding(rule="yaml", path=error.path, line=error.line, message=message, fix=fix))
            continue
        return tuple(sorted({*found, *broken}, key=lambda each: (each.path, each.line, each.message)))


def _check(tree: Tree, layout: Layout, name: str | None) -> list[Finding]:
    if name is not None:
        every: tuple[Pieces, ...] = (require(tree, layout, name),)
    else:
        located = (locate(tree, layout, each) for each in names(tree, layout))
        every = tuple(pieces for pieces in located if pieces is not None)
    found: list[Finding] = []
    for pieces in every:
        found += workload.check(tree, layout, pieces)
        found += gateway.check(tree, layout, pieces)
        found += argo.check(tree, layout, pieces)
        found += lists.check(tree, layout, pieces)
    if name is None:
        found += lists.check_names(tree, layout, {each.name for each in every if each.entry is None})
    return found + gateway.check_aliases(tree, layout, every if name else None)
