"""The variables and mounted files that a container gets from ConfigMaps."""

import itertools
import posixpath
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ruamel.yaml.nodes import Node, ScalarNode

from manifests.arguments import own_variables
from manifests.edit import Document, InvalidYaml, entries, find, items, value
from manifests.objects import Located, of_kind
from manifests.sources.site import Site
from manifests.tree import Tree


class Surroundings(NamedTuple):
    """A container's variables, the files that are mounted into it (by path), and the ConfigMaps that they come from."""

    variables: Mapping[str, Site]
    files: Mapping[str, Document]
    configs: tuple[Located, ...]


def surroundings(tree: Tree, document: Document, pod: Node | None, container: Node) -> Surroundings:
    """Everything that a container's command line may refer to."""
    variables: dict[str, Site] = {}
    configs: list[Located] = []

    def keys(name: str) -> dict[str, Site]:
        sources = config_maps(tree, name, document.path)
        configs.extend(source for source in sources if source not in configs)
        return {key: site for source in sources for key, site in _data(source, name)}

    for item in items(find(container, "envFrom")):
        if name := value(item, "configMapRef", "name"):
            prefix = value(item, "prefix")
            variables |= {f"{prefix}{key}": site for key, site in keys(name).items()}
    for variable in items(find(container, "env")):
        name, key = (
            value(variable, "valueFrom", "configMapKeyRef", "name"),
            value(variable, "valueFrom", "configMapKeyRef", "key"),
        )
        if name and (site := keys(name).get(key)) is not None:
            variables[value(variable, "name")] = site
    variables |= own_variables(container, document)
    files: dict[str, Document] = {}
    for volume in items(find(pod, "volumes")):
        for name in _config_names(volume):
            for mount in items(find(container, "volumeMounts")):
                if value(mount, "name") != value(volume, "name"):
                    continue
                for key, site in keys(name).items():
                    path = _mount_path(volume, mount, key)
                    if path and isinstance(site.node, ScalarNode) and site.node.style == "|":
                        files[path] = next(
                            (inner for inner in site.document.inner if _is_in(inner, site)), site.document
                        )
    return Surroundings(variables, files, tuple(configs))


def config_maps(tree: Tree, name: str, path: str) -> tuple[Located, ...]:
    """The ConfigMap of this name that is closest to the file `path`, or the kustomization that generates it.

    Empty if several are equally close (one for each environment), because it is unknown which of them is used.
    """
    located = [
        candidate for candidate in of_kind(tree, "ConfigMap") if value(candidate.node, "metadata", "name") == name
    ]
    located += [
        candidate
        for candidate in of_kind(tree, "Kustomization")
        if any(value(generator, "name") == name for generator in items(find(candidate.node, "configMapGenerator")))
    ]
    if len(located) > 1:
        shared = [_shared_folders(path, candidate.document.path) for candidate in located]
        located = [candidate for candidate, length in zip(located, shared, strict=True) if length == max(shared)]
    return tuple(located) if len(located) == 1 else ()


def generating_file(source: Located, name: str, key: str) -> str:
    """The file from which a kustomization generates a key of the ConfigMap; "" if there is none."""
    for generator in items(find(source.node, "configMapGenerator")):
        for entry in items(find(generator, "files")) if value(generator, "name") == name else ():
            explicit_key, sign, path = value(entry).rpartition("=")
            if (explicit_key if sign else posixpath.basename(path)) == key:
                return posixpath.normpath(posixpath.join(posixpath.dirname(source.document.path), path))
    return ""


def _shared_folders(first: str, second: str) -> int:
    """The number of leading directories that two paths share."""
    pairs = zip(first.split("/")[:-1], second.split("/")[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _data(source: Located, name: str) -> Iterator[tuple[str, Site]]:
    for key, node in entries(find(source.node, "data")):
        if isinstance(node, ScalarNode):
            yield str(key.value), Site.whole(source.document, node)
    for generator in items(find(source.node, "configMapGenerator")):
        if value(generator, "name") != name:
            continue
        for literal in items(find(generator, "literals")):
            if isinstance(literal, ScalarNode) and "=" in literal.value:
                variable, _, text = literal.value.partition("=")
                literal_site = Site.whole(source.document, literal)
                yield variable, literal_site.part(text, len(variable) + 1) if text else literal_site


def _config_names(volume: Node) -> Iterator[str]:
    if name := value(volume, "configMap", "name"):
        yield name
    for item in items(find(volume, "projected", "sources")):
        if name := value(item, "configMap", "name"):
            yield name


def _mount_path(volume: Node, mount: Node, key: str) -> str:
    """The path of a ConfigMap's key in the container; "" if it is not mounted."""
    selected_items = items(find(volume, "configMap", "items"))
    file = (
        key
        if not selected_items
        else next((value(item, "path") for item in selected_items if value(item, "key") == key), "")
    )
    mount_path, sub_path = value(mount, "mountPath"), value(mount, "subPath")
    if sub_path:
        return mount_path if sub_path == file else ""
    return posixpath.join(mount_path, file) if file else ""


def _is_in(inner: Document, site: Site) -> bool:
    try:
        root = next(iter(inner.roots), None)
    except InvalidYaml:
        return False
    start, end = site.node.start_mark.index, site.node.end_mark.index
    return root is not None and start <= root.start_mark.index <= end
