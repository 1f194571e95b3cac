"""The rules of Argo CD: the Application, the cost gate, the group."""

from collections.abc import Iterator

from ruamel.yaml.nodes import Node

from manifests.edit import find, items, scalar, value
from manifests.groups import feature, groups
from manifests.pieces import Layout, Located, Pieces, group_of, source_paths
from manifests.rules.finding import Finding, at
from manifests.tree import Tree


def check(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """What is wrong with how Argo CD deploys one endpoint."""
    app = pieces.application
    if app is None:
        message = f"no Application in {layout.path(layout.catalog_dir)} deploys {layout.home(pieces.name)}"
        yield at("application-missing", pieces.deployment, None, message, "add one to the catalog")
        return
    yield from _identity(layout, pieces, app)
    if pieces.gpu:
        yield from _cost_gate(pieces, app)
    yield from _group(tree, layout, pieces, app)


def _identity(layout: Layout, pieces: Pieces, app: Located) -> Iterator[Finding]:
    if value(app.node, "metadata", "name") != pieces.name:
        name, message = find(app.node, "metadata", "name"), "the Application has another name"
        yield at("application-name", app, name, message, f"name: {pieces.name}")
    if layout.home(pieces.name) not in source_paths(app):
        path = scalar(app.node, "spec", "source", "path")
        message = f"the Application {pieces.name} deploys {path.value if path else 'nothing of this repository'}"
        yield at("application-path", app, path or find(app.node, "spec"), message, f"path: {layout.home(pieces.name)}")


def _cost_gate(pieces: Pieces, app: Located) -> Iterator[Finding]:
    deployment = value(pieces.deployment.node, "metadata", "name")
    ignored = items(find(app.node, "spec", "ignoreDifferences"))
    for each in ignored:
        if value(each, "kind") == "Deployment" and value(each, "name") not in ("", deployment):
            message = f"ignoreDifferences names {value(each, 'name')}, so scaling {deployment} is drift"
            yield at("ignore-differences", app, find(each, "name"), message, f"name: {deployment}")
    if not any(_ignores_replicas(each) for each in ignored):
        pointers = next((found for each in ignored if (found := find(each, "jsonPointers"))), None)
        where = pointers or find(app.node, "spec", "ignoreDifferences") or find(app.node, "spec")
        message, fix = "differences in /spec/replicas are not ignored", "ignore them for this Deployment"
        yield at("ignore-differences", app, where, message, fix)
    automated = find(app.node, "spec", "syncPolicy", "automated")
    if automated is not None and value(automated) not in ("null", "~") and value(automated, "enabled") != "false":
        message = "a GPU model must not sync by itself: that is the cost gate"
        yield at("automated-gpu", app, automated, message, "remove automated")
    options = find(app.node, "spec", "syncPolicy", "syncOptions")
    if "RespectIgnoreDifferences=true" not in (value(each) for each in items(options)):
        message = "RespectIgnoreDifferences=true is missing: a sync would scale the model to zero"
        where = options or find(app.node, "spec", "syncPolicy") or find(app.node, "spec")
        yield at("respect-ignore-differences", app, where, message, "add it to syncOptions")


def _ignores_replicas(difference: Node) -> bool:
    return "/spec/replicas" in (value(each) for each in items(find(difference, "jsonPointers")))


def _group(tree: Tree, layout: Layout, pieces: Pieces, app: Located) -> Iterator[Finding]:
    """An endpoint that nobody can call may rest in a group that is off; one with an alias may not."""
    if pieces.entry is None:
        return
    name = group_of(layout, app.document.path)
    flag, group = feature(tree, layout, name), next((each for each in groups(tree, layout) if each.name == name), None)
    if flag is not None and not flag.on:
        message = f"the group {name} is switched off, and tenants can call {pieces.entry.alias}"
        yield at("group-disabled", flag, flag.value, message, f"{name}: true, then run the generator")
    elif group is not None and not group.on:
        if flag is None:
            message = f"the group {name} is switched off, and tenants can call {pieces.entry.alias}"
            yield at("group-disabled", group, group.value, message, "switch it on where this list is generated from")
        else:
            message = f"the group {name} is switched off here, and on in {flag.document.path}"
            yield at("group-stale", group, group.value, message, "run the generator that writes this list")
