"""Remove an endpoint: the exact inverse of `add`."""

import re

from manifests import catalog, groups
from manifests.bundle import Bundle, bundle_of
from manifests.change import Change
from manifests.contract import ModelEndpoint, describe
from manifests.copying import unlisted
from manifests.edit import line
from manifests.gateway import Entry, entries_of, references
from manifests.items import is_item, without
from manifests.one_file import is_one_file
from manifests.ownership import foreign, is_deployed_apart
from manifests.pieces import Pieces, objects
from manifests.platform import Platform
from manifests.review import Mention, contract_rows, mentions
from manifests.rules.norms import owns_application
from manifests.tree import ChangeSet, ManifestError


def plan_remove(platform: Platform, name: str, *, portal: bool = False) -> Change:
    """The pull request that removes an endpoint; raises ManifestError if it is not possible.

    `portal` also removes the alias from the key portal's list.
    """
    pieces = platform.require(name)
    endpoint = describe(pieces, platform.layout)
    if is_item(pieces):
        document = pieces.deployment.document
        files: dict[str, str | None] = {document.path: without(document, pieces.candidate.subject).text}
    else:
        bundle = bundle_of(platform, pieces)
        _refuse_shared(platform, pieces, bundle)
        files = {**dict.fromkeys(filter(None, (*bundle.files, bundle.apart))), **unlisted(bundle)}
    said = _refuse_needed(platform, pieces, endpoint)
    if endpoint.application_file and owns_application(pieces):
        if len(objects(platform, endpoint.application_file)) > 1:
            raise ManifestError(
                f"{endpoint.application_file} holds more than the Application of {name}, and Argo CD would delete "
                "everything: remove this endpoint by hand."
            )
        files[endpoint.application_file] = None
    files |= _without_entries(pieces)
    files |= catalog.remove_row(platform, endpoint.alias)
    files |= catalog.remove_notes(platform.with_changes(files), endpoint.alias)
    files |= catalog.remove_manual(platform, name)
    if portal:
        files |= catalog.remove_from_portal(platform, endpoint.alias)
    flag, told = groups.switched_off(platform, endpoint.group, endpoint.application)
    files |= flag
    after = platform.with_changes(files)
    return Change(
        changes=ChangeSet(files=files),
        title=f"feat(serving): remove {name}",
        intent=f"Removes the endpoint {name}, which serves {endpoint.hf_id}, with all that belongs to it.",
        summary=contract_rows(endpoint),
        warnings=(*_warnings(after, endpoint, said), *told),
    )


def _refuse_shared(platform: Platform, pieces: Pieces, bundle: Bundle) -> None:
    """Objects that the endpoint does not own, or that other Applications deploy, are not deleted with it."""
    home = bundle.home
    if pieces.second_engine:
        raise ManifestError(
            f"The pod of {pieces.name} runs another engine, which would be removed, too: remove the endpoint by hand."
        )
    if bundle.listed and platform.read(home) is not None and not is_one_file(pieces):
        document, number, _ = bundle.listed[0]
        raise ManifestError(f"{document.path}:{number + 1} lists {home}: remove it there first.")
    if others := foreign(platform, pieces, bundle):
        raise ManifestError(
            f"{home} holds more than the endpoint {pieces.name}, so nothing is deleted: {', '.join(others)}. "
            "Move these files to another directory, then try again."
        )
    if is_deployed_apart(platform, pieces):
        raise ManifestError(
            f"Argo CD deploys {pieces.name} through another directory, whose kustomization leads to {home}: "
            "remove it by hand."
        )


def _without_entries(pieces: Pieces) -> dict[str, str]:
    """LiteLLM's configuration without the endpoint's entries."""
    files: dict[str, str] = {}
    by_document: dict[tuple[str, tuple[int, int] | None], list[Entry]] = {}
    for each in pieces.entries:
        by_document.setdefault((each.document.path, each.document.window), []).append(each)
    if len({path for path, _ in by_document}) < len(by_document):
        raise ManifestError(f"{pieces.name} is in several model lists of one file: remove it from them by hand.")
    for found in by_document.values():
        document = found[0].document
        if len(entries_of(document)) == len(found):
            raise ManifestError(
                f"{pieces.name} is LiteLLM's only model: an empty model_list has to be written by hand."
            )
        for each in found:
            _refuse_spread(each)
            _refuse_anchors(each)
        files[document.path] = document.apply([document.delete_lines(each.first, each.last) for each in found]).text
    return files


