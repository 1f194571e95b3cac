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
"""A file that declares an endpoint contains one of these texts, or one of its engine's."""


class Place(NamedTuple):
    """A possible endpoint: its name, its files, and the servers in them."""

    name: str
    home: str
    files: tuple[str, ...]
    found: tuple[Candidate, ...]


@remembered
def names(platform: Snapshot) -> tuple[str, ...]:
    """The possible names of endpoints: the directories below the serving directory, and all other model servers."""
    layout = platform.layout
    depth = layout.serving_dir.count("/") + 1
    folders = {path.split("/")[depth] for path in platform.files(layout.serving_dir) if path.count("/") > depth}
    places = _places(platform)
    split = {
        place.home.split("/")[depth] for place in places if place.home.count("/") > depth and place.name not in folders
    }
    return tuple(sorted((folders - split) | {place.name for place in places}))


@remembered
def place_of(platform: Snapshot, name: str) -> Place | None:
    """The possible places of the endpoint `name`. If it has a directory below the serving directory, only that one is read."""
    layout = platform.layout
    if name in layout.endpoints:
        return _mapped(platform, name, layout.endpoints[name])
    home = layout.home(name)
    files = platform.files(home) if platform.read(home) is None else ()
    if files:
        found = _serving(candidate for path in files for candidate in candidates(platform, path))
        if len(found) <= 1 or _is_one_model(found):
            return Place(name, home, files, found)
    return next((place for place in _places(platform) if place.name == name), None)


@remembered
def _places(platform: Snapshot) -> tuple[Place, ...]:
    """Every server, or possible server: below the serving directory, or anywhere if that is not set and does not exist."""
    layout = platform.layout
    mapped = [_mapped(platform, name, fields) for name, fields in layout.endpoints.items()]
    is_configured = "serving_dir" in layout.model_fields_set
    scope = layout.serving_dir if is_configured or platform.files(layout.serving_dir) else ""
    found = _found_below(platform, scope)
    if scope and not is_configured and not found:
        found = _found_below(platform, "")
    own, sites = {place.name for place in mapped}, {_site(place) for place in mapped}
    others = [place for place in found if place.name not in own and (_site(place) is None or _site(place) not in sites)]
    return (*mapped, *_distinctly_named(layout, others))


def _site(place: Place) -> tuple[str, int] | None:
    """The file and line of a place's model."""
    model = place.found[0].command.model if place.found else None
    return (model.site.path, model.site.line) if model is not None and model.site is not None else None


def _mapped(tree: Tree, name: str, fields: field_map.FieldMap) -> Place:
    server = field_map.candidate(tree, name, fields)
    path = server.workload.document.path
    return Place(name, path, (path,), (server,))


def _found_below(platform: Snapshot, scope: str) -> list[Place]:
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
    for folder, inside in sorted(folders.items()):
        servers = _serving(candidate for _, candidate in inside)
        dedicated = bool(scope) or (_is_dedicated(platform, folder) and not _is_last_of_several(platform, inside))
        if (len(servers) == 1 or _is_one_model(servers)) and dedicated and folder and platform.read(folder) is None:
            name = posixpath.basename(folder) if scope else _name(folder, servers[0])
            places.append(Place(name, folder, platform.files(folder), servers))
            continue
        places += [Place(each.name, path, (path,), (each,)) for path, each in inside if each in servers]
    return places


def _serving(found: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The servers; one of an unknown kind counts only if there is no other."""
    every = tuple(found)
    own = ("InferenceService", "HelmRelease", "Application")  # each is independent, never a sidecar
    engines_and_releases = (
        each for each in every if each.command.engine is not None or each.command.flags or each.kind in own
    )
    return tuple(engines_and_releases) or every


def _is_one_model(found: tuple[Candidate, ...]) -> bool:
    """Return whether several workloads serve one model together."""
    models = [each.command.model for each in found]
    return len(found) > 1 and len({model.value for model in models if model is not None}) == 1 and None not in models


def _is_dedicated(tree: Tree, folder: str) -> bool:
    """Return whether a directory contains one workload and only objects that belong to it."""
    serving = kinds() - {"Application"}  # which deploys the files next to it
    return sum(kind in serving for path in tree.files(folder) for kind, _ in objects(tree, path)) == 1


def _is_last_of_several(tree: Tree, inside: list[tuple[str, Candidate]]) -> bool:
    """Return whether a directory is one of files that are named after endpoints, of which only one is left."""
    path, candidate = inside[0]
    folder, _, base = path.rpartition("/")
    others = {file for file in tree.files(folder) if file != path and posixpath.basename(file) not in FILES}
    is_named = base.rpartition(".")[0] == candidate.name != posixpath.basename(folder)
    return len(inside) == 1 and is_named and not others


def _name(folder: str, candidate: Candidate) -> str:
    """The directory's name if the workload is named after it, otherwise the workload's name."""
    base = posixpath.basename(folder)
    return base if re.match(rf"{re.escape(base)}(-|$)", candidate.name) else candidate.name


def _distinctly_named(layout: Layout, places: list[Place]) -> list[Place]:
    """The places under different names; if several environments have one, that of the configured environment."""
    result = []
    for place in places:
        same = [each for each in places if each.name == place.name]
        own = [each for each in same if layout.environment in each.home.split("/")]
        if len(same) > 1 and own and place not in own:
            continue
        if len(own or same) > 1:
            folder = place.home if place.files != (place.home,) else posixpath.dirname(place.home)
            place = place._replace(name=f"{posixpath.basename(posixpath.dirname(folder)) or 'root'}-{place.name}")
        result.append(place)
    return result


def _yaml_files(tree: Tree, scope: str) -> list[str]:
    words = {*_GENERAL, *(word for engine in engines() for word in engine.words)}
    signs = set(tree.grep(*sorted(words)))
    releases = set(tree.grep("kind: Application", "kind: HelmRelease"))
    signs |= {path for path in releases - signs if _installs(tree, path, signs)}
    kept = (path for path in signs if path.endswith(YAML) and within(path, scope))
    return sorted(path for path in kept if not _is_template(tree, path))


def _installs(tree: Tree, path: str, signs: set[str]) -> bool:
    """Return whether a file installs a chart of the repository in which an engine is named, or has its values elsewhere."""
    if "valuesFrom:" in (tree.read(path) or ""):
        return True
    named = re.findall(r"(?m)^\s*(?:- )?(?:path|chart):\s*[\"']?(?:\./)?([\w./-]+)", tree.read(path) or "")
    folders = {posixpath.normpath(each) for each in named}
    return any(is_chart(tree, folder) and any(within(sign, folder) for sign in signs) for folder in folders)


def _is_template(tree: Tree, path: str) -> bool:
    chart, sign, _ = path.rpartition("/templates/")
    return bool(sign) and tree.read(f"{chart}/Chart.yaml") is not None
