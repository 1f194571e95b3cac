"""The files that exist because of one endpoint, and the lines that list them: `add` copies them, `remove` deletes them."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests.deployers import flux
from manifests.deployers.argocd import source_paths
from manifests.edit import Document, find, items, scalars, value
from manifests.kustomize import FILES
from manifests.objects import mappings, objects, of_kind
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sources.forms import candidates
from manifests.tree import ManifestError, within


@dataclass(frozen=True)
class Bundle:
    """`home` is the directory, or the file, that is copied as a whole; `stems` are the names in it that belong to the endpoint."""

    home: str
    stems: tuple[str, ...]
    files: tuple[str, ...]
    apart: str = ""
    """The file elsewhere with the Kustomization of Flux that deploys it alone."""
    elements: tuple[tuple[Document, MappingNode], ...] = ()
    """The items of ApplicationSets' lists that create its Application."""
    listed: tuple[tuple[Document, int, str], ...] = ()
    """The lines of other kustomizations that refer to it: the document, the line, the path in it."""

    def name(self, old: str, new: str) -> str:
        """Return the name in a copy of an object with this name; "" if the name is not the endpoint's."""
        for stem in self.stems:
            if re.search(rf"(^|-){re.escape(stem)}(-|$)", old):
                return re.sub(rf"(?<![^-]){re.escape(stem)}(?![^-])", new, old, count=1)
        return ""

    def moved(self, path: str, new: str) -> str:
        """Return where a file, or a directory, of the bundle is in a copy."""
        if (path in self.files and path != self.home and not within(path, self.home)) or path == self.apart:
            folder, base = posixpath.split(path)
            return posixpath.join(folder, self.base(base, new))
        folder, base = posixpath.split(self.home)
        return posixpath.join(folder, self.base(base, new)) + path[len(self.home) :]

    def base(self, base: str, new: str) -> str:
        """Return the name in a copy of a file with this name."""
        stem, dot, end = base.partition(".")
        return f"{self.name(stem, new) or new}{dot}{end}"


def bundle_of(platform: Platform, pieces: Pieces) -> Bundle:
    """Return everything that belongs to an endpoint with its own directory or file."""
    home = _home(platform, pieces)
    is_file = platform.read(home) is not None
    named = posixpath.basename(home).partition(".")[0]
    stems = dict.fromkeys(
        (pieces.name, value(pieces.deployment.node, "metadata", "name"), *(() if is_file else (named,)))
    )
    bundle = Bundle(home, tuple(stem for stem in stems if stem), (home,) if is_file else platform.files(home))
    if is_file:
        folder = posixpath.dirname(home)
        beside = [path for path in platform.files(folder) if posixpath.dirname(path) == folder and path != home]
        values = [
            path for path in pieces.candidate.files if bundle.name(posixpath.basename(path).partition(".")[0], "x")
        ]
        more = [path for path in beside if path not in values and _is_companion(platform, bundle, path)]
        bundle = Bundle(home, bundle.stems, tuple(dict.fromkeys((home, *values, *more))))
    own = (
        [reconciler for reconciler in flux.reconcilers(platform) if within(reconciler.paths[0], home)]
        if not is_file
        else []
    )
    others = {each.located.document.path for each in own} - set(bundle.files)
    if len(others) > 1 or any(len(objects(platform, path)) > 1 for path in others):
        raise ManifestError(f"{home} is deployed by several objects, or by one of several in a file: copy it by hand.")
    apart = next(iter(others), "")
    bundle = Bundle(home, bundle.stems, bundle.files, apart, tuple(_elements(platform, bundle)))
    return replace(bundle, listed=tuple(_listed(platform, bundle)))


