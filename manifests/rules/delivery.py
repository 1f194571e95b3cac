"""The rules for ApplicationSets, for groups with their flags, and for the gateway's Application."""

import difflib
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests.deployers.argocd import group_of
from manifests.edit import Document, entries, find, items, line, scalar, value
from manifests.groups import group_flag, groups
from manifests.layout import Layout
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.rules.finding import Finding, at
from manifests.tree import Tree


def check(platform: Platform, endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """Report why the Application of an endpoint, or of the gateway, is missing or wrong."""
    sets = _application_sets(platform)
    yield from _sets(platform, sets)
    yield from _listed(platform, endpoints, sets)
    yield from _flags(platform, endpoints)
    yield from _alike(platform.layout, platform.applications(), endpoints)
    for app in platform.applications():
        yield from _values(platform, app)


def _application_sets(tree: Tree) -> tuple[Located, ...]:
    return tuple(
        located
        for path in tree.grep("kind: ApplicationSet")
        for kind, located in objects(tree, path)
        if kind == "ApplicationSet"
    )


def _sets(platform: Platform, sets: Collection[Located]) -> Iterator[Finding]:
    """Check that the generators read an existing list, from the branch into which changes are merged."""
    layout = platform.layout
    list_path = layout.path(layout.groups_file)
    for application_set in sets:
        name = value(application_set.node, "metadata", "name")
        read = [find(generator, "git") for generator in items(find(application_set.node, "spec", "generators"))]
        if not any(_is_near(value(file, "path"), list_path) for git in read for file in items(find(git, "files"))):
            continue  # no generator of the set reads the list, or a file with a similar path
        template = find(application_set.node, "spec", "template", "spec", "source")
        for node in (*(scalar(git, "revision") for git in read), scalar(template, "targetRevision")):
            if node is not None and not _is_branch(node.value, layout):
                message = f"the ApplicationSet {name} follows {node.value}, but changes are merged to {layout.branch}"
                yield at("application-revision", application_set, node, message, f"write {layout.branch}")
        for git in read:
            for file in items(find(git, "files")):
                path = scalar(file, "path")
                if (
                    path is not None
                    and path.value != list_path
                    and _is_of(layout, path.value)
                    and not platform.read(path.value)
                ):
                    message = f"the ApplicationSet {name} reads {path.value}, which does not exist"
                    yield at("group-path", application_set, path, message, f"path: {list_path}")
        for node, key in _selectors(application_set):
            values = {value(group.node, key) for group in groups(platform)}
            if values - {""} and node.value not in values:
                message = f"the ApplicationSet {name} selects {key}: {node.value}, which matches no group"
                yield at("group-path", application_set, node, message, f"{key}: {' or '.join(sorted(values - {''}))}")


def _selectors(application_set: Located) -> Iterator[tuple[ScalarNode, str]]:
    for generator in items(find(application_set.node, "spec", "generators")):
        for key, node in entries(find(generator, "selector", "matchLabels")):
            if isinstance(node, ScalarNode):
                yield node, str(key.value)


def _listed(platform: Platform, endpoints: Collection[Pieces], sets: Collection[Located]) -> Iterator[Finding]:
    """Check that the generated list has one entry per group, whose labels an ApplicationSet selects."""
    layout = platform.layout
    listed = groups(platform)
    names = Counter(group.name for group in listed)
    texts = Counter(bool(group.value.style) for group in listed)
    selected = [dict(_selected_labels(application_set)) for application_set in sets if _reads(application_set, layout)]
    used_groups = {
        group_of(layout, endpoint.application.document.path)
        for endpoint in endpoints
        if endpoint.application is not None
    }
    names_seen: set[str] = set()
    for group in listed:
        if group.name in names_seen:
            message = f"the group {group.name} is in the list {names[group.name]} times: the ApplicationSet refuses it"
            yield at("group-stale", group, find(group.node, "name"), message, "keep one of them")
        names_seen.add(group.name)
        if not group.value.style and texts[True] > texts[False]:
            message = "enabled is not a string here, but the ApplicationSet's selector compares strings"
            yield at("group-stale", group, group.value, message, f'enabled: "{group.value.value}"')
        if group.name in used_groups and selected:
            wrong = [
                [key for key, text in labels.items() if key != "enabled" and value(group.node, key) != text]
                for labels in selected
            ]
            if all(wrong):
                key = min(wrong, key=len)[0]
                message = f"no ApplicationSet selects {key}: {value(group.node, key)}, so {group.name} is never created"
                fix = f"{key}: {' or '.join(sorted({labels[key] for labels in selected if key in labels}))}"
                yield at("group-path", group, find(group.node, key), message, fix)


def _selected_labels(application_set: Located) -> Iterator[tuple[str, str]]:
    yield from ((key, str(node.value)) for node, key in _selectors(application_set))


def _reads(application_set: Located, layout: Layout) -> bool:
    return any(
        value(file, "path") == layout.path(layout.groups_file)
        for generator in items(find(application_set.node, "spec", "generators"))
        for file in items(find(generator, "git", "files"))
    )


def _flags(platform: Platform, endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """Check that each flag has the name of a group, and is true or false like the others."""
    layout = platform.layout
    path = layout.path(layout.config)
    text = platform.read(path)
    if text is None:
        return
    document = Document(path, text)
    flags = find(document.roots[0], "features") if document.roots else None
    plain = [node for _, node in entries(flags) if isinstance(node, ScalarNode)]
    usual = sum(not node.style and node.value in ("true", "false") for node in plain)
    for key, node in entries(flags):
        odd = isinstance(node, ScalarNode) and (node.style or node.value not in ("true", "false"))
        if odd and usual > len(plain) / 2 and isinstance(node, ScalarNode):
            message = f"the flag {key.value} is {node.value!r}, but the others are true or false"
            yield Finding(rule="group-disabled", path=path, line=line(node), message=message, fix=f"{key.value}: true")
    used_groups = {
        group_of(layout, endpoint.application.document.path)
        for endpoint in endpoints
        if endpoint.application is not None
    }
    known_groups = {listed.name for listed in groups(platform)}
    for group in sorted(used_groups - {""}):
        if group_flag(platform, group) is not None:
            continue
        for key, _ in entries(flags):
            if key.value not in known_groups and difflib.get_close_matches(key.value, [group], 1, 0.85):
                message = f"there is no group {key.value}, and {group} has no flag"
                yield Finding(rule="group-disabled", path=path, line=line(key), message=message, fix=f"{group}:")


def _alike(layout: Layout, every: tuple[Located, ...], endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """Report an Application with a value that differs from the value that all others share."""
    endpoint_nodes = {id(endpoint.application.node) for endpoint in endpoints if endpoint.application is not None}
    repositories = Counter(value(source, "repoURL") for app in every for source in _sources(app) if _is_git(source))
    usual = repositories.most_common(1)[0][0] if repositories else ""
    for app in every:
        name = value(app.node, "metadata", "name")
        for source in _sources(app) if id(app.node) not in endpoint_nodes else ():
            revision = scalar(source, "targetRevision")
            if (
                revision is not None
                and _is_git(source)
                and value(source, "repoURL") == usual
                and not _is_branch(revision.value, layout)
            ):
                message = f"the Application {name} follows {revision.value}, but changes are merged to {layout.branch}"
                yield at("application-revision", app, revision, message, f"targetRevision: {layout.branch}")
        for rule, path in (
            ("application-destination", ("spec", "destination", "server")),
            ("application-project", ("spec", "project")),
        ):
            node = scalar(app.node, *path)
            values = {value(other_app.node, *path) for other_app in every if other_app.node is not app.node}
            if node is not None and len(values) == 1 and len(every) > 2 and node.value not in values | {""}:
                (right,) = values
                if right:
                    message = f"the Application {name} has the {path[-1]} {node.value}, but all others have {right}"
                    yield at(rule, app, node, message, f"{path[-1]}: {right}")


def _values(tree: Tree, app: Located) -> Iterator[Finding]:
    """Check that `$REF/path` in valueFiles names a source with that ref, and an existing file."""
    sources = _sources(app)
    refs = [node for source in sources if (node := scalar(source, "ref")) is not None]
    for source in sources:
        for named in items(find(source, "helm", "valueFiles")):
            match = re.fullmatch(r"\$([\w.-]+)/(.+)", value(named))
            if match is None:
                continue
            if match[1] not in {ref.value for ref in refs}:
                message = f"no source of the Application has the ref {match[1]}, which {value(named)} uses"
                yield at("application-path", app, refs[0] if len(refs) == 1 else named, message, f"ref: {match[1]}")
                return
            if tree.read(match[2]) is None and (similar := _similar_path(tree, match[2])):
                message = f"there is no file {match[2]}"
                yield at("application-path", app, named, message, f"${match[1]}/{similar}")


def _similar_path(tree: Tree, path: str) -> str:
    """Return a file with a similar path; "" if there is none, as in a partial checkout."""
    folders = (posixpath.dirname(path), posixpath.dirname(posixpath.dirname(path)))
    files = [file for folder in folders if folder for file in tree.files(folder)]
    return next(iter(difflib.get_close_matches(path, files, 1, 0.9)), "")


def _sources(app: Located) -> tuple[Node, ...]:
    single = find(app.node, "spec", "source")
    return (*((single,) if single is not None else ()), *items(find(app.node, "spec", "sources")))


def _is_git(source: Node) -> bool:
    return isinstance(source, MappingNode) and find(source, "chart") is None


def _is_branch(revision: str, layout: Layout) -> bool:
    return revision in (layout.branch, "HEAD", f"refs/heads/{layout.branch}", "") or "{{" in revision


def _is_of(layout: Layout, path: str) -> bool:
    """Return whether a path belongs to this environment and is not a pattern. Other environments may be in other repositories."""
    return layout.environment in path.split("/") and not re.search(r"[*?\[{]", path)


def _is_near(path: str, list_path: str) -> bool:
    return bool(difflib.get_close_matches(path, [list_path], 1, 0.8))
