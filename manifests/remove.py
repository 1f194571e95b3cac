"""An endpoint taken out again: the exact inverse of `add`."""

from manifests import catalog
from manifests.change import Change
from manifests.contract import describe
from manifests.edit import find, items
from manifests.pieces import Layout, require
from manifests.review import contract_rows, is_prose, named_elsewhere
from manifests.tree import ChangeSet, ManifestError, Tree


def plan_remove(tree: Tree, layout: Layout, name: str) -> Change:
    """The pull request that removes an endpoint; ManifestError says why there can be none."""
    pieces = require(tree, layout, name)
    endpoint = describe(pieces, layout)
    named = named_elsewhere(tree, layout, pieces, endpoint)
    blocking = [path for path in named if not is_prose(path)]
    if blocking:
        raise ManifestError(
            f"Other files name {name} by its served name {endpoint.served_name}: {', '.join(blocking)}. "
            "Take it out of them first."
        )
    files: dict[str, str | None] = dict.fromkeys(pieces.files)
    if endpoint.application_file:
        files[endpoint.application_file] = None
    if pieces.entry is not None:
        document = pieces.entry.document
        if len(items(find(document.roots[0], "proxy_config", "model_list"))) == 1:
            raise ManifestError(f"{name} is LiteLLM's only model: an empty model_list has to be written by hand.")
        files[document.path] = document.apply([document.delete_lines(pieces.entry.first, pieces.entry.last)]).text
    files |= catalog.remove_row(tree, layout, endpoint.alias)
    files |= catalog.remove_manual(tree, layout, name)
    return Change(
        changes=ChangeSet(files=files),
        title=f"feat(serving): remove {name}",
        summary=contract_rows(endpoint),
        warnings=_warnings(tree, layout, endpoint.alias, endpoint.pvc_name, endpoint.pvc_size, named),
    )


def _warnings(
    tree: Tree, layout: Layout, alias: str, claim: str, storage: str, named: tuple[str, ...]
) -> tuple[str, ...]:
    found = [f"Argo CD deletes what it made: the volume {claim} ({storage}) goes too, with the weights in it."]
    if alias in (tree.read(layout.key_portal) or "").replace("-\n", "").split():
        found.append(f"{layout.key_portal} still offers {alias} for new keys.")
    if named:
        found.append(f"These documents still name the model: {', '.join(named)}.")
    return tuple(found)
