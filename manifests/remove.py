"""Remove an endpoint: the exact inverse of `add`."""

import re

from manifests import catalog, groups
from manifests.bundle import Bundle, bundle_of
from manifests.change import Change
from manifests.contract import ModelEndpoint, describe
from manifests.copying import without_kustomization_entries
from manifests.edit import line
from manifests.gateway import Entry, entries_of, references
from manifests.items import is_item, without
from manifests.one_file import is_one_file
from manifests.ownership import foreign_files, is_deployed_apart
from manifests.pieces import Pieces, objects
from manifests.platform import Platform
from manifests.review import Mention, contract_rows, mentions
from manifests.rules.norms import owns_application
from manifests.tree import ChangeSet, ManifestError


def plan_remove(platform: Platform, name: str, *, portal: bool = False) -> Change:
    """The pull request that removes an endpoint; raises ManifestError if the endpoint cannot be removed.

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
        files = {
            **dict.fromkeys(filter(None, (*bundle.files, bundle.flux_file))),
            **without_kustomization_entries(bundle),
        }
    mentions_in_documents = _refuse_needed(platform, pieces, endpoint)
    if endpoint.application_file and owns_application(pieces):
        if len(objects(platform, endpoint.application_file)) > 1:
            raise ManifestError(
                f"{endpoint.application_file} contains more than the Application of {name}, and Argo CD would delete "
                "everything: remove this endpoint by hand."
            )
        files[endpoint.application_file] = None
    files |= _without_entries(pieces)
    files |= catalog.remove_row(platform, endpoint.alias)
    files |= catalog.remove_notes(platform.with_changes(files), endpoint.alias)
    files |= catalog.remove_manual(platform, name)
    if portal:
        files |= catalog.remove_from_portal(platform, endpoint.alias)
    flag, group_warnings = groups.disable_group(platform, endpoint.group, endpoint.application)
    files |= flag
    after = platform.with_changes(files)
    return Change(
        changes=ChangeSet(files=files),
        title=f"feat(serving): remove {name}",
        intent=f"Removes the endpoint {name}, which serves {endpoint.hf_id}, and everything that belongs to it.",
        summary=contract_rows(endpoint),
        warnings=(*_warnings(after, endpoint, mentions_in_documents), *group_warnings),
    )


def _refuse_shared(platform: Platform, pieces: Pieces, bundle: Bundle) -> None:
    """Refuse if the endpoint's files contain objects that do not belong to it, or that other Applications deploy."""
    home = bundle.home
    if pieces.second_engine:
        raise ManifestError(
            f"The pod of {pieces.name} runs another engine, which would be removed, too: remove the endpoint by hand."
        )
    if bundle.listing_lines and platform.read(home) is not None and not is_one_file(pieces):
        document, number, _ = bundle.listing_lines[0]
        raise ManifestError(f"{document.path}:{number + 1} lists {home}: remove it there first.")
    if foreign_objects := foreign_files(platform, pieces, bundle):
        raise ManifestError(
            f"{home} contains more than the endpoint {pieces.name}, so nothing is deleted: {', '.join(foreign_objects)}. "
            "Move these files to another directory, then try again."
        )
    if is_deployed_apart(platform, pieces):
        raise ManifestError(
            f"Argo CD deploys {pieces.name} through another directory, whose kustomization refers to {home}: "
            "remove it by hand."
        )


def _without_entries(pieces: Pieces) -> dict[str, str]:
    """LiteLLM's configuration without the endpoint's entries."""
    files: dict[str, str] = {}
    by_document: dict[tuple[str, tuple[int, int] | None], list[Entry]] = {}
    for entry in pieces.entries:
        by_document.setdefault((entry.document.path, entry.document.window), []).append(entry)
    if len({path for path, _ in by_document}) < len(by_document):
        raise ManifestError(f"{pieces.name} is in several model lists of one file: remove it from them by hand.")
    for document_entries in by_document.values():
        document = document_entries[0].document
        if len(entries_of(document)) == len(document_entries):
            raise ManifestError(
                f"{pieces.name} is LiteLLM's only model: an empty model_list has to be written by hand."
            )
        for entry in document_entries:
            _refuse_spread(entry)
            _refuse_anchors(entry)
        files[document.path] = document.apply(
            [document.delete_lines(entry.first, entry.last) for entry in document_entries]
        ).text
    return files