def is_picked_up(platform: Platform, bundle: Bundle, pieces: Pieces, new: str) -> bool:
    """Return whether a copy is deployed without another file: by the deployer of a directory above it, or by a line in a list."""
    place = bundle.moved(bundle.home, new)
    above = source_paths(pieces.application) if pieces.application else ()
    if any(path != bundle.home and within(bundle.home, path) for path in above) or is_generated(platform, place):
        return True
    if bundle.elements:
        return True
    if any(within(reconciler.paths[0], bundle.home) for reconciler in flux.reconcilers(platform)):
        return True  # its own Kustomization is copied with it
    return bool(bundle.listed) or any(
        each.paths == (".",) or (within(bundle.home, each.paths[0]) and _is_plain(platform, each.paths[0]))
        for each in flux.reconcilers(platform)
    )


def _is_plain(platform: Platform, folder: str) -> bool:
    """Return whether Flux applies everything in a directory, because it contains no kustomization with a list."""
    return all(platform.read(posixpath.join(folder, each)) is None for each in FILES)


def is_generated(platform: Platform, place: str) -> bool:
    """Return whether an ApplicationSet creates an Application for every directory at such a place."""
    for each in of_kind(platform, "ApplicationSet"):
        for generator in mappings(find(each.node, "spec", "generators")):
            found = items(find(generator, "git", "directories")) or items(find(generator, "directories"))
            patterns = [(value(one, "path").removeprefix("./"), value(one, "exclude") == "true") for one in found]
            fitting = [without for path, without in patterns if _fits(place, path)]
            if fitting and not any(fitting):
                return True
    return False


def _fits(place: str, pattern: str) -> bool:
    parts, wanted = place.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _home(platform: Platform, pieces: Pieces) -> str:
    """Its file, or its directory: the highest one that is named after it and contains no other model server."""
    home = pieces.home
    if platform.read(home) is not None or home == platform.layout.home(pieces.name):
        return home
    names = {pieces.name, value(pieces.deployment.node, "metadata", "name")}
    parent = posixpath.dirname(home)
    if posixpath.basename(home) not in names and posixpath.basename(parent) in names:
        serving = [candidate for path in platform.files(parent) for candidate in candidates(platform, path)]
        if len(serving) == 1:
            return parent
    return home


def _elements(platform: Platform, bundle: Bundle) -> Iterator[tuple[Document, MappingNode]]:
    for each in of_kind(platform, "ApplicationSet"):
        lists = (find(one, "elements") for one in mappings(find(each.node, "spec", "generators")))
        for item in (item for one in lists for item in items(one)):
            said = {str(node.value).removeprefix("./").rstrip("/") for node in scalars([item])}
            if isinstance(item, MappingNode) and (bundle.home in said or said & set(bundle.stems)):
                yield each.document, item


def _is_companion(platform: Platform, bundle: Bundle, path: str) -> bool:
    """Return whether a file next to an endpoint's belongs only to it: the file and all its objects have the endpoint's name."""
    if not any(re.match(rf"{re.escape(stem)}[-._]", posixpath.basename(path)) for stem in bundle.stems):
        return False
    found = objects(platform, path)
    named = all(bundle.name(value(each.node, "metadata", "name"), "x") for _, each in found)
    return bool(found) and named and not any(True for _ in candidates(platform, path))


def _listed(platform: Platform, bundle: Bundle) -> list[tuple[Document, int, str]]:
    found = []
    for path in sorted({each for word in (posixpath.basename(bundle.home),) for each in platform.grep(word)}):
        if posixpath.basename(path) not in FILES or path in bundle.files:
            continue
        document = Document(path, platform.read(path) or "")  # kustomize needs no `kind` in it
        for root in document.roots:
            found += [(document, node.start_mark.line, str(node.value)) for node in _leading(path, root, bundle)]
    return found


def _leading(path: str, kustomization: Node, bundle: Bundle) -> list[ScalarNode]:
    folder = posixpath.dirname(path)
    lists = [find(kustomization, key) for key in ("resources", "components", "bases")]
    every = [node for each in lists for node in scalars(items(each))]
    targets = {*bundle.files, bundle.apart, bundle.home} - {""}
    found = []
    for node in every:
        place = posixpath.normpath(posixpath.join(folder, str(node.value)))
        if place in targets or (within(place, bundle.home) and not within(folder, bundle.home)):
            found.append(node)
    return found
