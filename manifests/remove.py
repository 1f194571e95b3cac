"""An endpoint taken out again: the exact inverse of `add`."""

import re

from manifests import catalog, groups
from manifests.change import Change
from manifests.contract import ModelEndpoint, describe
from manifests.edit import find, items
from manifests.pieces import Layout, Pieces, objects, require
from manifests.review import contract_rows, is_prose, named_elsewhere, named_in_values
from manifests.tree import ChangeSet, ManifestError, Overlay, Tree


def plan_remove(tree: Tree, layout: Layout, name: str, *, portal: bool = False) -> Change:
    """The pull request that removes an endpoint; ManifestError says why there can be none.

    `portal` takes the alias out of the key portal's list as well.
    """
    pieces = require(tree, layout, name)
    endpoint = describe(pieces, layout)
    _refuse_needed(tree, layout, pieces, endpoint)
    files: dict[str, str | None] = dict.fromkeys(pieces.files)
    if endpoint.application_file:
        if len(objects(tree, endpoint.application_file)) > 1:
            raise ManifestError(
                f"{endpoint.application_file} holds more than the Application of {name}, and Argo CD would delete all of "
                "it: take this one out by hand."
            )
        files[endpoint.application_file] = None
    if pieces.entry is not None:
        document = pieces.entry.document
        if len(items(find(document.roots[0], "proxy_config", "model_list"))) == 1:
            raise ManifestError(f"{name} is LiteLLM's only model: an empty model_list has to be written by hand.")
        files[document.path] = document.apply([document.delete_lines(pieces.entry.first, pieces.entry.last)]).text
    files |= catalog.remove_row(tree, layout, endpoint.alias)
    files |= catalog.remove_notes(Overlay(tree, ChangeSet(files=files)), layout, endpoint.alias)
    files |= catalog.remove_manual(tree, layout, name)
    if portal:
        files |= catalog.remove_from_portal(tree, layout, endpoint.alias)
    flag, told = groups.switched_off(tree, layout, endpoint.group, endpoint.application)
    files |= flag
    after = Overlay(tree, ChangeSet(files=files))
    return Change(
        changes=ChangeSet(files=files),
        title=f"feat(serving): remove {name}",
        intent=f"Removes the endpoint {name}, which serves {endpoint.hf_id}, with all that belongs to it.",
        summary=contract_rows(endpoint),
        warnings=(*_warnings(after, layout, endpoint), *told),
    )


def _refuse_needed(tree: Tree, layout: Layout, pieces: Pieces, endpoint: ModelEndpoint) -> None:
    """What sends requests to the endpoint would fail the moment it is gone."""
    served = [path for path in named_elsewhere(tree, layout, pieces, endpoint) if not is_prose(path)]
    host = f"{endpoint.name}.{layout.namespace}"
    called = [path for path in named_in_values(tree, layout, pieces, host) if path not in served]
    if served or called:
        names = " and ".join(
            [
                *([f"its served name {endpoint.served_name} ({', '.join(served)})"] if served else []),
                *([f"its address {host} ({', '.join(called)})"] if called else []),
            ]
        )
        raise ManifestError(f"Other files name {endpoint.name} by {names}. Take it out of them first.")


def _warnings(after: Tree, layout: Layout, endpoint: ModelEndpoint) -> tuple[str, ...]:
    claim = f"the volume {endpoint.pvc_name} ({endpoint.pvc_size}) goes too, with the weights in it"
    found = [f"Argo CD deletes what it made: {claim}."] if endpoint.pvc_name else []
    if catalog.in_portal(after, layout, endpoint.alias):
        found.append(f"{layout.key_portal} still offers {endpoint.alias} for new keys; portal=yes takes it out.")
    found.append(f"Virtual keys that list {endpoint.alias} keep a name that nothing answers to.")
    # A name that is an ordinary word is in every file; the model's own name is not.
    terms = [endpoint.hf_id.rsplit("/", 1)[-1], *([] if endpoint.name.isalpha() else [endpoint.name])]
    whole = re.compile("|".join(rf"(?<![\w.-]){re.escape(each)}(?![\w-])" for each in terms))
    named = [path for term in terms for path in after.grep(term) if whole.search(after.read(path) or "")]
    if named := sorted({*named} - {layout.key_portal}):
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        found.append(f"These files still name it: {', '.join(named[:8])}{more}.")
    return tuple(found)
