"""The check: applies every rule of the model contract to every endpoint.

Most of these faults pass a platform's CI and then cause an outage, unbounded cost or unmetered usage.
"""

from collections.abc import Iterator

from manifests.deployers import argocd
from manifests.edit import InvalidYaml
from manifests.groups import is_partial
from manifests.kustomize import Opaque
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.rules import (
    admission,
    argo,
    arguments,
    cold_start,
    container,
    delivery,
    gateway,
    lists,
    pod,
    repository,
    schema,
    storage,
    workload,
)
from manifests.rules.finding import Finding, reference
from manifests.rules.suppression import suppressed
from manifests.rules.table import RULES, Component, Rule, Severity
from manifests.tree import Tree

__all__ = ["RULES", "Component", "Finding", "Rule", "Severity", "check", "components_of", "reference"]


def check(platform: Platform, name: str | None = None, *, advice: bool = False) -> tuple[Finding, ...]:
    """Return every contradiction between the pieces of one endpoint, or of all endpoints, with file and line.

    With `advice`, also report things that work but could be faster (`Rule.advice`).

    A file that is not valid YAML is a finding, and the rest is checked without it. Raises ManifestError if `name` does
    not exist or does not follow the contract.
    """
    broken: list[Finding] = []
    while True:
        try:
            findings = _check(platform.without({finding.path for finding in broken}), name)
        except InvalidYaml as error:
            broken.append(_unreadable(platform, error))
            continue
        remaining = suppressed(platform, {*findings, *broken}, complete=name is None)
        remaining = [finding for finding in remaining if advice or not RULES[finding.rule].advice]
        return tuple(sorted(remaining, key=lambda finding: (finding.path, finding.line, finding.message)))


def _check(platform: Platform, name: str | None) -> list[Finding]:
    endpoints = platform.endpoints()
    checked = endpoints if name is None else (platform.require(name),)
    findings: list[Finding] = []
    for pieces in checked:
        components = components_of(platform, pieces)
        siblings = [endpoint for endpoint in endpoints if endpoint.name != pieces.name]
        findings += (
            finding for finding in _check_one(platform, pieces, siblings) if RULES[finding.rule].component in components
        )
    awaited = {endpoint.name for endpoint in checked if endpoint.entry is None}
    if name is None:
        findings += lists.check_names(platform, awaited)
        findings += argo.check_catalog(platform, checked)
        findings += delivery.check(platform, checked)
        findings += arguments.check_lost(platform, checked)
        findings += () if is_partial(platform) else workload.check_around(platform, checked)
    findings += schema.check(platform, checked, alone=name is not None)
    findings += repository.check(platform, checked[0] if name else None, awaited)
    return _distinct(findings + gateway.check_aliases(platform, endpoints, checked if name else None))


def components_of(platform: Platform, pieces: Pieces) -> frozenset[Component]:
    """The components of the platform that an endpoint uses, whose rules it follows.

    If the repository contains no deployer, the rules of Argo CD also apply, because an Application may be missing.
    """
    components: set[Component] = {"repository", "source", "engine"}
    if platform.model_lists():
        components.add("gateway")
    if pieces.deployer in ("", argocd.DEPLOYER.name):
        components.add("argocd")
    return frozenset(components)


def _check_one(platform: Platform, pieces: Pieces, siblings: list[Pieces]) -> Iterator[Finding]:
    if pieces.opaque:
        yield _opaque(pieces.opaque[0])
        yield from workload.check_replicas(pieces, siblings)
        return
    if pieces.is_plain:
        yield from workload.check(platform, pieces, siblings)
        yield from pod.check(pieces, siblings)
        yield from container.check(platform, pieces, siblings)
        yield from admission.check(pieces, siblings)
        yield from storage.check(platform.layout, pieces, siblings)
        yield from cold_start.check(pieces)
    else:
        yield from admission.check_resources(pieces)
    if pieces.is_plain and "argument" in pieces.runtime.rules and _in_list(pieces):
        yield from arguments.check(pieces)
    if "argument" in pieces.runtime.rules:
        yield from arguments.check_values(pieces)
    yield from gateway.check(platform, pieces, siblings)
    yield from argo.check(platform, pieces, siblings)
    yield from lists.check(platform, pieces)


def _in_list(pieces: Pieces) -> bool:
    """Return whether the arguments are items of a list, which a finding can point at."""
    return all(flag.carrier == "list" for flag in pieces.flags)


def _unreadable(tree: Tree, error: InvalidYaml) -> Finding:
    """Return the finding for a file that is not valid YAML, or at the first merge conflict that git left in it."""
    lines = (tree.read(error.path) or "").splitlines()
    marked = next((number for number, text in enumerate(lines, 1) if text.startswith("<<<<<<< ")), 0)
    if marked:
        message, fix = "git left a conflict here", "resolve it"
        return Finding(rule="yaml", path=error.path, line=marked, message=message, fix=fix)
    message = f"this is not valid YAML: {error.problem}"
    return Finding(rule="yaml", path=error.path, line=error.line, message=message, fix="correct the syntax here")


def _opaque(part: Opaque) -> Finding:
    message = f"{part.key} may change anything, so this endpoint is not checked"
    return Finding(rule="not-checked", path=part.path, line=part.line, message=message, fix="compare it by hand")


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Return one finding per rule and line, because two checks may detect the same fault."""
    return list({(finding.rule, finding.path, finding.line): finding for finding in reversed(findings)}.values())
