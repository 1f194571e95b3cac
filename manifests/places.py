"""Find the places of endpoints: directories, files and field maps with a model server."""

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from manifests.engines import engines
from manifests.kustomize import FILES
from manifests.layout import Layout
from manifests.memory import remembered
from manifests.objects import YAML, objects
from manifests.snapshot import Snapshot
from manifests.sources import field_map
from manifests.sources.candidate import Candidate
from manifests.sources.charts import is_chart
from manifests.sources.forms import candidates, kinds
from manifests.tree import Tree, within

_GENERAL = ("--model", "MODEL", "InferenceService", "kubeai.org/")
"""A file that declares an endpoint contains one of these texts, or a text of its engine."""


class Place(NamedTuple):
    """A possible endpoint: its name, its files, and the servers in them."""

    name: str
    home: str
    files: tuple[str, ...]
    servers: tuple[Candidate, ...]


@remembered
def names(platform: Snapshot) -> tuple[str, ...]:
    """The names of possible endpoints: the directories below the serving directory, and all other model servers."""
    layout = platform.layout
    depth = layout.serving_dir.count("/") + 1
    folders = {path.split("/")[depth] for path in platform.files(layout.serving_dir) if path.count("/") > depth}
    places = _places(platform)
    split_folders = {
        place.home.split("/")[depth] for place in places if place.home.count("/") > depth and place.name not in folders
    }
    return tuple(sorted((folders - split_folders) | {place.name for place in places}))


@remembered
def place_of(platform: Snapshot, name: str) -> Place | None:
    """The place of the endpoint `name`, or None. If the name has a directory below the serving directory, that directory is read first."""
    layout = platform.layout
    if name in layout.endpoints:
        return _place_of_map(platform, name, layout.endpoints[name])
    home = layout.home(name)
    files = platform.files(home) if platform.read(home) is None else ()
    if files:
        servers = _without_sidecars(candidate for path in files for candidate in candidates(platform, path))
        if len(servers) <= 1 or _is_one_model(servers):
            return Place(name, home, files, servers)
    return next((place for place in _places(platform) if place.name == name), None)


@remembered
def _places(platform: Snapshot) -> tuple[Place, ...]:
    """Every possible server, below the serving directory, or anywhere if no serving directory is set or exists."""
    layout = platform.layout
    mapped = [_place_of_map(platform, name, fields) for name, fields in layout.endpoints.items()]
    is_configured = "serving_dir" in layout.model_fields_set
    scope = layout.serving_dir if is_configured or platform.files(layout.serving_dir) else ""
    places = _places_below(platform, scope)
    if scope and not is_configured and not places:
        places = _places_below(platform, "")
    mapped_names, sites = {place.name for place in mapped}, {_site(place) for place in mapped}
    unmapped = [
        place
        for place in places
        if place.name not in mapped_names and (_site(place) is None or _site(place) not in sites)
    ]
    return (*mapped, *_distinctly_named(layout, unmapped))


def _site(place: Place) -> tuple[str, int] | None:
    """The file and line of a place's model."""
    model = place.servers[0].command.model if place.servers else None
    return (model.site.path, model.site.line) if model is not None and model.site is not None else None


def _place_of_map(tree: Tree, name: str, fields: field_map.FieldMap) -> Place:
    server = field_map.candidate(tree, name, fields)
    path = server.workload.document.path
    return Place(name, path, (path,), (server,))


def _places_below(platform: Snapshot, scope: str) -> list[Place]:
    folders: dict[str, list[tuple[str, Candidate]]] = {}
    for path in _yaml_files(platform, scope):
        if scope:
            first = path[len(scope) + 1 :].partition("/")
            folder = f"{scope}/{first[0]}" if first[1] else path
        else:
            folder = posixpath.dirname(path)
        for candidate in candidates(platform, path):
            folders.setdefault(folder, []).append((path, candidate))
    places = []
    for folder, found_in_folder in sorted(folders.items()):
        servers = _without_sidecars(candidate for _, candidate in found_in_folder)
        dedicated = bool(scope) or (
            _is_dedicated(platform, folder) and not _is_last_of_several(platform, found_in_folder)
        )
        if (len(servers) == 1 or _is_one_model(servers)) and dedicated and folder and platform.read(folder) is None:
            name = posixpath.basename(folder) if scope else _place_name(folder, servers[0])
            places.append(Place(name, folder, platform.files(folder), servers))
            continue
        places += [
            Place(candidate.name, path, (path,), (candidate,))
            for path, candidate in found_in_folder
            if candidate in servers
        ]
    return places


