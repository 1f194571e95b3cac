"""The rules of Argo CD: the Application, the cost gate, the group."""

import difflib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ruamel.yaml.nodes import Node

from manifests.deployers.argocd import group_of, source_paths
from manifests.edit import find, items, scalar, value
from manifests.groups import group_flag, groups, is_partial
from manifests.kustomize import leads_to
from manifests.ownership import is_deployed_apart
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.rules import norms
from manifests.rules.finding import Finding, at
from manifests.tree import Tree, within

# "Sync Options" and "App Deletion" of Argo CD's documentation.
_OPTIONS = (
    "ApplyOutOfSyncOnly", "ClientSideApplyMigration", "CreateNamespace", "Delete", "FailOnSharedResource", "Force", "Prune",
    "PruneLast", "PrunePropagationPolicy", "Replace", "ServerSideApply", "SkipDryRunOnMissingResource", "Validate",
)  # fmt: skip
_FINALIZERS = (
    "resources-finalizer.argocd.argoproj.io",
    "post-delete-finalizer.argocd.argoproj.io",
    "pre-delete-finalizer.argocd.argoproj.io",
)


def check(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems of the Application that deploys one endpoint."""
    layout = platform.layout
    every = platform.applications()
    app = pieces.application
    if app is None:
        if not every or not norms.has_applications(siblings, platform):
            return  # another deployer deploys the endpoint
        message = f"no Application in {layout.path(layout.catalog_dir)} deploys {pieces.home}"
        yield at("application-missing", pieces.deployment, None, message, "add one to the catalog")
        return
    if pieces.fields is not None:
        return  # the field map names the Application
    if pieces.candidate.application is not None:
        return  # the Application itself declares the endpoint, and its source is a chart
    if not norms.owns_application(pieces) and not is_deployed_apart(platform, pieces):
        return  # one Application deploys many endpoints
    yield from _identity(platform, pieces, app, siblings)
    yield from _source(platform, pieces, app, every)
    yield from _like_the_others(app, every)
    yield from _spelling(app)
    if pieces.gpu and pieces.is_plain and norms.is_gated(pieces, siblings):
        yield from _cost_gate(pieces, app)
    yield from _group(platform, pieces, app)


def check_catalog(platform: Platform, endpoints: Iterable[Pieces]) -> Iterator[Finding]:
    """Report problems in the Applications that do not belong to endpoints."""
    endpoint_nodes = {id(endpoint.application.node) for endpoint in endpoints if endpoint.application is not None}
    every = platform.applications()
    usual = _usual(value(source, "repoURL") for app in every for source in _sources(app))
    for app in every:
        for source in _sources(app):
            path = scalar(source, "path")
            if (
                path is None
                or value(source, "repoURL") != usual
                or id(app.node) in endpoint_nodes
                or is_partial(platform)
            ):
                continue
            if not platform.files(path.value.strip("/").removeprefix("./")):
                name = value(app.node, "metadata", "name")
                message = f"the Application {name} deploys {path.value}, but there is no such directory"
                yield at("application-path", app, path, message, "write a directory that exists")


def _identity(platform: Platform, pieces: Pieces, app: Located, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    paths = source_paths(app)
    is_file = platform.read(pieces.home) is not None
    home = posixpath.dirname(pieces.home) if is_file and pieces.home not in paths else pieces.home
    if value(app.node, "metadata", "name") != pieces.name and norms.names_applications(siblings, platform):
        name, message = find(app.node, "metadata", "name"), "the Application has a different name"
        yield at("application-name", app, name, message, f"name: {pieces.name}")
    if home not in paths and not any(leads_to(platform, path, home) for path in paths):
        path = scalar(app.node, "spec", "source", "path")
        message = f"the Application {pieces.name} deploys {path.value if path else 'nothing from this repository'}"
        yield at("application-path", app, path or find(app.node, "spec"), message, f"path: {home}")


def _source(platform: Platform, pieces: Pieces, app: Located, every: tuple[Located, ...]) -> Iterator[Finding]:
    layout = platform.layout
    home = pieces.home
    source = next(
        (candidate for candidate in _sources(app) if home in value(candidate, "path")), find(app.node, "spec", "source")
    )
    revision, url = scalar(source, "targetRevision"), scalar(source, "repoURL")
    if revision is not None and revision.value not in (layout.branch, "HEAD", f"refs/heads/{layout.branch}"):
        message = f"the Application {pieces.name} follows {revision.value}, but changes are merged to {layout.branch}"
        yield at("application-revision", app, revision, message, f"targetRevision: {layout.branch}")
    urls = [
        value(source_node, "repoURL")
        for application in every
        if application.node is not app.node
        for source_node in _sources(application)
        if value(source_node, "path")
    ]
    usual = _usual(urls)
    if url is not None and usual and url.value.removesuffix(".git") != usual.removesuffix(".git"):
        message = f"the Application {pieces.name} reads {url.value}, but the others read {usual}"
        yield at("application-repository", app, url, message, f"repoURL: {usual}")
    sharing = [
        application for application in every if application.node is not app.node and home in source_paths(application)
    ]
    if sharing:
        path = scalar(source, "path")
        other_name = value(sharing[0].node, "metadata", "name")
        message = f"the Application {other_name} also deploys {home}: the two undo each other's changes"
        yield at("application-path-shared", app, path, message, "delete one of them")
        for application in sharing:
            path_node = next(
                (scalar(candidate, "path") for candidate in _sources(application) if home in value(candidate, "path")),
                None,
            )
            yield at(
                "application-path-shared",
                application,
                path_node,
                f"{pieces.name} also deploys {home}",
                "delete one of them",
            )
    destination = scalar(app.node, "spec", "destination", "namespace")
    namespace = pieces.rendering.namespace or value(pieces.deployment.node, "metadata", "namespace")
    if destination is not None and namespace and destination.value != namespace:
        message = f"the Application {pieces.name} deploys to {destination.value}, but its objects are for {namespace}"
        yield at("application-destination", app, destination, message, f"namespace: {namespace}")
    project, projects = scalar(app.node, "spec", "project"), _projects(platform)
    if project is not None and projects and project.value not in {*projects, "default"}:
        message = f"there is no AppProject {project.value}"
        yield at("application-project", app, project, message, f"project: {' or '.join(sorted(projects))}")


def _like_the_others(app: Located, every: tuple[Located, ...]) -> Iterator[Finding]:
    """Report settings that all other Applications of the catalog have and this one lacks."""
    other_apps = [application for application in every if application.node is not app.node]
    if len(other_apps) < 2:
        return
    namespaces = {value(application.node, "metadata", "namespace") for application in other_apps}
    namespace = scalar(app.node, "metadata", "namespace")
    if len(namespaces) == 1 and namespace is not None and namespace.value not in namespaces:
        (usual,) = namespaces
        message = f"the Application is in {namespace.value}, but the others are in {usual}: Argo CD does not see it"
        yield at("application-namespace", app, namespace, message, f"namespace: {usual}")
    if all(find(application.node, "metadata", "finalizers") for application in other_apps) and not find(
        app.node, "metadata", "finalizers"
    ):
        message = "the finalizer of the other Applications is missing: its objects would remain after its deletion"
        metadata = find(app.node, "metadata")
        yield at("application-finalizer", app, metadata, message, "resources-finalizer.argocd.argoproj.io")


def _spelling(app: Located) -> Iterator[Finding]:
    """Report unknown sync options, which Argo CD ignores, and unknown finalizers, which block a deletion forever."""
    for item in items(find(app.node, "spec", "syncPolicy", "syncOptions")):
        name = value(item).partition("=")[0]
        similar = difflib.get_close_matches(name, _OPTIONS, 1, 0.85)
        if similar and name not in (*_OPTIONS, "RespectIgnoreDifferences"):
            yield at("sync-option", app, item, f"Argo CD has no option {name}", f"write {similar[0]}=true")
    for finalizer in items(find(app.node, "metadata", "finalizers")):
        similar = difflib.get_close_matches(value(finalizer).partition("/")[0], _FINALIZERS, 1, 0.9)
        if similar and value(finalizer).partition("/")[0] not in _FINALIZERS:
            message = f"nothing handles the finalizer {value(finalizer)}: the Application cannot be deleted"
            yield at("application-finalizer", app, finalizer, message, f"write {similar[0]}")


def _cost_gate(pieces: Pieces, app: Located) -> Iterator[Finding]:
    deployment = pieces.workload
    ignored = list(items(find(app.node, "spec", "ignoreDifferences")))
    for difference in ignored:
        named = value(difference, "name")
        if value(difference, "kind") == "Deployment" and named not in ("", deployment):
            if named == pieces.name and pieces.rendering.name(pieces.name) == pieces.name:
                name = find(pieces.deployment.node, "metadata", "name")
                message = f"the Deployment is named {deployment}, but the directory, the Application and ignoreDifferences name {named}"
                yield at("deployment-name", pieces.deployment, name, message, f"name: {named}")
            else:
                message = f"ignoreDifferences names {named}, so scaling {deployment} is drift"
                yield at("ignore-differences", app, find(difference, "name"), message, f"name: {deployment}")
        space = scalar(difference, "namespace")
        namespace = pieces.rendering.namespace or value(pieces.deployment.node, "metadata", "namespace")
        if space is not None and namespace and space.value not in ("", namespace):
            message = f"ignoreDifferences is about {space.value}, but the Deployment is in {namespace}"
            yield at("ignore-differences", app, space, message, f"namespace: {namespace}")
    if not any(_ignores_replicas(difference) for difference in ignored):
        node = _closest(ignored) or find(app.node, "spec", "ignoreDifferences") or find(app.node, "spec")
        message, fix = "differences in /spec/replicas are not ignored", "ignore them for this Deployment"
        yield at("ignore-differences", app, node, message, fix)
    automated = find(app.node, "spec", "syncPolicy", "automated")
    if automated is not None and value(automated) not in ("null", "~") and value(automated, "enabled") != "false":
        message = "a GPU model must not sync automatically: its sync needs an approval"
        yield at("automated-gpu", app, automated, message, "remove automated")
    options = find(app.node, "spec", "syncPolicy", "syncOptions")
    if "RespectIgnoreDifferences=true" not in (value(item) for item in items(options)):
        message = "RespectIgnoreDifferences=true is missing: a sync would scale the model to zero"
        wrong = next((option for option in items(options) if value(option).startswith("RespectIgnore")), None)
        node = wrong or options or find(app.node, "spec", "syncPolicy") or find(app.node, "spec")
        yield at("respect-ignore-differences", app, node, message, "add it to syncOptions")


def _ignores_replicas(difference: Node) -> bool:
    pointers = {value(item) for item in items(find(difference, "jsonPointers"))}
    paths = {value(path) for path in items(find(difference, "jqPathExpressions"))}
    right = value(difference, "kind") in ("Deployment", "*") and value(difference, "group") in ("apps", "*")
    return right and ("/spec/replicas" in pointers or ".spec.replicas" in paths)


def _closest(ignored: list[Node]) -> Node | None:
    """Return the wrong part of an entry in ignoreDifferences."""
    for difference in ignored:
        if value(difference, "kind") not in ("Deployment", "*"):
            return find(difference, "kind")
        if value(difference, "group") not in ("apps", "*"):
            return find(difference, "group") or find(difference, "kind")
        if pointers := items(find(difference, "jsonPointers")) or items(find(difference, "jqPathExpressions")):
            return pointers[0]
    return None


def _group(platform: Platform, pieces: Pieces, app: Located) -> Iterator[Finding]:
    """Check that the group of an endpoint with an alias is enabled, and is read from its own directory."""
    layout = platform.layout
    name, listed = group_of(layout, app.document.path), groups(platform)
    flag, group = group_flag(platform, name), next((candidate for candidate in listed if candidate.name == name), None)
    catalog = layout.path(layout.catalog_dir)
    folder = f"{catalog}/{name}"
    if group is not None and within(group.path, catalog) and group.path != folder and not platform.files(group.path):
        message = f"the group {name} is read from {group.path}, but its Applications are in {folder}"
        yield at("group-path", group, find(group.node, "catalogPath"), message, f"catalogPath: {folder}")
    if pieces.entry is None:
        return
    if flag is not None and not flag.on:
        message = f"the group {name} is switched off, but tenants can call {pieces.entry.alias}"
        yield at("group-disabled", flag, flag.value, message, f"{name}: true, then run the generator")
    elif group is not None and not group.on:
        if flag is None:
            message = f"the group {name} is switched off, but tenants can call {pieces.entry.alias}"
            yield at("group-disabled", group, group.value, message, "enable it in the source of this list")
        else:
            message = f"the group {name} is switched off here, but on in {flag.document.path}"
            yield at("group-stale", group, group.value, message, "run the generator that writes this list")
    elif group is None and (misnamed := next((candidate for candidate in listed if candidate.path == folder), None)):
        message = f"the group {misnamed.name} is read from {folder}, whose Applications are of the group {name}"
        yield at("group-path", misnamed, find(misnamed.node, "name"), message, f"name: {name}")
    elif group is None and listed and name and not is_partial(platform):
        message = f"the group {name} is not in {layout.path(layout.groups_file)}: nothing applies this Application"
        yield at(
            "group-unknown",
            app,
            None,
            message,
            f"move the file to one of {', '.join(candidate.name for candidate in listed)}",
        )


def _sources(app: Located) -> tuple[Node, ...]:
    single = find(app.node, "spec", "source")
    return (*((single,) if single is not None else ()), *items(find(app.node, "spec", "sources")))


def _usual(texts: Iterable[str]) -> str:
    """Return the most common text, or ""."""
    counted = Counter(text for text in texts if text).most_common(1)
    return counted[0][0] if counted else ""


def _projects(tree: Tree) -> set[str]:
    return {
        value(project.node, "metadata", "name")
        for path in tree.grep("kind: AppProject")
        for kind, project in objects(tree, path)
        if kind == "AppProject"
    }
