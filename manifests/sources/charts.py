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
    all_sources = (find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources")))
    return tuple(source for source in all_sources if source is not None)


def value_files(tree: Tree, application: Located, source: Node) -> tuple[str, ...]:
    """The files of the repository with the values of a source; the last one takes precedence.

    A file is named relative to the chart, or to the root of the repository that a `$ref` names.
    """
    folder = value(source, "path").strip("/")
    refs = {value(other_source, "ref") for other_source in sources(application)} - {""}
    paths = [f"{folder}/values.yaml"] if is_chart(tree, folder) else []
    for item in items(find(source, "helm", "valueFiles")):
        path = value(item)
        ref, _, path_after_ref = path.partition("/")
        if ref.startswith("$"):
            paths += [path_after_ref] if ref[1:] in refs else []
        else:
            paths.append(path.lstrip("/") if path.startswith("/") else posixpath.normpath(posixpath.join(folder, path)))
    return tuple(path for path in dict.fromkeys(paths) if tree.read(path) is not None)


def folders(tree: Tree, kind: str, located: Located) -> tuple[str, ...]:
    """The charts of the repository that an Application or a HelmRelease installs."""
    if kind == "Application":
        chart_paths = [value(source, "path") for source in sources(located)]
    else:
        is_git = value(located.node, "spec", "chart", "spec", "sourceRef", "kind") == "GitRepository"
        chart_paths = [value(located.node, "spec", "chart", "spec", "chart")] if is_git else []
    chart_folders = (posixpath.normpath(folder.strip("/")) for folder in chart_paths if folder)
    return tuple(folder for folder in chart_folders if is_chart(tree, folder))


def files_of_release(tree: Tree, release: Located) -> tuple[str, ...]:
    """The files of the repository with the values of a HelmRelease; the last one takes precedence."""
    listed_files = [value(item) for item in items(find(release.node, "spec", "chart", "spec", "valuesFiles"))]
    paths = [f"{folder}/values.yaml" for folder in folders(tree, "HelmRelease", release)]
    paths += [posixpath.normpath(path) for path in listed_files]
    return tuple(path for path in dict.fromkeys(paths) if tree.read(path) is not None)


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