def _refuse_spread(entry: Entry) -> None:
    """The other entries of the list would have to be numbered again."""
    if entry.is_spread:
        raise ManifestError(
            f"The entry {entry.alias} ({entry.document.path}:{entry.first + 1}) is in `helm.parameters`: remove its"
            " parameters and renumber the others by hand, then try again."
        )


def _refuse_anchors(entry: Entry) -> None:
    """An entry that defines an anchor for other entries cannot be removed alone."""
    rest = "".join([*entry.document.lines[: entry.first], *entry.document.lines[entry.last + 1 :]])
    for anchor in re.findall(r"(?<=[:-]) &([\w-]+)(?=\s)", entry.text):
        if re.search(rf"\*{re.escape(anchor)}(?![\w-])", rest):
            raise ManifestError(
                f"The entry {entry.alias} ({entry.document.path}:{entry.first + 1}) defines the anchor &{anchor}, which other "
                "entries use: move the anchor to one of them first."
            )


def _refuse_needed(platform: Platform, pieces: Pieces, endpoint: ModelEndpoint) -> tuple[Mention, ...]:
    """Refuse if something that runs sends requests to the endpoint; returns the mentions in documents."""
    lists = platform.model_lists()
    gone = {each.alias for each in pieces.entries}
    left = {
        each.alias
        for found in lists
        for each in found.entries
        if all(each.node is not own.node for own in pieces.entries)
    }
    named = [each for each in references(lists) if each.name in gone - left]
    if named:
        where = ", ".join(f"{each.document.path}:{line(each.node)} ({each.setting})" for each in named)
        raise ManifestError(f"LiteLLM's settings name {named[0].name}: {where}. Remove it there first.")
    found = mentions(platform, pieces, endpoint)
    live = [each for each in found if not each.is_prose]
    if live:
        by_name = {f"{each.what} {each.name}": list[str]() for each in live}
        for each in live:
            by_name[f"{each.what} {each.name}"].append(f"{each.path}:{each.line}")
        names = " and ".join(f"its {name} ({_shortened(places)})" for name, places in by_name.items())
        raise ManifestError(f"Other files name {endpoint.name} by {names}. Remove it there first.")
    return found


def _shortened(places: list[str]) -> str:
    more = f" and {len(places) - 8} more" if len(places) > 8 else ""
    return ", ".join(places[:8]) + more


def _warnings(after: Platform, endpoint: ModelEndpoint, said: tuple[Mention, ...]) -> tuple[str, ...]:
    layout = after.layout
    claim = f"the volume {endpoint.pvc_name} ({endpoint.pvc_size}) goes too, with the weights in it"
    found = [f"Argo CD deletes what it made: {claim}."] if endpoint.pvc_name else []
    if catalog.in_portal(after, endpoint.alias):
        found.append(f"{layout.key_portal} still offers {endpoint.alias} for new keys; portal=yes takes it out.")
    if endpoint.alias:
        found.append(f"Virtual keys that list {endpoint.alias} keep a name that nothing answers to.")
    # An ordinary word as a name occurs in every file; the model's own name does not.
    terms = [endpoint.hf_id.rsplit("/", 1)[-1], *([] if endpoint.name.isalpha() else [endpoint.name])]
    whole = re.compile("|".join(rf"(?<![\w.-]){re.escape(each)}(?![\w-])" for each in terms))
    places = {each.path: f"{each.path}:{each.line}" for each in reversed(said)}
    for path in after.grep(*terms):
        match = whole.search(after.read(path) or "")
        if match and path not in places:
            places[path] = f"{path}:{(after.read(path) or '')[: match.start()].count(chr(10)) + 1}"
    places.pop(layout.key_portal, None)
    if places:
        found.append(f"These files still name it: {_shortened([places[path] for path in sorted(places)])}.")
    return tuple(found)
