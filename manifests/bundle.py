"""The files that exist because of one endpoint, and the lines that list them. `add` copies them, `remove` deletes them."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests.deployers import flux
from manifests.deployers.argocd import source_paths
from manifests.edit import Document, find, items, scalars, value
from manifests.frozen import frozen
from manifests.kustomize import FILES
from manifests.objects import mappings, objects, of_kind
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sources.forms import candidates
from manifests.tree import ManifestError, within


@frozen
class Bundle:
    """The files and names of an endpoint.

    `home` is the directory, or the file, that is copied as a whole. `stems` are the names in it that belong to the endpoint.
    """

    home: str
    stems: tuple[str, ...]
    files: tuple[str, ...]
    flux_file: str = ""
    """The file outside `home` with the Flux Kustomization that deploys only this endpoint."""
    elements: tuple[tuple[Document, MappingNode], ...] = ()
    """The items in the lists of ApplicationSets that create the endpoint's Application."""
    listing_lines: tuple[tuple[Document, int, str], ...] = ()
    """The entries of other kustomizations that refer to the bundle: the document, the line (from 0), and the path in that line."""

    def name(self, old: str, new: str) -> str:
        """The name of an object's copy; "" if the name does not belong to the endpoint."""
        for stem in self.stems:
            if re.search(rf"(^|-){re.escape(stem)}(-|$)", old):
                return re.sub(rf"(?<![^-]){re.escape(stem)}(?![^-])", new, old, count=1)
        return ""

    def copied_path(self, path: str, new: str) -> str:
        """The path of the copy of a file or directory."""
        if (path in self.files and path != self.home and not within(path, self.home)) or path == self.flux_file:
            folder, base = posixpath.split(path)
            return posixpath.join(folder, self.base(base, new))
        folder, base = posixpath.split(self.home)
        return posixpath.join(folder, self.base(base, new)) + path[len(self.home) :]

    def base(self, base: str, new: str) -> str:
        """The name of the copy of a file, without its directory."""
        stem, dot, end = base.partition(".")
        return f"{self.name(stem, new) or new}{dot}{end}"


def bundle_of(platform: Platform, pieces: Pieces) -> Bundle:
    """The bundle of an endpoint that has its own directory or file."""
    home = _bundle_home(platform, pieces)
    is_file = platform.read(home) is not None
    folder_name = posixpath.basename(home).partition(".")[0]
    stems = dict.fromkeys(
        (pieces.name, value(pieces.deployment.node, "metadata", "name"), *(() if is_file else (folder_name,)))
    )
    bundle = Bundle(home, tuple(stem for stem in stems if stem), (home,) if is_file else platform.files(home))
    if is_file:
        folder = posixpath.dirname(home)
        neighbours = [path for path in platform.files(folder) if posixpath.dirname(path) == folder and path != home]
        values = [
            path for path in pieces.candidate.files if bundle.name(posixpath.basename(path).partition(".")[0], "x")
        ]
        companions = [path for path in neighbours if path not in values and _is_companion(platform, bundle, path)]
        bundle = Bundle(home, bundle.stems, tuple(dict.fromkeys((home, *values, *companions))))
    own_reconcilers = (
        [reconciler for reconciler in flux.reconcilers(platform) if within(reconciler.paths[0], home)]
        if not is_file
        else []
    )
    other_files = {reconciler.located.document.path for reconciler in own_reconcilers} - set(bundle.files)
    if len(other_files) > 1 or any(len(objects(platform, path)) > 1 for path in other_files):
        raise ManifestError(
            f"{home} is deployed by several objects, or by an object whose file contains others: copy it by hand."
        )
    flux_file = next(iter(other_files), "")
    bundle = Bundle(home, bundle.stems, bundle.files, flux_file, tuple(_generator_items(platform, bundle)))
    return replace(bundle, listing_lines=tuple(_kustomization_lines(platform, bundle)))


