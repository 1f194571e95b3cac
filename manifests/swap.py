"""Change the model of an existing endpoint: its name, alias, Service and volume stay."""

from manifests import catalog, patches, staging
from manifests.assembly import is_alone, own_comments
from manifests.change import Change, Wanted, of_kind
from manifests.contract import ModelEndpoint, chats, describe, does, read_endpoint, read_endpoints
from manifests.edit import Comment, Document, scalar, value
from manifests.finished import refuse_unfinished
from manifests.gateway import Entry, entries_of
from manifests.gguf import choose
from manifests.local_cache import cache_edits
from manifests.model_arguments import ModelArguments, model_arguments
from manifests.model_names import is_only_a_path, naming
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.resources import refuse_resources, resource_edits
from manifests.retarget import (
    Target,
    derived_quantization,
    derived_served_name,
    family,
    pinned,
    refuse_bad_input,
    renamed,
    reprice,
    retarget,
    spoken,
    words,
)
from manifests.review import (
    Mention,
    contract_rows,
    kept_contract,
    named_elsewhere,
    named_in_values,
    refuse_misfit,
    refuse_storage,
    refuse_unknown,
    refuse_unservable,
    unchecked,
)
from manifests.rules.norms import has_aliases
from manifests.sizing import (
    POOLING_KINDS,
    Machine,
    ModelFacts,
    Sizing,
    estimated_weights,
    quantity_bytes,
    size,
    storage_for,
    volume_need,
)
from manifests.sizing.facts import Kind
from manifests.sizing.flags import tei_serves
from manifests.sizing.licence import terms
from manifests.tree import ChangeSet, Files, ManifestError, Tree
from manifests.wording import Rewording, stem

_STORAGE = ("spec", "resources", "requests", "storage")


class SwapRequest(Wanted, frozen=True):
    """Another model for an endpoint. Fields that are None keep their value, or are derived from the new model.

    `old_weight_bytes` is the size of the weights that stay on the volume; without it the size is derived from the old
    model's name.
    """

    old_weight_bytes: int | None = None
    old_repo_bytes: int | None = None
    """The size of the old model's repository: a staging script without patterns has downloaded all of it."""


