"""The rules for creating the Applications in Argo CD: ApplicationSets, groups with their flags, the gateway's
Application.
"""

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
    """Faults that keep an endpoint's Application, or the gateway's, from existing as written."""
    sets = _application_sets(platform)
    yield from _sets(platform, sets)
    yield from _listed(platform, endpoints, sets)
    yield from _flags(platform, endpoints)
    yield from _alike(platform.layout, platform.applications(), endpoints)
    for app in platform.applications():
        yield from _values(platform, app)


def _application_sets(tree: Tree) -> tuple[Located, ...]:
    return tuple(
        each
        for path in tree.grep("kind: ApplicationSet")
        for kind, each in objects(tree, path)
        if kind == "ApplicationSet"
    )


def _sets(platform: Platform, sets: Collection[Located]) -> Iterator[Finding]:
    """A generator must read the branch into which changes are merged, and an existing list."""
    layout = platform.layout
    wanted = layout.path(layout.groups_file)
    for each in sets:
        name = value(each.node, "metadata", "name")
        read = [find(generator, "git") for generator in items(find(each.node, "spec", "generators"))]
        if not any(_is_near(value(file, "path"), wanted) for git in read for file in items(find(git, "files"))):
            continue  # about another topic
        template = find(each.node, "spec", "template", "spec", "source")
        for node in (*(scalar(git, "revision") for git in read), scalar(template, "targetRevision")):
            if node is not None and not _is_branch(node.value, layout):
                message = f"the ApplicationSet {name} follows {node.value}, and changes are merged to {layout.branch}"
                yield at("application-revision", each, node, message, f"write {layout.branch}")
        for git in read:
            for file in items(find(git, "files")):
                path = scalar(file, "path")
                if (
                    path is not None
                    and path.value != wanted
                    and _is_of(layout, path.value)
                    and not platform.read(path.value)
                ):
                    message = f"the ApplicationSet {name} reads {path.value}, which does not exist"
                    yield at("group-path", each, path, message, f"path: {wanted}")
        for node, key in _selectors(each):
            said = {value(group.node, key) for group in groups(platform)}
            if said - {""} and node.value not in said:
                message = f"the ApplicationSet {name} selects {key}: {node.value}, which matches no group"
                yield at("group-path", each, node, message, f"{key}: {' or '.join(sorted(said - {''}))}")


def _selectors(application_set: Located) -> Iterator[tuple[ScalarNode, str]]:
    for generator in items(find(application_set.node, "spec", "generators")):
        for key, node in entries(find(generator, "selector", "matchLabels")):
            if isinstance(node, ScalarNode):
                yield node, str(key.value)


def _listed(platform: Platform, endpoints: Collection[Pieces], sets: Collection[Located]) -> Iterator[Finding]:
    """The generated list: one entry per group, whose labels an ApplicationSet selects."""
    layout = platform.layout
    listed = groups(platform)
    names = Counter(each.name for each in listed)
    texts = Counter(bool(each.value.style) for each in listed)
    selected = [dict(_wanted(each)) for each in sets if _reads(each, layout)]
    own = {
        group_of(layout, endpoint.application.document.path)
        for endpoint in endpoints
        if endpoint.application is not None
    }
    seen: set[str] = set()
    for each in listed:
        if each.name in seen:
            message = f"the group {each.name} is in the list {names[each.name]} times: the ApplicationSet refuses it"
            yield at("group-stale", each, find(each.node, "name"), message, "keep one of them")
        seen.add(each.name)
        if not each.value.style and texts[True] > texts[False]:
            message = "enabled is not text here, and the ApplicationSet's selector compares texts"
            yield at("group-stale", each, each.value, message, f'enabled: "{each.value.value}"')
        if each.name in own and selected:
            wrong = [
                [key for key, said in wanted.items() if key != "enabled" and value(each.node, key) != said]
                for wanted in selected
            ]
            if all(wrong):
                key = min(wrong, key=len)[0]
                message = (
                    f"no ApplicationSet selects {key}: {value(each.node, key)}, so that {each.name} is never created"
                )
                fix = f"{key}: {' or '.join(sorted({wanted[key] for wanted in selected if key in wanted}))}"
                yield at("group-path", each, find(each.node, key), message, fix)