def _refuse_spread(entry: Entry) -> None:
    """Refuse an entry in `helm.parameters`: the other entries of the list would have to be renumbered."""
    if entry.is_spread:
        raise ManifestError(
            f"The entry {entry.alias} ({entry.document.path}:{entry.first + 1}) is in `helm.parameters`: remove its"
            " parameters and renumber the others by hand, then try again."
        )


def _refuse_anchors(entry: Entry) -> None:
    """Refuse an entry that defines an anchor for other entries, because it cannot be removed alone."""
    other_text = "".join([*entry.document.lines[: entry.first], *entry.document.lines[entry.last + 1 :]])
    for anchor in re.findall(r"(?<=[:-]) &([\w-]+)(?=\s)", entry.text):
        if re.search(rf"\*{re.escape(anchor)}(?![\w-])", other_text):
            raise ManifestError(
                f"The entry {entry.alias} ({entry.document.path}:{entry.first + 1}) defines the anchor &{anchor}, which other "
                "entries use: move the anchor to one of them first."
            )


def _refuse_needed(platform: Platform, pieces: Pieces, endpoint: ModelEndpoint) -> tuple[Mention, ...]:
    """Refuse if LiteLLM or a client uses the endpoint; returns the mentions in documents."""
    lists = platform.model_lists()
    removed_aliases = {entry.alias for entry in pieces.entries}
    remaining_aliases = {
        entry.alias
        for models in lists
        for entry in models.entries
        if all(entry.node is not removed.node for removed in pieces.entries)
    }
    references_to_removed = [
        reference for reference in references(lists) if reference.name in removed_aliases - remaining_aliases
    ]
    if references_to_removed:
        places = ", ".join(
            f"{reference.document.path}:{line(reference.node)} ({reference.setting})"
            for reference in references_to_removed
        )
        raise ManifestError(
            f"LiteLLM's settings name {references_to_removed[0].name}: {places}. Remove it there first."
        )
    named_places = mentions(platform, pieces, endpoint)
    uses = [place for place in named_places if not place.is_prose]
    if uses:
        by_name = {f"{use.kind_of_name} {use.name}": list[str]() for use in uses}
        for use in uses:
            by_name[f"{use.kind_of_name} {use.name}"].append(f"{use.path}:{use.line}")
        names = " and ".join(f"its {name} ({_first_places(places)})" for name, places in by_name.items())
        raise ManifestError(f"Other files name {endpoint.name} by {names}. Remove it there first.")
    return named_places


def _first_places(places: list[str]) -> str:
    rest_of_list = f" and {len(places) - 8} more" if len(places) > 8 else ""
    return ", ".join(places[:8]) + rest_of_list


def _warnings(after: Platform, endpoint: ModelEndpoint, documents: tuple[Mention, ...]) -> tuple[str, ...]:
    layout = after.layout
    claim = f"the volume {endpoint.pvc_name} ({endpoint.pvc_size}) with the weights in it"
    warnings = [f"Argo CD deletes all its objects, including {claim}."] if endpoint.pvc_name else []
    if catalog.in_portal(after, endpoint.alias):
        warnings.append(
            f"{layout.key_portal} still offers {endpoint.alias} for new keys; use portal=yes to remove it there."
        )
    if endpoint.alias:
        warnings.append(f"Virtual keys that list {endpoint.alias} keep this name, but calls with it will fail.")
    # A name that is an ordinary word occurs in many files, so it is not searched for.
    terms = [endpoint.hf_id.rsplit("/", 1)[-1], *([] if endpoint.name.isalpha() else [endpoint.name])]
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(term)}(?![\w-])" for term in terms))
    places = {document.path: f"{document.path}:{document.line}" for document in reversed(documents)}
    for path in after.grep(*terms):
        match = pattern.search(after.read(path) or "")
        if match and path not in places:
            places[path] = f"{path}:{(after.read(path) or '')[: match.start()].count(chr(10)) + 1}"
    places.pop(layout.key_portal, None)
    if places:
        warnings.append(f"These files still name it: {_first_places([places[path] for path in sorted(places)])}.")
    return tuple(warnings)
