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
    """A container's variables, the files that are mounted into it, by path, and the objects that these come from."""

    variables: Mapping[str, Site]
    files: Mapping[str, Document]
    configs: tuple[Located, ...]


def surroundings(tree: Tree, document: Document, pod: Node | None, container: Node) -> Surroundings:
    """Everything that a container's command line may refer to."""
    found: dict[str, Site] = {}
    configs: list[Located] = []

    def keys(name: str) -> dict[str, Site]:
        sources = config_maps(tree, name, document.path)
        configs.extend(each for each in sources if each not in configs)
        return {key: site for source in sources for key, site in _data(source, name)}

    for item in items(find(container, "envFrom")):
        if name := value(item, "configMapRef", "name"):
            prefix = value(item, "prefix")
            found |= {f"{prefix}{key}": site for key, site in keys(name).items()}
    for each in items(find(container, "env")):
        name, key = (
            value(each, "valueFrom", "configMapKeyRef", "name"),
            value(each, "valueFrom", "configMapKeyRef", "key"),
        )
        if name and (site := keys(name).get(key)) is not None:
            found[value(each, "name")] = site
    found |= own_variables(container, document)
    files: dict[str, Document] = {}
    for volume in items(find(pod, "volumes")):
        for name in _config_names(volume):
            for mount in items(find(container, "volumeMounts")):
                if value(mount, "name") != value(volume, "name"):
                    continue
                for key, site in keys(name).items():
                    path = _mounted(volume, mount, key)
                    if path and isinstance(site.node, ScalarNode) and site.node.style == "|":
                        files[path] = next((each for each in site.document.inner if _is_in(each, site)), site.document)
    return Surroundings(found, files, tuple(configs))


def config_maps(tree: Tree, name: str, near: str) -> tuple[Located, ...]:
    """The ConfigMap of this name, or the kustomization that generates it: the closest one to a file.

    Several equally close ones (one for each environment) are all ignored, because it is unknown which of them is used.
    """
    found = [each for each in of_kind(tree, "ConfigMap") if value(each.node, "metadata", "name") == name]
    found += [
        each
        for each in of_kind(tree, "Kustomization")
        if any(value(made, "name") == name for made in items(find(each.node, "configMapGenerator")))
    ]
    if len(found) > 1:
        shared = [_shared_folders(near, each.document.path) for each in found]
        found = [each for each, length in zip(found, shared, strict=True) if length == max(shared)]
    return tuple(found) if len(found) == 1 else ()


def generated_from(source: Located, name: str, key: str) -> str:
    """The file that a kustomization puts under a key of the ConfigMap that it generates; "" if there is none."""
    for made in items(find(source.node, "configMapGenerator")):
        for each in items(find(made, "files")) if value(made, "name") == name else ():
            named, sign, path = value(each).rpartition("=")
            if (named if sign else posixpath.basename(path)) == key:
                return posixpath.normpath(posixpath.join(posixpath.dirname(source.document.path), path))
    return ""


def _shared_folders(one: str, other: str) -> int:
    """Return how many directories two paths have in common from the root on."""
    pairs = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _data(source: Located, name: str) -> Iterator[tuple[str, Site]]:
    for key, node in entries(find(source.node, "data")):
        if isinstance(node, ScalarNode):
            yield str(key.value), Site.whole(source.document, node)
    for made in items(find(source.node, "configMapGenerator")):
        if value(made, "name") != name:
            continue
        for literal in items(find(made, "literals")):
            if isinstance(literal, ScalarNode) and "=" in literal.value:
                variable, _, text = literal.value.partition("=")
                whole = Site.whole(source.document, literal)
                yield variable, whole.part(text, len(variable) + 1) if text else whole


def _config_names(volume: Node) -> Iterator[str]:
    if name := value(volume, "configMap", "name"):
        yield name
    for item in items(find(volume, "projected", "sources")):
        if name := value(item, "configMap", "name"):
            yield name


def _mounted(volume: Node, mount: Node, key: str) -> str:
    """The path of a ConfigMap's key in the container; "" if it is not mounted."""
    chosen = items(find(volume, "configMap", "items"))
    file = key if not chosen else next((value(each, "path") for each in chosen if value(each, "key") == key), "")
    at, sub = value(mount, "mountPath"), value(mount, "subPath")
    if sub:
        return at if sub == file else ""
    return posixpath.join(at, file) if file else ""


def _is_in(inner: Document, site: Site) -> bool:
    try:
        root = next(iter(inner.roots), None)
    except InvalidYaml:
        return False
    start, end = site.node.start_mark.index, site.node.end_mark.index
    return root is not None and start <= root.start_mark.index <= end
