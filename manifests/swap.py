"""Another model behind an existing endpoint: its name, alias, Service and volume stay, what it serves changes."""

from manifests import catalog
from manifests.change import Change, Wanted
from manifests.contract import ModelEndpoint, chats, describe, read_endpoint
from manifests.edit import Comment, Document, scalar, value
from manifests.pieces import Layout, Located, Pieces, model_list, objects, require
from manifests.retarget import (
    Target,
    derived_quantization,
    derived_served_name,
    family,
    pinned,
    refuse_bad_input,
    reprice,
    retarget,
    words,
)
from manifests.review import (
    contract_rows,
    is_prose,
    kept_contract,
    named_elsewhere,
    refuse_misfit,
    refuse_storage,
    refuse_unknown,
    unchecked,
)
from manifests.sizing import (
    Machine,
    ModelFacts,
    Sizing,
    estimated_weights,
    quantity_bytes,
    size,
    storage_for,
    volume_need,
)
from manifests.tree import ChangeSet, Files, ManifestError, Overlay, Tree
from manifests.wording import Rewording, Words, stem

_STORAGE = ("spec", "resources", "requests", "storage")
# Formats of prompts and tools differ from family to family.
_OF_THE_FAMILY = (
    "--tool-call-parser",
    "--reasoning-parser",
    "--chat-template",
    "--tokenizer-mode",
    "--hf-overrides",
    "--rope-scaling",
)


class SwapRequest(Wanted, frozen=True):
    """Another model for an endpoint. What is None stays as it is, or is derived from the new model.

    `old_weight_bytes` is the size of the weights that stay in the volume; without it the old model's name tells.
    """

    old_weight_bytes: int | None = None


def plan_swap(tree: Tree, layout: Layout, request: SwapRequest, machine: Machine) -> Change:
    """The pull request that swaps the model; ManifestError says why there can be none."""
    refuse_bad_input(request.facts.hf_id, request.served_name, request.quantization, request.args)
    refuse_storage(request.storage)
    pieces = require(tree, layout, request.name)
    before = describe(pieces, layout)
    _refuse_kind(before, request.facts)
    sizing = _sizing(request, before, machine)
    target = _target(request, before, sizing)
    named = named_elsewhere(tree, layout, pieces, before) if target.served_name != before.served_name else ()
    _refuse_named_elsewhere(before, named)
    dropped = tuple(f"{each.name}={each.value}" for each in pinned(pieces, target))
    files = _pieces(tree, layout, pieces, before, request, target, sizing)
    changed = {path: text for path, text in files.items() if text != tree.read(path)}
    if not changed:
        raise ManifestError(f"{request.name} already serves {request.facts.hf_id} like this: nothing would change.")
    endpoint = read_endpoint(Overlay(tree, ChangeSet(files=dict(changed))), layout, request.name)
    changed |= _lists(tree, layout, before, endpoint, request.facts, _rewording(before, request, target))
    after = Overlay(tree, ChangeSet(files=dict(changed)))
    return Change(
        changes=ChangeSet(files=dict(changed)),
        title=_title(before, endpoint),
        intent=_intent(before, endpoint),
        summary=contract_rows(endpoint),
        before=contract_rows(before),
        sizing=sizing,
        warnings=(
            *sizing.warnings,
            *_warnings(request, before, endpoint, named, dropped),
            *_doubts(pieces, before, request),
            *kept_contract(tree, after, layout, request.name, request.name),
        ),
        endpoint=endpoint,
    )


def _title(before: ModelEndpoint, after: ModelEndpoint) -> str:
    if before.hf_id == after.hf_id:
        return f"feat(serving): change the settings of {after.name}"
    return f"feat(serving): swap {after.name} to {after.hf_id.rsplit('/', 1)[-1]}"


def _intent(before: ModelEndpoint, after: ModelEndpoint) -> str:
    if before.hf_id == after.hf_id:
        return f"Changes how {after.name} serves {after.hf_id}."
    return f"Swaps {after.name} from {before.hf_id} to {after.hf_id}."


def unshrunk(tree: Tree, changes: ChangeSet) -> tuple[ChangeSet, tuple[str, ...]]:
    """The changes with each volume at least as large as it is in the tree, and a sentence for each that stays so.

    For a revert of a change that made one grow: Kubernetes refuses a claim that shrinks, and with it the whole sync.
    """
    files, told = dict(changes.files), list[str]()
    for path, text in changes.files.items():
        if text is None:
            continue
        there = {value(each.node, "metadata", "name"): each.node for each in _claims(tree, path)}
        edits, after = [], Files({path: text})
        for each in _claims(after, path):
            name, wanted = value(each.node, "metadata", "name"), scalar(each.node, *_STORAGE)
            held = value(there.get(name), *_STORAGE)
            if wanted is not None and _bytes(wanted.value) < _bytes(held):
                edits.append(each.document.set_value(wanted, held))
                told.append(f"The volume {name} stays at {held}: Kubernetes makes none smaller.")
        files[path] = Document(path, text).apply(edits).text
    return ChangeSet(files={path: text for path, text in files.items() if text != tree.read(path)}), tuple(told)