def is_picked_up(platform: Platform, bundle: Bundle, pieces: Pieces, new: str) -> bool:
    """Return whether a copy needs no new deployer, because a directory above it is deployed or a list gets a line for it."""
    copy_path = bundle.copied_path(bundle.home, new)
    deployed_paths = source_paths(pieces.application) if pieces.application else ()
    if any(path != bundle.home and within(bundle.home, path) for path in deployed_paths) or is_generated(
        platform, copy_path
    ):
        return True
    if bundle.elements:
        return True
    if any(within(reconciler.paths[0], bundle.home) for reconciler in flux.reconcilers(platform)):
        return True  # the endpoint's own Kustomization is also copied
    return bool(bundle.listing_lines) or any(
        reconciler.paths == (".",)
        or (within(bundle.home, reconciler.paths[0]) and _is_plain(platform, reconciler.paths[0]))
        for reconciler in flux.reconcilers(platform)
    )


def _is_plain(platform: Platform, folder: str) -> bool:
    """Return whether Flux applies everything in a directory, because it has no kustomization."""
    return all(platform.read(posixpath.join(folder, file_name)) is None for file_name in FILES)


def is_generated(platform: Platform, place: str) -> bool:
    """Return whether an ApplicationSet creates an Application for the directory `place`."""
    for application_set in of_kind(platform, "ApplicationSet"):
        for generator in mappings(find(application_set.node, "spec", "generators")):
            directories = items(find(generator, "git", "directories")) or items(find(generator, "directories"))
            patterns = [
                (value(directory, "path").removeprefix("./"), value(directory, "exclude") == "true")
                for directory in directories
            ]
            exclusions = [exclude for path, exclude in patterns if _matches(place, path)]
            if exclusions and not any(exclusions):
                return True
    return False


def _matches(place: str, pattern: str) -> bool:
    parts, pattern_parts = place.split("/"), pattern.split("/")
    return len(parts) == len(pattern_parts) and all(map(fnmatchcase, parts, pattern_parts))


def _bundle_home(platform: Platform, pieces: Pieces) -> str:
    """The endpoint's file, or the topmost directory that has its name and contains no other model server."""
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


def _generator_items(platform: Platform, bundle: Bundle) -> Iterator[tuple[Document, MappingNode]]:
    for application_set in of_kind(platform, "ApplicationSet"):
        lists = (
            find(generator, "elements") for generator in mappings(find(application_set.node, "spec", "generators"))
        )
        for item in (item for item_list in lists for item in items(item_list)):
            texts = {str(node.value).removeprefix("./").rstrip("/") for node in scalars([item])}
            if isinstance(item, MappingNode) and (bundle.home in texts or texts & set(bundle.stems)):
                yield application_set.document, item


def _is_companion(platform: Platform, bundle: Bundle, path: str) -> bool:
    """Return whether a file next to the endpoint's files, and all objects in it, have the endpoint's name."""
    if not any(re.match(rf"{re.escape(stem)}[-._]", posixpath.basename(path)) for stem in bundle.stems):
        return False
    declared = objects(platform, path)
    has_own_names = all(bundle.name(value(located.node, "metadata", "name"), "x") for _, located in declared)
    return bool(declared) and has_own_names and not any(True for _ in candidates(platform, path))


def _kustomization_lines(platform: Platform, bundle: Bundle) -> list[tuple[Document, int, str]]:
    lines = []
    for path in sorted({match for word in (posixpath.basename(bundle.home),) for match in platform.grep(word)}):
        if posixpath.basename(path) not in FILES or path in bundle.files:
            continue
        document = Document(path, platform.read(path) or "")  # a kustomization needs no `kind`
        for root in document.roots:
            lines += [(document, node.start_mark.line, str(node.value)) for node in _references_to(path, root, bundle)]
    return lines


def _references_to(path: str, kustomization: Node, bundle: Bundle) -> list[ScalarNode]:
    folder = posixpath.dirname(path)
    lists = [find(kustomization, key) for key in ("resources", "components", "bases")]
    references = [node for entry_list in lists for node in scalars(items(entry_list))]
    targets = {*bundle.files, bundle.flux_file, bundle.home} - {""}
    leading = []
    for node in references:
        place = posixpath.normpath(posixpath.join(folder, str(node.value)))
        if place in targets or (within(place, bundle.home) and not within(folder, bundle.home)):
            leading.append(node)
    return leading
