"""Change the model of an existing endpoint: its name, alias, Service and volume stay."""

from collections.abc import Mapping
from typing import NamedTuple

from manifests import catalog, patches, staging, volumes
from manifests.assembly import is_alone, own_comments
from manifests.change import Change, ModelRequest, of_kind
from manifests.contract import ModelEndpoint, chats, describe, read_endpoint, read_endpoints, task_of
from manifests.edit import Comment, Document
from manifests.finished import refuse_unfinished
from manifests.gateway import Entry, entries_of
from manifests.gguf import choose
from manifests.local_cache import cache_edits
from manifests.model_arguments import ModelArguments, model_arguments
from manifests.model_names import is_only_a_path, naming
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.resources import refuse_resources, resource_edits
from manifests.retarget import (
    Target,
    comment_facts,
    derived_quantization,
    derived_served_name,
    family,
    new_served_names,
    pinned_arguments,
    prose_names,
    refuse_bad_input,
    reprice,
    retarget,
)
from manifests.review import (
    Mention,
    check_after_change,
    contract_rows,
    mentions_of,
    not_looked_up_warning,
    other_mentions,
    refuse_misfit,
    refuse_storage,
    refuse_unknown,
    refuse_unservable,
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
from manifests.tree import ChangeSet, ManifestError
from manifests.wording import Rewording, stem


class SwapRequest(ModelRequest, frozen=True):
    """Another model for an endpoint. Fields that are None keep their value, or are derived from the new model.

    `old_weight_bytes` is the size of the weights that stay on the volume; without it the size is derived from the old
    model's name.
    """

    old_weight_bytes: int | None = None
    old_repo_bytes: int | None = None
    """The size of the old model's repository: a staging script without patterns has downloaded all of it."""


class _NewModel(NamedTuple):
    """The requested model as the endpoint will serve it: its final facts, its GGUF file, and warnings about its staging."""

    request: SwapRequest
    file: str
    warnings: tuple[str, ...]


class _Swap(NamedTuple):
    """The plan of a swap: the endpoint before the swap, and the new model."""

    platform: Platform
    pieces: Pieces
    before: ModelEndpoint
    request: SwapRequest
    target: Target
    sizing: Sizing

    @property
    def rewording(self) -> Rewording:
        before = self.before
        old = Target(
            hf_id=before.hf_id, served_name=before.served_name, quantization=before.quantization, context=before.context
        )
        weights = self.request.old_weight_bytes or estimated_weights(before.hf_id) or 0
        old_facts = comment_facts(before.name, old, weight_bytes=weights, chat=chats(before))
        return Rewording(old_facts, comment_facts(before.name, self.target, self.request.facts))

    def only_changed(self, files: Mapping[str, str]) -> dict[str, str]:
        """The given files, except the files that already have this text in the repository."""
        return {path: text for path, text in files.items() if text != self.platform.read(path)}


def plan_swap(platform: Platform, request: SwapRequest, machine: Machine) -> Change:
    """The pull request that swaps the model; raises ManifestError if the model cannot be swapped."""
    refuse_bad_input(request.facts.hf_id, request.served_name, request.quantization, request.args)
    refuse_storage(request.storage)
    refuse_resources(request.memory, request.cpu)
    pieces = platform.require(request.name)
    before = describe(pieces, platform.layout)
    patches.refuse(pieces.name, pieces.opaque)
    model = _new_model(request, pieces, before, machine)
    sizing = _sizing(model.request, pieces, before, machine)
    arguments = model_arguments(pieces, before, model.request.facts, request.args)
    gateway = _has_gateway(platform, pieces)
    target = _target(model, pieces, before, sizing, arguments, gateway=gateway)
    mentions = _mentions_of_old_name(platform, pieces, before, target)
    if gateway:
        _refuse_without_alias(platform, pieces, before, target)
    swap = _Swap(platform, pieces, before, model.request, target, sizing)
    files = _endpoint_files(swap)
    with_new_files = platform.with_changes(files)
    refuse_unfinished(platform, with_new_files, pieces, target)
    endpoint = read_endpoint(with_new_files, request.name)
    files = {**files, **_pages(swap), **_lists(swap, endpoint)}
    after = platform.with_changes(files)
    return Change(
        changes=ChangeSet(files=dict(files)),
        title=_title(before, endpoint),
        intent=_intent(before, endpoint),
        summary=contract_rows(endpoint),
        before=contract_rows(before),
        sizing=sizing,
        warnings=(
            *sizing.warnings,
            *terms(model.request.facts),
            *_warnings(swap, endpoint),
            *_stale_documents(after, pieces, before, mentions),
            *arguments.warnings,
            *model.warnings,
            *check_after_change(platform, after, request.name, request.name),
        ),
        endpoint=endpoint,
    )


def _new_model(request: SwapRequest, pieces: Pieces, before: ModelEndpoint, machine: Machine) -> _NewModel:
    request, file = _with_file(request, pieces, before, machine)
    refuse_unservable(request.facts)
    facts = _with_served_kind(before, request)
    warnings = staging.warnings(pieces, facts)
    facts = facts.model_copy(update={"staged_bytes": staging.downloaded_bytes(pieces, facts)})
    return _NewModel(request.model_copy(update={"facts": facts}), file, warnings)


def _has_gateway(platform: Platform, pieces: Pieces) -> bool:
    """Return whether an alias in the repository leads to the endpoint."""
    other_endpoints = [endpoint for endpoint in platform.endpoints() if endpoint.name != pieces.name]
    return bool(pieces.entries) or has_aliases(platform, pieces, other_endpoints)


def _title(before: ModelEndpoint, after: ModelEndpoint) -> str:
    if before.hf_id == after.hf_id:
        return f"feat(serving): change the settings of {after.name}"
    return f"feat(serving): swap {after.name} to {after.hf_id.rsplit('/', 1)[-1]}"


def _intent(before: ModelEndpoint, after: ModelEndpoint) -> str:
    if before.hf_id == after.hf_id:
        return f"Changes how {after.name} serves {after.hf_id}."
    return f"Swaps {after.name} from {before.hf_id} to {after.hf_id}."


def _with_file(
    request: SwapRequest, pieces: Pieces, before: ModelEndpoint, machine: Machine
) -> tuple[SwapRequest, str]:
    """The request with the sizes of the one GGUF file that llama.cpp will load, and the name of that file."""
    if not pieces.runtime.gguf:
        return request, ""
    chosen = choose(
        request.facts, request.quantization or before.quantization, machine, exact=bool(request.quantization)
    )
    return request.model_copy(update={"facts": chosen.facts, "quantization": None}), chosen.file


def _with_served_kind(before: ModelEndpoint, request: SwapRequest) -> ModelFacts:
    """The facts with the kind that the endpoint will serve: its present kind, unless `kind=` changes it.

    Raises ManifestError if the model has another kind, or if the endpoint's engine cannot serve it.
    """
    facts, current_kind = request.facts, task_of(before)
    kind: Kind | None = request.kind or facts.kind
    if kind is None:
        return facts
    if (kind in POOLING_KINDS) != (current_kind in POOLING_KINDS) or (kind in POOLING_KINDS and kind != current_kind):
        raise ManifestError(
            f"{facts.hf_id} {_DOES[kind]}, and {before.name} {_DOES[current_kind]}: add an endpoint for it instead."
        )
    if request.kind is None and kind != current_kind:
        raise ManifestError(
            f"{facts.hf_id} {_IS[kind]}, and tenants of {before.name} use it for {_USE[current_kind]}. "
            f"Choose a model of that kind, or give kind={current_kind} to keep the endpoint's kind or kind={kind} to change it."
        )
    if before.kind.startswith("cpu-") and facts.revision and not tei_serves(facts):
        raise ManifestError(
            f"{facts.hf_id} needs a GPU, and {before.name} runs on a CPU: add an endpoint for it instead."
        )
    return of_kind(facts, kind)


_DOES = {
    "chat": "generates text",
    "completion": "generates text",
    "embeddings": "computes embeddings",
    "reranker": "ranks texts",
}
_IS = {"chat": "is a chat model", "completion": "is a base model, which completes text and does not chat"}
_USE = {"chat": "chat", "completion": "text completion"}


def _mentions_of_old_name(
    platform: Platform, pieces: Pieces, before: ModelEndpoint, target: Target
) -> tuple[Mention, ...]:
    """The mentions of a served name that changes; raises ManifestError if one of them is not in a document."""
    if target.served_name == before.served_name:
        return ()
    mentions = other_mentions(platform, pieces, before)
    live = [f"{mention.path}:{mention.line}" for mention in mentions if not mention.is_prose]
    if live:
        raise ManifestError(
            f"Other files name {before.name} by its served name {before.served_name}: {', '.join(live)}. "
            f"Keep the name with served={before.served_name}, or change all of them by hand."
        )
    return mentions


def _stale_documents(
    after: Platform, pieces: Pieces, before: ModelEndpoint, mentions: tuple[Mention, ...]
) -> tuple[str, ...]:
    """A warning about documents that name the old served name after the change."""
    remaining = mentions_of(after, pieces, before.served_name) if mentions else ()
    places = ", ".join(f"{mention.path}:{mention.line}" for mention in remaining if mention.is_prose)
    return (f"These documents still name {before.served_name}: {places}.",) if places else ()


def _refuse_without_alias(platform: Platform, pieces: Pieces, before: ModelEndpoint, target: Target) -> None:
    """Refuse if the gateway would still request the old name, because every call would then get a 404."""
    if pieces.entries or target.served_name == before.served_name:
        return
    list_paths = ", ".join(dict.fromkeys(models.document.path for models in platform.model_lists()))
    raise ManifestError(
        f"No alias in {list_paths} leads to {before.name}, so the gateway would continue to request {before.served_name}. "
        f"Keep the name with served={before.served_name}, or name the file with model_list in platform.litellm_values."
    )


def _sizing(request: SwapRequest, pieces: Pieces, before: ModelEndpoint, machine: Machine) -> Sizing:
    utilization = request.gpu_utilization or before.gpu_utilization or 0.9
    gpu = before.gpus > 0
    refuse_unknown(request.facts, gpu=gpu)
    old_weights = _kept_weights(request, pieces, before)
    # A claim can grow but not shrink. If it is too small for both models, it grows to the size that both need.
    volume, volume_bytes = request.storage or before.pvc_size, _volume_size(before)
    if request.storage and quantity_bytes(request.storage) < volume_bytes:
        raise ManifestError(f"A volume cannot shrink: {before.pvc_name} has {before.pvc_size}, not {request.storage}.")
    if not request.storage and volume_bytes < volume_need(request.facts.staged + old_weights):
        volume = storage_for(request.facts.staged, old_weights)
    sizing = size(
        request.facts,
        machine,
        context=request.context,
        longest_wanted=before.context,
        gpu_utilization=utilization,
        memory_limit_bytes=before.memory_limit_bytes,
        memory_bytes=quantity_bytes(request.memory) if request.memory else None,
        storage=volume,
        kept_weight_bytes=old_weights,
        engine=before.engine_version,
        gpu=gpu,
    )
    refuse_misfit(request.facts, sizing)
    return sizing


def _volume_size(before: ModelEndpoint) -> int:
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
    return staging.remaining_bytes(pieces, weights, request.old_repo_bytes or 0)


def _target(
    model: _NewModel,
    pieces: Pieces,
    before: ModelEndpoint,
    sizing: Sizing,
    arguments: ModelArguments,
    *,
    gateway: bool,
) -> Target:
    request = model.request
    names = naming(pieces, request.facts, model.file)
    # If the format is the same, keep the argument: its author may have chosen this kernel on purpose.
    current_format = family(before.quantization, before.hf_id)
    keeps = request.quantization is None and bool(current_format) and current_format == request.facts.quantization
    return Target(
        hf_id=request.facts.hf_id,
        model=names.model,
        renames=names.renames,
        served_name=request.served_name or _served_name(request, pieces, before, gateway=gateway),
        quantization=before.quantization if keeps else derived_quantization(request.facts, request.quantization),
        context=_context(request, before, sizing),
        gpu_utilization=request.gpu_utilization,
        args=arguments.args,
        removed=arguments.removed,
    )


def _context(request: SwapRequest, before: ModelEndpoint, sizing: Sizing) -> int | None:
    """The context for the engine; None for no change. On a CPU only the model limits it."""
    if not before.context and not request.context:
        return None
    if sizing.context:
        return sizing.context
    longest = request.facts.max_context
    return longest if before.context and longest and longest < before.context else None


def _served_name(request: SwapRequest, pieces: Pieces, before: ModelEndpoint, *, gateway: bool) -> str:
    """The served name after the swap. A name that a person chose stays; a name derived from the model changes.

    Without a list of aliases in the repository nobody can see which clients use the name, so it stays.
    """
    if pieces.served is None and before.served_name == pieces.model.value:
        return naming(pieces, request.facts, "").model  # the engine names itself after the model
    if pieces.is_named_by_object or (not gateway and pieces.served is not None):
        return before.served_name
    if before.served_name == before.hf_id:
        return request.facts.hf_id
    is_derived = before.served_name.lower() in (name.lower() for name in prose_names(before.hf_id))
    if before.served_name and (request.facts.hf_id == before.hf_id or not is_derived):
        return before.served_name
    return derived_served_name(request.facts)


def _endpoint_files(swap: _Swap) -> dict[str, str]:
    """The changed files of the endpoint and of the gateway; raises ManifestError if nothing would change."""
    platform, pieces, before, request = swap.platform, swap.pieces, swap.before, swap.request
    rewording = swap.rewording
    other_edits = (*resource_edits(pieces, before, request, swap.sizing), *cache_edits(pieces, request.facts))
    edited = retarget(pieces, swap.target, other_edits)
    files = {path: staging.with_patterns(document, request.facts).text for path, document in edited.items()}
    if pieces.pvc is not None and swap.sizing.storage != before.pvc_size:
        path = pieces.pvc.document.path
        claim = Document(path, files.get(path) or pieces.pvc.document.text)
        files[path] = volumes.with_size(claim, before.pvc_name, swap.sizing.storage).text
    for path in (*pieces.files, before.application_file) if is_alone(platform, pieces) else tuple(files):
        text = files.get(path) or platform.read(path)
        if text is not None and path.endswith((".yaml", ".yml")):
            document = Document(path, text)
            concerns = own_comments(platform, pieces, document)
            files[path] = rewording.document(document, concerns=concerns).text
    # Prefer the entries that request an existing served name: the others already fail.
    valid = [entry for entry in pieces.entries if entry.requested_model in pieces.served_names]
    new_names = new_served_names(pieces, swap.target)
    for entry in valid or pieces.entries:
        files |= _entry(swap, files, entry, new_names.get(entry.requested_model, swap.target.served_name))
    changed = swap.only_changed(files)
    if not changed:
        raise ManifestError(f"{request.name} already serves {request.facts.hf_id} like this: nothing would change.")
    return changed


def _entry(swap: _Swap, files: dict[str, str], entry: Entry, model: str) -> dict[str, str]:
    """The file of `entry` with the new model; `files` contains the versions changed so far.

    The prices change only if the entry has the same prices as the endpoint's main alias.
    """
    path, before, request = entry.document.path, swap.before, swap.request
    is_same_price = (entry.per_token("input"), entry.per_token("output")) == (before.price_in, before.price_out)
    entry = _same_entry(Document(path, files.get(path, entry.document.text)), entry)
    document = reprice(
        entry,
        model=model,
        price_in=request.price_in if is_same_price else None,
        price_out=request.price_out if is_same_price else None,
    )
    return {path: _with_comments(document, entry, before, swap.rewording).text}


def _same_entry(document: Document, entry: Entry) -> Entry:
    """The same entry in a later state of its file, by its index in its list."""
    before = _all_entries(Document(document.path, entry.document.text))
    position = next(index for index, candidate in enumerate(before) if candidate.first == entry.first)
    return _all_entries(document)[position]


def _all_entries(document: Document) -> tuple[Entry, ...]:
    views = (document, *document.inner)
    return tuple(entry for view in views for entry in entries_of(view))


def _with_comments(document: Document, entry: Entry, before: ModelEndpoint, rewording: Rewording) -> Document:
    entries = entries_of(document)
    entry = next(candidate for candidate in entries if candidate.first == entry.first)
    end_of_previous = max((candidate.last for candidate in entries if candidate.last < entry.first), default=-1)

    def about_the_model(comment: Comment) -> bool:
        # A comment above the entry may describe several entries: it belongs to this entry only if it names the model.
        is_heading = end_of_previous < comment.line < entry.first and stem(before.hf_id) in comment.text
        return is_heading or entry.first <= comment.line <= entry.last

    return rewording.document(document, concerns=about_the_model)


def _lists(swap: _Swap, after: ModelEndpoint) -> dict[str, str]:
    """The catalog and the lists of applications with the new model."""
    platform, before, reword = swap.platform, swap.before, swap.rewording.text
    # TEI has no context argument: tenants get the embedding model's own limit.
    context = (swap.request.facts.max_context or None) if not after.gpus else after.context
    new = catalog.CatalogRow(after.hf_id, context, after.price_in, after.price_out)
    old = catalog.CatalogRow(before.hf_id, before.context, before.price_in, before.price_out)
    files = catalog.change_row(platform, before.alias, new, old, reword)
    files |= catalog.reword_notes(platform.with_changes(files), before.alias, reword)
    files |= catalog.reword_manual(platform, before.name, reword)
    return swap.only_changed(files)


def _pages(swap: _Swap) -> dict[str, str]:
    """Documents other than the catalog that name the model or its served name."""
    platform, pieces, before = swap.platform, swap.pieces, swap.before
    renames = dict(zip(prose_names(before.hf_id), prose_names(swap.target.hf_id), strict=True))
    renames |= {old: new for old, new in new_served_names(pieces, swap.target).items() if old != new}
    names = {old for old, new in renames.items() if old != new and not old.isalpha()}
    mentions = (mention for name in names for mention in mentions_of(platform, pieces, name))
    paths = {mention.path for mention in mentions if mention.is_prose}
    for endpoint in read_endpoints(platform):
        if endpoint.name != before.name and endpoint.hf_id == before.hf_id:
            return {}
    return catalog.reword_pages(platform, sorted(paths), names, renames, swap.rewording.text)


def _warnings(swap: _Swap, after: ModelEndpoint) -> tuple[str, ...]:
    pieces, before, facts = swap.pieces, swap.before, swap.request.facts
    warnings = []
    if before.served_name != after.served_name and after.manual_sync:
        warnings.append(
            f"LiteLLM syncs automatically: after the merge it requests {after.served_name}, "
            f"so a running {after.name} has to be synced and restarted in the same step."
        )
    if after.kind == "cpu-embeddings" and before.hf_id != after.hf_id:
        size = f" ({facts.hidden_size} dimensions)" if facts.hidden_size else ""
        warnings.append(
            f"Vectors of {before.hf_id} and {after.hf_id}{size} cannot be compared: every index that was filled through "
            f"{after.alias} has to be rebuilt. {after.application} syncs automatically, so this takes effect with the merge."
        )
    if before.pvc_size != after.pvc_size:
        warnings.append(
            f"The volume {after.pvc_name} grows from {before.pvc_size} to {after.pvc_size}; it never shrinks."
        )
    warnings += [
        f"{flag.name}={flag.value} belonged to {before.hf_id} and is removed."
        for flag in pinned_arguments(pieces, swap.target)
    ]
    if not facts.revision:
        warnings.append(not_looked_up_warning(facts))
    if before.hf_id != after.hf_id and is_only_a_path(pieces):
        warnings.append(
            f"Nothing in the repository puts weights at {pieces.model.value}: put the weights of {facts.hf_id} at {swap.target.model} before the endpoint starts."
        )
    if (
        not pieces.entries
        and before.served_name == after.served_name
        and before.hf_id != after.hf_id
        and stem(before.hf_id).lower() in before.served_name.lower()
    ):
        warnings.append(
            f"No alias here leads to {before.served_name}, so clients may use that name, and it does not change. To change it, repeat the request with served=NAME."
        )
    return tuple(warnings)