def _wanted(application_set: Located) -> Iterator[tuple[str, str]]:
    yield from ((key, str(node.value)) for node, key in _selectors(application_set))


def _reads(application_set: Located, layout: Layout) -> bool:
    return any(
        value(file, "path") == layout.path(layout.groups_file)
        for generator in items(find(application_set.node, "spec", "generators"))
        for file in items(find(generator, "git", "files"))
    )


def _flags(platform: Platform, endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """A flag has the name of its group, and is true or false like the others."""
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
            message = f"the flag {key.value} is {node.value!r}, and the others are true or false"
            yield Finding(rule="group-disabled", path=path, line=line(node), message=message, fix=f"{key.value}: true")
    own = {
        group_of(layout, endpoint.application.document.path)
        for endpoint in endpoints
        if endpoint.application is not None
    }
    known = {each.name for each in groups(platform)}
    for group in sorted(own - {""}):
        if group_flag(platform, group) is not None:
            continue
        for key, _ in entries(flags):
            if key.value not in known and difflib.get_close_matches(key.value, [group], 1, 0.85):
                message = f"there is no group {key.value}, and {group} has no flag"
                yield Finding(rule="group-disabled", path=path, line=line(key), message=message, fix=f"{group}:")


def _alike(layout: Layout, every: tuple[Located, ...], endpoints: Collection[Pieces]) -> Iterator[Finding]:
    """If all other Applications have the same value, a different one is wrong."""
    own = {id(endpoint.application.node) for endpoint in endpoints if endpoint.application is not None}
    repositories = Counter(value(source, "repoURL") for app in every for source in _sources(app) if _is_git(source))
    usual = repositories.most_common(1)[0][0] if repositories else ""
    for app in every:
        name = value(app.node, "metadata", "name")
        for source in _sources(app) if id(app.node) not in own else ():
            revision = scalar(source, "targetRevision")
            if (
                revision is not None
                and _is_git(source)
                and value(source, "repoURL") == usual
                and not _is_branch(revision.value, layout)
            ):
                message = f"the Application {name} follows {revision.value}, and changes are merged to {layout.branch}"
                yield at("application-revision", app, revision, message, f"targetRevision: {layout.branch}")
        for rule, path in (
            ("application-destination", ("spec", "destination", "server")),
            ("application-project", ("spec", "project")),
        ):
            node = scalar(app.node, *path)
            others = {value(each.node, *path) for each in every if each.node is not app.node}
            if node is not None and len(others) == 1 and len(every) > 2 and node.value not in others | {""}:
                (right,) = others
                if right:
                    message = f"the Application {name} has the {path[-1]} {node.value}, and all others have {right}"
                    yield at(rule, app, node, message, f"{path[-1]}: {right}")


def _values(tree: Tree, app: Located) -> Iterator[Finding]:
    """`$REF/path` in valueFiles: a source with that ref, and a file of the repository."""
    sources = _sources(app)
    refs = [node for source in sources if (node := scalar(source, "ref")) is not None]
    for source in sources:
        for named in items(find(source, "helm", "valueFiles")):
            found = re.fullmatch(r"\$([\w.-]+)/(.+)", value(named))
            if found is None:
                continue
            if found[1] not in {ref.value for ref in refs}:
                message = f"no source of the Application has the ref {found[1]}, from which {value(named)} is read"
                yield at("application-path", app, refs[0] if len(refs) == 1 else named, message, f"ref: {found[1]}")
                return
            if tree.read(found[2]) is None and (near := _near(tree, found[2])):
                message = f"there is no file {found[2]}"
                yield at("application-path", app, named, message, f"${found[1]}/{near}")


def _near(tree: Tree, path: str) -> str:
    """A file with a similar path; "" if there is none, as in a part of a repository."""
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
    """Return whether a path belongs to this environment and is not a pattern: other environments may be in other repositories."""
    return layout.environment in path.split("/") and not re.search(r"[*?\[{]", path)


def _is_near(path: str, wanted: str) -> bool:
    return bool(difflib.get_close_matches(path, [wanted], 1, 0.8))