def _without_sidecars(servers: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The servers without sidecars. A server of an unknown kind counts only if there is no other server."""
    all_candidates = tuple(servers)
    independent_kinds = ("InferenceService", "HelmRelease", "Application")  # these are never sidecars
    engines_and_releases = (
        candidate
        for candidate in all_candidates
        if candidate.command.engine is not None or candidate.command.flags or candidate.kind in independent_kinds
    )
    return tuple(engines_and_releases) or all_candidates


def _is_one_model(servers: tuple[Candidate, ...]) -> bool:
    """Return whether several workloads serve one model together."""
    models = [server.command.model for server in servers]
    return len(servers) > 1 and len({model.value for model in models if model is not None}) == 1 and None not in models


def _is_dedicated(tree: Tree, folder: str) -> bool:
    """Return whether a directory contains one workload and only objects that belong to it."""
    serving = kinds() - {"Application"}  # an Application deploys the files next to it
    return sum(kind in serving for path in tree.files(folder) for kind, _ in objects(tree, path)) == 1


def _is_last_of_several(tree: Tree, found_in_folder: list[tuple[str, Candidate]]) -> bool:
    """Return whether a directory contains only one file, named after its endpoint: other endpoints' files may have been deleted."""
    path, candidate = found_in_folder[0]
    folder, _, base = path.rpartition("/")
    other_files = {file for file in tree.files(folder) if file != path and posixpath.basename(file) not in FILES}
    is_named = base.rpartition(".")[0] == candidate.name != posixpath.basename(folder)
    return len(found_in_folder) == 1 and is_named and not other_files


def _place_name(folder: str, candidate: Candidate) -> str:
    """The directory's name if the workload is named after it, otherwise the workload's name."""
    base = posixpath.basename(folder)
    return base if re.match(rf"{re.escape(base)}(-|$)", candidate.name) else candidate.name


def _distinctly_named(layout: Layout, places: list[Place]) -> list[Place]:
    """The places with distinct names. If several environments have the same place, only the configured environment's place is used."""
    result = []
    for place in places:
        same_name = [other for other in places if other.name == place.name]
        of_environment = [other for other in same_name if layout.environment in other.home.split("/")]
        if len(same_name) > 1 and of_environment and place not in of_environment:
            continue
        if len(of_environment or same_name) > 1:
            folder = place.home if place.files != (place.home,) else posixpath.dirname(place.home)
            place = place._replace(name=f"{posixpath.basename(posixpath.dirname(folder)) or 'root'}-{place.name}")
        result.append(place)
    return result


def _yaml_files(tree: Tree, scope: str) -> list[str]:
    words = {*_GENERAL, *(word for engine in engines() for word in engine.words)}
    matching_paths = set(tree.grep(*sorted(words)))
    releases = set(tree.grep("kind: Application", "kind: HelmRelease"))
    matching_paths |= {path for path in releases - matching_paths if _installs_engine(tree, path, matching_paths)}
    paths = (path for path in matching_paths if path.endswith(YAML) and within(path, scope))
    return sorted(path for path in paths if not _is_template(tree, path))


def _installs_engine(tree: Tree, path: str, matching_paths: set[str]) -> bool:
    """Return whether a file installs a chart of the repository that names an engine, or reads its values from other objects."""
    if "valuesFrom:" in (tree.read(path) or ""):
        return True
    chart_paths = re.findall(r"(?m)^\s*(?:- )?(?:path|chart):\s*[\"']?(?:\./)?([\w./-]+)", tree.read(path) or "")
    folders = {posixpath.normpath(chart_path) for chart_path in chart_paths}
    return any(
        is_chart(tree, folder) and any(within(matching_path, folder) for matching_path in matching_paths)
        for folder in folders
    )


def _is_template(tree: Tree, path: str) -> bool:
    chart, sign, _ = path.rpartition("/templates/")
    return bool(sign) and tree.read(f"{chart}/Chart.yaml") is not None