def _claims(tree: Tree, path: str) -> list[Located]:
    return [each for kind, each in objects(tree, path) if kind == "PersistentVolumeClaim"]


def _bytes(quantity: str) -> int:
    try:
        return quantity_bytes(quantity)
    except ValueError:
        return 0


def _refuse_kind(before: ModelEndpoint, facts: ModelFacts) -> None:
    embeds = facts.pipeline_tag in ("feature-extraction", "sentence-similarity")
    if before.gpus and embeds:
        raise ManifestError(
            f"{facts.hf_id} makes embeddings, and {before.name} generates text: add an endpoint for it."
        )
    if before.kind == "gpu-chat" and facts.chat is False:
        raise ManifestError(
            f"{facts.hf_id} has no chat template, and tenants chat with {before.name}: take an instruct model."
        )


def _refuse_named_elsewhere(before: ModelEndpoint, named: tuple[str, ...]) -> None:
    files = [path for path in named if not is_prose(path)]
    if files:
        raise ManifestError(
            f"Other files name {before.name} by its served name {before.served_name}: {', '.join(files)}. "
            f"Keep the name with served={before.served_name}, or change all of them by hand."
        )


def _sizing(request: SwapRequest, before: ModelEndpoint, machine: Machine) -> Sizing:
    utilization = request.gpu_utilization or before.gpu_utilization or 0.9
    gpu = before.gpus > 0
    refuse_unknown(request.facts, gpu=gpu)
    kept = _kept_weights(request, before)
    # A claim may grow, never shrink. Too small for both, it grows to what both need.
    volume, held = request.storage or before.pvc_size, _held(before)
    if request.storage and quantity_bytes(request.storage) < held:
        raise ManifestError(f"A volume never shrinks: {before.pvc_name} has {before.pvc_size}, not {request.storage}.")
    if not request.storage and held < volume_need(request.facts.weight_bytes + kept):
        volume = storage_for(request.facts.weight_bytes, kept)
    free = size(request.facts, machine, gpu_utilization=utilization, gpu=gpu)
    context = request.context
    if context is None and before.context:
        context = min(before.context, free.largest_context) or None
    sizing = size(
        request.facts,
        machine,
        context=context,
        gpu_utilization=utilization,
        memory_limit_bytes=before.memory_limit_bytes,
        storage=volume,
        kept_weight_bytes=kept,
        gpu=gpu,
    )
    refuse_misfit(request.facts, sizing)
    return sizing


def _held(before: ModelEndpoint) -> int:
    """Bytes of the volume as it is, 0 for an endpoint without one."""
    try:
        return quantity_bytes(before.pvc_size) if before.pvc_size else 0
    except ValueError as error:
        raise ManifestError(
            f"The size of the volume {before.pvc_name} cannot be read: {error}. Mend it by hand, then try again."
        ) from error


def _kept_weights(request: SwapRequest, before: ModelEndpoint) -> int:
    if before.hf_id == request.facts.hf_id:
        return 0
    return request.old_weight_bytes or estimated_weights(before.hf_id) or 0


def _target(request: SwapRequest, before: ModelEndpoint, sizing: Sizing) -> Target:
    wanted = request.quantization
    # The same format keeps the argument as people wrote it: they may have chosen another kernel on purpose.
    keeps = wanted is None and before.quantization and family(before.quantization) == request.facts.quantization
    return Target(
        hf_id=request.facts.hf_id,
        served_name=request.served_name or _served_name(request, before),
        quantization=before.quantization if keeps else derived_quantization(request.facts, wanted),
        context=sizing.context if before.context or request.context else None,
        gpu_utilization=request.gpu_utilization,
        args=request.args,
    )


def _served_name(request: SwapRequest, before: ModelEndpoint) -> str:
    """A name that people chose stays; one that says which model is served follows it."""
    speaks = before.served_name.lower() in (before.hf_id.lower(), *(each.lower() for each in _own_names(before.hf_id)))
    if before.served_name and (request.facts.hf_id == before.hf_id or not speaks):
        return before.served_name
    return derived_served_name(request.facts)


def _own_names(hf_id: str) -> tuple[str, str]:
    return hf_id.rsplit("/", 1)[-1], stem(hf_id)


def _rewording(before: ModelEndpoint, request: SwapRequest, target: Target) -> Rewording:
    old = Target(
        hf_id=before.hf_id, served_name=before.served_name, quantization=before.quantization, context=before.context
    )
    kept = request.old_weight_bytes or estimated_weights(before.hf_id) or 0
    was = words(before.name, old, weight_bytes=kept, chat=chats(before))
    return Rewording(was, words(before.name, target, request.facts))


