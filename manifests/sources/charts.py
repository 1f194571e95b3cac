"""Charts in the repository: the files with their values, and the charts that they contain.

Source: argo-cd.readthedocs.io/en/stable/user-guide/helm, and helm.sh/docs/topics/charts.
"""

import posixpath

from ruamel.yaml.nodes import Node

from manifests.edit import Document, InvalidYaml, find, items, value
from manifests.objects import Located
from manifests.tree import Tree


def sources(application: Located) -> tuple[Node, ...]:
    """The sources of an Application."""
    found = (find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources")))
    return tuple(each for each in found if each is not None)


def value_files(tree: Tree, application: Located, source: Node) -> tuple[str, ...]:
    """The files of the repository with the values of a source, those that take precedence last.

    A file is named relative to the chart, or to the root of the repository that a `$ref` names.
    """
    folder = value(source, "path").strip("/")
    refs = {value(each, "ref") for each in sources(application)} - {""}
    named = [f"{folder}/values.yaml"] if is_chart(tree, folder) else []
    for item in items(find(source, "helm", "valueFiles")):
        path = value(item)
        ref, _, rest = path.partition("/")
        if ref.startswith("$"):
            named += [rest] if ref[1:] in refs else []
        else:
            named.append(path.lstrip("/") if path.startswith("/") else posixpath.normpath(posixpath.join(folder, path)))
    return tuple(path for path in dict.fromkeys(named) if tree.read(path) is not None)


def folders(tree: Tree, kind: str, located: Located) -> tuple[str, ...]:
    """The charts of the repository that an Application or a HelmRelease installs."""
    if kind == "Application":
        named = [value(source, "path") for source in sources(located)]
    else:
        is_git = value(located.node, "spec", "chart", "spec", "sourceRef", "kind") == "GitRepository"
        named = [value(located.node, "spec", "chart", "spec", "chart")] if is_git else []
    found = (posixpath.normpath(each.strip("/")) for each in named if each)
    return tuple(each for each in found if is_chart(tree, each))


def files_of_release(tree: Tree, release: Located) -> tuple[str, ...]:
    """The files of the repository with the values of a HelmRelease, those that take precedence last."""
    given = [value(item) for item in items(find(release.node, "spec", "chart", "spec", "valuesFiles"))]
    named = [f"{folder}/values.yaml" for folder in folders(tree, "HelmRelease", release)]
    named += [posixpath.normpath(each) for each in given]
    return tuple(path for path in dict.fromkeys(named) if tree.read(path) is not None)


def namespace(kind: str, located: Located) -> str:
    """The namespace of a release's objects, if the release sets it."""
    if kind == "Application":
        return value(located.node, "spec", "destination", "namespace")
    return value(located.node, "spec", "targetNamespace") or value(located.node, "metadata", "namespace")


def is_chart(tree: Tree, folder: str) -> bool:
    return bool(folder) and tree.read(f"{folder}/Chart.yaml") is not None


def dependencies(tree: Tree, folder: str) -> tuple[str, ...]:
    """The charts that a chart of the repository contains."""
    path = f"{folder.strip('/')}/Chart.yaml"
    try:
        roots = Document(path, tree.read(path) or "").roots
    except InvalidYaml:
        return ()
    return tuple(value(item, "name") for root in roots for item in items(find(root, "dependencies")))