def plan_swap(platform: Platform, request: SwapRequest, machine: Machine) -> Change:
    """The pull request that swaps the model; raises ManifestError if it is not possible."""
    refuse_bad_input(request.facts.hf_id, request.served_name, request.quantization, request.args)
    refuse_storage(request.storage)
    refuse_resources(request.memory, request.cpu)
    pieces = platform.require(request.name)
    before = describe(pieces, platform.layout)
    patches.refuse(pieces.name, pieces.opaque)
    request, file = _with_file(request, pieces, before, machine)
    refuse_unservable(request.facts)
    facts = _settled(before, request)
    told = staging.warnings(pieces, facts)
    facts = facts.model_copy(update={"staged_bytes": staging.downloaded(pieces, facts)})
    request = request.model_copy(update={"facts": facts})
    sizing = _sizing(request, pieces, before, machine)
    own = model_arguments(pieces, before, request.facts, request.args)
    others = [each for each in platform.endpoints() if each.name != pieces.name]
    gateway = bool(pieces.entries) or has_aliases(platform, pieces, others)
    target = _target(request, pieces, before, sizing, own, file, gateway=gateway)
    named = named_elsewhere(platform, pieces, before) if target.served_name != before.served_name else ()
    _refuse_named_elsewhere(before, named)
    if gateway:
        _refuse_without_alias(platform, pieces, before, target)
    dropped = tuple(f"{each.name}={each.value}" for each in pinned(pieces, target))
    files = _pieces(platform, pieces, before, request, target, sizing)
    changed = {path: text for path, text in files.items() if text != platform.read(path)}
    if not changed:
        raise ManifestError(f"{request.name} already serves {request.facts.hf_id} like this: nothing would change.")
    written = platform.with_changes(changed)
    refuse_unfinished(platform, written, pieces, target)
    endpoint = read_endpoint(written, request.name)
    changed |= _pages(platform, pieces, before, target, _rewording(before, request, target))
    changed |= _lists(platform, before, endpoint, request.facts, _rewording(before, request, target))
    after = platform.with_changes(changed)
    left = named_in_values(after, pieces, before.served_name) if named else ()
    stale = tuple(each for each in left if each.is_prose)
    return Change(
        changes=ChangeSet(files=dict(changed)),
        title=_title(before, endpoint),
        intent=_intent(before, endpoint),
        summary=contract_rows(endpoint),
        before=contract_rows(before),
        sizing=sizing,
        warnings=(
            *sizing.warnings,
            *terms(request.facts),
            *_warnings(request, pieces, before, endpoint, stale, dropped, target.model),
            *own.warnings,
            *told,
            *kept_contract(platform, after, request.name, request.name),
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
    """The changes without any reduction of a volume, and a sentence for each volume that keeps its size.

    For a revert of a change that expanded a volume: Kubernetes refuses a smaller claim, and with it the whole sync.
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


def _with_file(
    request: SwapRequest, pieces: Pieces, before: ModelEndpoint, machine: Machine
) -> tuple[SwapRequest, str]:
    """The request with the figures of the one GGUF file that llama.cpp will load, and that file's name."""
    if not pieces.runtime.gguf:
        return request, ""
    chosen = choose(
        request.facts, request.quantization or before.quantization, machine, exact=bool(request.quantization)
    )
    return request.model_copy(update={"facts": chosen.facts, "quantization": None}), chosen.file


def _settled(before: ModelEndpoint, request: SwapRequest) -> ModelFacts:
    """The facts with the kind that the endpoint will serve. It keeps its kind unless `kind=` changes it.

    Raises ManifestError for a model of another kind, and for one that this endpoint's engine cannot serve.
    """
    facts, now = request.facts, does(before)
    wanted: Kind | None = request.kind or facts.kind
    if wanted is None:
        return facts
    if (wanted in POOLING_KINDS) != (now in POOLING_KINDS) or (wanted in POOLING_KINDS and wanted != now):
        raise ManifestError(
            f"{facts.hf_id} {_DOES[wanted]}, and {before.name} {_DOES[now]}: add an endpoint for it instead."
        )
    if request.kind is None and wanted != now:
        raise ManifestError(
            f"{facts.hf_id} {_IS[wanted]}, and tenants of {before.name} use it for {_USE[now]}. "
            f"Choose a model of that kind, or give kind={now} to keep the endpoint's kind or kind={wanted} to change it."
        )
    if before.kind.startswith("cpu-") and facts.revision and not tei_serves(facts):
        raise ManifestError(
            f"{facts.hf_id} needs a GPU, and {before.name} runs on a CPU: add an endpoint for it instead."
        )
    return of_kind(facts, wanted)


_DOES = {
    "chat": "generates text",
    "completion": "generates text",
    "embeddings": "makes embeddings",
    "reranker": "ranks texts",
}
_IS = {"chat": "is a chat model", "completion": "is a base model, which completes text and does not chat"}
_USE = {"chat": "chat", "completion": "text completion"}


def _refuse_named_elsewhere(before: ModelEndpoint, named: tuple[Mention, ...]) -> None:
    live = [f"{each.path}:{each.line}" for each in named if not each.is_prose]
    if live:
        raise ManifestError(
            f"Other files name {before.name} by its served name {before.served_name}: {', '.join(live)}. "
            f"Keep the name with served={before.served_name}, or change all of them by hand."
        )


def _refuse_without_alias(platform: Platform, pieces: Pieces, before: ModelEndpoint, target: Target) -> None:
    """Refuse if the gateway would keep using the old name: every call would get a 404."""
    if pieces.entries or target.served_name == before.served_name:
        return
    where = ", ".join(dict.fromkeys(each.document.path for each in platform.model_lists()))
    raise ManifestError(
        f"No alias in {where} leads to {before.name}, so the gateway would continue to request {before.served_name}. "
        f"Keep the name with served={before.served_name}, or name the file with model_list in platform.litellm_values."
    )


def _sizing(request: SwapRequest, pieces: Pieces, before: ModelEndpoint, machine: Machine) -> Sizing:
    utilization = request.gpu_utilization or before.gpu_utilization or 0.9
    gpu = before.gpus > 0
    refuse_unknown(request.facts, gpu=gpu)
    kept = _kept_weights(request, pieces, before)
    # A claim can grow but not shrink. If it is too small for both models, it grows to what both need.
    volume, held = request.storage or before.pvc_size, _held(before)
    if request.storage and quantity_bytes(request.storage) < held:
        raise ManifestError(f"A volume cannot shrink: {before.pvc_name} has {before.pvc_size}, not {request.storage}.")
    if not request.storage and held < volume_need(request.facts.staged + kept):
        volume = storage_for(request.facts.staged, kept)
    sizing = size(
        request.facts,
        machine,
        context=request.context,
        longest_wanted=before.context,
        gpu_utilization=utilization,
        memory_limit_bytes=before.memory_limit_bytes,
        memory_bytes=quantity_bytes(request.memory) if request.memory else None,
        storage=volume,
        kept_weight_bytes=kept,
        engine=before.engine_version,
        gpu=gpu,
    )
    refuse_misfit(request.facts, sizing)
    return sizing


def _held(before: ModelEndpoint) -> int:
    """Current size of the volume in bytes, 0 for an endpoint without one."""
    try:
        return quantity_bytes(before.pvc_size) if before.pvc_size else 0
    except ValueError as error:
        raise ManifestError(
            f"The size of the volume {before.pvc_name} cannot be read: {error}. Fix it by hand, then try again."
        ) from error


def _kept_weights(request: SwapRequest, pieces: Pieces, before: ModelEndpoint) -> int:
    if before.hf_id == request.facts.hf_id:
        return 0
    weights = request.old_weight_bytes or estimated_weights(before.hf_id) or 0
    return staging.kept(pieces, weights, request.old_repo_bytes or 0)


def _target(
    request: SwapRequest,
    pieces: Pieces,
    before: ModelEndpoint,
    sizing: Sizing,
    own: ModelArguments,
    file: str,
    *,
    gateway: bool,
) -> Target:
    wanted = request.quantization
    called = naming(pieces, request.facts, file)
    # The same format keeps the argument as people wrote it: they may have chosen another kernel on purpose.
    format_now = family(before.quantization, before.hf_id)
    keeps = wanted is None and bool(format_now) and format_now == request.facts.quantization
    return Target(
        hf_id=request.facts.hf_id,
        model=called.model,
        renames=called.renames,
        served_name=request.served_name or _served_name(request, pieces, before, gateway=gateway),
        quantization=before.quantization if keeps else derived_quantization(request.facts, wanted),
        context=_context(request, before, sizing),
        gpu_utilization=request.gpu_utilization,
        args=own.args,
        removed=own.removed,
    )


def _context(request: SwapRequest, before: ModelEndpoint, sizing: Sizing) -> int | None:
    """The context for the engine; None for no change. Without a GPU nothing limits it but the model."""
    if not before.context and not request.context:
        return None
    if sizing.context:
        return sizing.context
    longest = request.facts.max_context
    return longest if before.context and longest and longest < before.context else None


def _served_name(request: SwapRequest, pieces: Pieces, before: ModelEndpoint, *, gateway: bool) -> str:
    """A name that people chose stays; a name derived from the model changes with it.

    Without a list of aliases in the repository nobody knows who calls it by its name, so that name stays as well.
    """
    if pieces.served is None and before.served_name == pieces.model.value:
        return naming(pieces, request.facts, "").model  # the engine names itself after the model
    if pieces.is_named_by_object or (not gateway and pieces.served is not None):
        return before.served_name
    if before.served_name == before.hf_id:
        return request.facts.hf_id
    speaks = before.served_name.lower() in (each.lower() for each in spoken(before.hf_id))
    if before.served_name and (request.facts.hf_id == before.hf_id or not speaks):
        return before.served_name
    return derived_served_name(request.facts)


def _rewording(before: ModelEndpoint, request: SwapRequest, target: Target) -> Rewording:
    old = Target(
        hf_id=before.hf_id, served_name=before.served_name, quantization=before.quantization, context=before.context
    )
    kept = request.old_weight_bytes or estimated_weights(before.hf_id) or 0
    was = words(before.name, old, weight_bytes=kept, chat=chats(before))
    return Rewording(was, words(before.name, target, request.facts))


def _pieces(
    platform: Platform,
    pieces: Pieces,
    before: ModelEndpoint,
    request: SwapRequest,
    target: Target,
    sizing: Sizing,
) -> dict[str, str]:
    rewording = _rewording(before, request, target)
    also = (*resource_edits(pieces, before, request, sizing), *cache_edits(pieces, request.facts))
    edited = retarget(pieces, target, also)
    files = {path: staging.with_patterns(each, request.facts).text for path, each in edited.items()}
    if pieces.pvc is not None and sizing.storage != before.pvc_size:
        path = pieces.pvc.document.path
        document = Document(path, files.get(path) or pieces.pvc.document.text)
        files[path] = _grown(document, before.pvc_name, sizing.storage).text
    for path in (*pieces.files, before.application_file) if is_alone(platform, pieces) else tuple(files):
        text = files.get(path) or platform.read(path)
        if text is not None and path.endswith((".yaml", ".yml")):
            about = own_comments(platform, pieces, it := Document(path, text))
            files[path] = rewording.document(it, concerns=about).text
    asking = [each for each in pieces.entries if each.asked in pieces.served_names]  # others fail before the swap, too
    for each in asking or pieces.entries:
        files |= _entry(
            files, each, before, request, rewording, renamed(pieces, target).get(each.asked, target.served_name)
        )
    return files


def _entry(
    files: dict[str, str], entry: Entry, before: ModelEndpoint, request: SwapRequest, rewording: Rewording, model: str
) -> dict[str, str]:
    """The file with one entry changed; other entries of the file may already have changed.

    Another alias gets new prices only if it had the same prices.
    """
    path = entry.document.path
    own = (entry.per_token("input"), entry.per_token("output")) == (before.price_in, before.price_out)
    entry = _again(Document(path, files.get(path, entry.document.text)), entry)
    document = reprice(
        entry,
        model=model,
        price_in=request.price_in if own else None,
        price_out=request.price_out if own else None,
    )
    return {path: _entry_comments(document, entry, before, rewording).text}


def _again(document: Document, entry: Entry) -> Entry:
    """The same entry in a later state of its file, by its index in its list."""
    before = _every(Document(document.path, entry.document.text))
    place = next(index for index, each in enumerate(before) if each.first == entry.first)
    return _every(document)[place]


def _every(document: Document) -> tuple[Entry, ...]:
    views = (document, *document.inner)
    return tuple(entry for view in views for entry in entries_of(view))


def _grown(document: Document, name: str, storage: str) -> Document:
    nodes = (scalar(root, *_STORAGE) for root in document.roots if value(root, "metadata", "name") == name)
    return document.apply([document.set_value(node, storage) for node in nodes if node is not None])


def _entry_comments(document: Document, entry: Entry, before: ModelEndpoint, rewording: Rewording) -> Document:
    entries = entries_of(document)
    entry = next(each for each in entries if each.first == entry.first)
    above = max((each.last for each in entries if each.last < entry.first), default=-1)

    def about_the_model(comment: Comment) -> bool:
        # A comment above may describe several entries: it belongs to this one only if it names the model.
        heads = above < comment.line < entry.first and stem(before.hf_id) in comment.text
        return heads or entry.first <= comment.line <= entry.last

    return rewording.document(document, concerns=about_the_model)


def _lists(
    platform: Platform,
    before: ModelEndpoint,
    after: ModelEndpoint,
    facts: ModelFacts,
    rewording: Rewording,
) -> dict[str, str]:
    # TEI has no context argument: tenants get the embedding model's own limit.
    reads = (facts.max_context or None) if not after.gpus else after.context
    new = catalog.CatalogRow(after.hf_id, reads, after.price_in, after.price_out)
    old = catalog.CatalogRow(before.hf_id, before.context, before.price_in, before.price_out)
    files = catalog.change_row(platform, before.alias, new, old, rewording.text)
    noted = platform.with_changes(files)
    files |= catalog.reword_notes(noted, before.alias, rewording.text)
    files |= catalog.reword_manual(platform, before.name, rewording.text)
    return {path: text for path, text in files.items() if text != platform.read(path)}


def _pages(
    platform: Platform, pieces: Pieces, before: ModelEndpoint, target: Target, rewording: Rewording
) -> dict[str, str]:
    """Documents other than the catalog that name the model or its served name."""
    renames = dict(zip(spoken(before.hf_id), spoken(target.hf_id), strict=True))
    renames |= {old: new for old, new in renamed(pieces, target).items() if old != new}
    changed = {old for old, new in renames.items() if old != new and not old.isalpha()}
    places = {each.path for name in changed for each in named_in_values(platform, pieces, name) if each.is_prose}
    others = [each for each in read_endpoints(platform) if each.name != before.name and each.hf_id == before.hf_id]
    return {} if others else catalog.reword_pages(platform, sorted(places), changed, renames, rewording.text)


def _warnings(
    request: SwapRequest,
    pieces: Pieces,
    before: ModelEndpoint,
    after: ModelEndpoint,
    named: tuple[Mention, ...],
    dropped: tuple[str, ...],
    path: str,
) -> tuple[str, ...]:
    found = []
    if before.served_name != after.served_name and after.manual_sync:
        found.append(
            f"LiteLLM syncs automatically: after the merge it asks for {after.served_name}, "
            f"so a running {after.name} has to be synced and restarted in the same step."
        )
    if after.kind == "cpu-embeddings" and before.hf_id != after.hf_id:
        size = f" ({request.facts.hidden_size} dimensions)" if request.facts.hidden_size else ""
        found.append(
            f"Vectors of {before.hf_id} and {after.hf_id}{size} cannot be compared: every index that was filled through "
            f"{after.alias} has to be built again. {after.application} syncs automatically, so this begins with the merge."
        )
    if before.pvc_size != after.pvc_size:
        found.append(f"The volume {after.pvc_name} grows from {before.pvc_size} to {after.pvc_size}; it never shrinks.")
    found += [f"{each} belonged to {before.hf_id} and is removed." for each in dropped]
    found += [] if request.facts.revision else [unchecked(request.facts)]
    if before.hf_id != after.hf_id and is_only_a_path(pieces):
        found.append(
            f"Nothing in the repository puts weights at {pieces.model.value}: those of {request.facts.hf_id} have to be at {path} before it starts."
        )
    if (
        not pieces.entries
        and before.served_name == after.served_name
        and before.hf_id != after.hf_id
        and stem(before.hf_id).lower() in before.served_name.lower()
    ):
        found.append(
            f"Clients ask for {before.served_name}, and no alias here leads to it, so it keeps that name. Ask again with another served name to change it."
        )
    if named:
        found.append(
            f"These documents still name {before.served_name}: {', '.join(f'{each.path}:{each.line}' for each in named)}."
        )
    return tuple(found)