def _pieces(
    tree: Tree,
    layout: Layout,
    pieces: Pieces,
    before: ModelEndpoint,
    request: SwapRequest,
    target: Target,
    sizing: Sizing,
) -> dict[str, str]:
    rewording = _rewording(before, request, target)
    deployment = retarget(pieces, target)
    files = {deployment.path: deployment.text}
    if pieces.pvc is not None and sizing.storage != before.pvc_size:
        path = pieces.pvc.document.path
        document = Document(path, files.get(path) or pieces.pvc.document.text)
        files[path] = _grown(document, sizing.storage).text
    for path in (*pieces.files, before.application_file):
        text = files.get(path) or tree.read(path)
        if text is not None and path.endswith((".yaml", ".yml")):
            files[path] = rewording.document(Document(path, text)).text
    if pieces.entry is not None:
        model = target.served_name
        document = reprice(pieces.entry, model=model, price_in=request.price_in, price_out=request.price_out)
        files[document.path] = _entry_comments(document, layout, before, rewording).text
    return files


def _grown(document: Document, storage: str) -> Document:
    nodes = (scalar(root, *_STORAGE) for root in document.roots)
    return document.apply([document.set_value(node, storage) for node in nodes if node is not None])


def _entry_comments(document: Document, layout: Layout, before: ModelEndpoint, rewording: Rewording) -> Document:
    entries = model_list(Files({document.path: document.text}), layout)
    entry = next(each for each in entries if each.alias == before.alias)
    above = max((each.last for each in entries if each.last < entry.first), default=-1)

    def about_the_model(comment: Comment) -> bool:
        # What stands above may be about several entries: only where it names the model it is about this one.
        heads = above < comment.line < entry.first and stem(before.hf_id) in comment.text
        return heads or entry.first <= comment.line <= entry.last

    return rewording.document(document, concerns=about_the_model)


def _lists(
    tree: Tree,
    layout: Layout,
    before: ModelEndpoint,
    after: ModelEndpoint,
    facts: ModelFacts,
    rewording: Rewording,
) -> dict[str, str]:
    # TEI takes no context: an embedding model's own limit is what tenants get.
    reads = (facts.max_context or None) if not after.gpus else after.context
    new = catalog.CatalogRow(after.hf_id, reads, after.price_in, after.price_out)
    old = catalog.CatalogRow(before.hf_id, before.context, before.price_in, before.price_out)
    files = catalog.change_row(tree, layout, before.alias, new, old, rewording.text)
    noted = Overlay(tree, ChangeSet(files=dict(files)))
    files |= catalog.reword_notes(noted, layout, before.alias, rewording.text)
    files |= catalog.reword_manual(tree, layout, before.name, rewording.text)
    return {path: text for path, text in files.items() if text != tree.read(path)}


def _warnings(
    request: SwapRequest, before: ModelEndpoint, after: ModelEndpoint, named: tuple[str, ...], dropped: tuple[str, ...]
) -> tuple[str, ...]:
    found = []
    if before.served_name != after.served_name and after.manual_sync:
        found.append(
            f"LiteLLM syncs by itself: from the merge on it asks for {after.served_name}, "
            f"so a running {after.name} has to be synced and restarted in the same step."
        )
    if after.kind == "cpu-embeddings" and before.hf_id != after.hf_id:
        size = f" ({request.facts.hidden_size} dimensions)" if request.facts.hidden_size else ""
        found.append(
            f"Vectors of {before.hf_id} and {after.hf_id}{size} cannot be compared: every index that was filled through "
            f"{after.alias} has to be built anew. {after.application} syncs by itself, so this begins with the merge."
        )
    if before.pvc_size != after.pvc_size:
        found.append(f"The volume {after.pvc_name} grows from {before.pvc_size} to {after.pvc_size}; it never shrinks.")
    found += [f"{each} belonged to {before.hf_id} and is removed." for each in dropped]
    if not request.facts.revision:
        found.append(unchecked(request.facts))
    if named:
        found.append(f"These documents still name {before.served_name}: {', '.join(named)}.")
    return tuple(found)


def _doubts(pieces: Pieces, before: ModelEndpoint, request: SwapRequest) -> tuple[str, ...]:
    """Arguments that stay and were chosen for the old family of models."""
    given = {each.partition("=")[0] for each in request.args}
    old, new = (Words(endpoint="", hf_id=each, served_name="").family for each in (before.hf_id, request.facts.hf_id))
    doubtful = [each for each in pieces.flags if each.name in _OF_THE_FAMILY and each.name not in given]
    if old == new:
        return ()
    return tuple(f"{each.name}={each.value} was chosen for {old}: check that {new} wants it." for each in doubtful)
