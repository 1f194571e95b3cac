"""Plan a new endpoint as a copy of the closest existing one.

The template's files are copied, fields are edited as YAML (never as text), and comments are corrected. The change also
adds the Application, LiteLLM's entry, the catalog row and, for a cost-gated endpoint, entries in the two lists of
manual applications.
"""

from manifests import catalog, groups, staging
from manifests.bundle import bundle_of
from manifests.change import Change, Wanted, of_kind
from manifests.contract import ModelEndpoint, chats, does, read_endpoint, read_endpoints
from manifests.copying import (
    Uncopyable,
    at_rest,
    generated_again,
    listed_again,
    names_of_copy,
    needs,
    refuse_undeployed,
    renamed,
)
from manifests.edit import Document, value
from manifests.gateway_entry import with_entry
from manifests.gguf import choose
from manifests.items import copied, is_item
from manifests.layout import Layout
from manifests.model_arguments import ModelArguments, model_arguments
from manifests.model_names import naming
from manifests.one_file import is_one_file
from manifests.ownership import is_deployed_apart
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.resources import refuse_resources, resource_edits
from manifests.retarget import (
    DNS_LABEL,
    Target,
    derived_quantization,
    derived_served_name,
    refuse_bad_input,
    retarget,
    words,
)
from manifests.review import (
    contract_rows,
    kept_contract,
    refuse_misfit,
    refuse_storage,
    refuse_unknown,
    refuse_unservable,
    unchecked,
)
from manifests.sizing import (
    POOLING_KINDS,
    Machine,
    ModelFacts,
    Sizing,
    estimated_weights,
    quantity_bytes,
    size,
    storage_for,
)
from manifests.sizing.flags import on_cpu, tei_serves
from manifests.sizing.licence import terms
from manifests.tree import ChangeSet, ManifestError
from manifests.wording import Rewording


class AddRequest(Wanted, frozen=True):
    """Options of a new endpoint. Fields that are None are derived from the model, the template and the machine.

    `portal` also offers the alias in the key portal; this is never derived.
    """

    like: str | None = None
    group: str | None = None
    portal: bool = False


_DOES = {
    "chat": "generates text",
    "completion": "generates text",
    "embeddings": "computes embeddings",
    "reranker": "ranks texts",
}


def plan_add(platform: Platform, request: AddRequest, machine: Machine) -> Change:
    """The pull request that adds an endpoint; raises ManifestError if it is not possible."""
    refuse_bad_input(request.facts.hf_id, request.served_name, request.quantization, request.args)
    refuse_storage(request.storage)
    refuse_resources(request.memory, request.cpu)
    refuse_taken(platform, request.name)
    request = request.model_copy(update={"facts": of_kind(request.facts, request.kind)})
    template = _template(platform, request)
    pieces = platform.require(template.name)
    _explain_by_hand(pieces, request)
    _refuse_uncopyable(platform, pieces, request)
    file = ""
    if pieces.runtime.gguf:
        wanted = request.quantization or template.quantization
        gguf_file = choose(request.facts, wanted, machine, exact=bool(request.quantization))
        request, file = request.model_copy(update={"facts": gguf_file.facts, "quantization": None}), gguf_file.file
    staging_warnings = staging.warnings(pieces, request.facts)
    facts = request.facts.model_copy(update={"staged_bytes": staging.downloaded(pieces, request.facts)})
    request = request.model_copy(update={"facts": facts})
    sizing = _sizing(request, template, machine)
    own = model_arguments(pieces, template, request.facts, request.args)
    target = _target(request, pieces, template, sizing, own, file)
    try:
        files = _copies(platform, pieces, template, request, target, sizing)
    except Uncopyable as error:
        raise ManifestError(f"{error} {_by_hand(pieces, request)}") from error
    after = platform.with_changes(files)
    endpoint = read_endpoint(after, request.name)
    files |= _lists(platform, template, endpoint, request, target)
    flag, group_warnings = groups.switched_on(platform, endpoint.group)
    files |= flag
    contract_findings = kept_contract(platform, platform.with_changes(files), template.name, request.name)
    return Change(
        changes=ChangeSet(files=dict(files)),
        title=f"feat(serving): add {request.name} ({request.facts.hf_id.rsplit('/', 1)[-1]})",
        intent=f"Adds the endpoint {request.name}, which serves {endpoint.hf_id}, as a copy of {template.name}.",
        summary=contract_rows(endpoint),
        sizing=sizing,
        warnings=(
            *sizing.warnings,
            *terms(request.facts),
            *own.warnings,
            *staging_warnings,
            *group_warnings,
            *_warnings(request, template, endpoint),
            *needs(platform, pieces, request.name),
            *contract_findings,
        ),
        endpoint=endpoint,
        template=template.name,
    )


def refuse_taken(platform: Platform, name: str) -> None:
    """Refuse a name that is not a DNS label, or that a directory, an alias or an Application already uses."""
    layout = platform.layout
    if not DNS_LABEL.fullmatch(name):
        raise ManifestError(
            f"{name!r} is not a valid endpoint name: use lowercase letters, digits and hyphens, begin with a letter, "
            "63 characters at most (a DNS label)."
        )
    if platform.files(layout.home(name)) or name in platform.names():
        there = layout.home(name) if platform.files(layout.home(name)) else f"an endpoint {name}"
        raise ManifestError(f"The name {name} is taken: {there} exists. Choose another, or swap its model.")
    for entry in platform.entries():
        if entry.alias == name:
            where = f"{entry.document.path}:{entry.first + 1}"
            raise ManifestError(f"The alias {name} is taken in LiteLLM ({where}). Choose another name.")
    for app in platform.applications():
        if value(app.node, "metadata", "name") == name:
            raise ManifestError(f"The name {name} is taken by the Application in {app.document.path}. Choose another.")


def _template(platform: Platform, request: AddRequest) -> ModelEndpoint:
    endpoints = read_endpoints(platform)
    if request.like is not None:
        template = next((each for each in endpoints if each.name == request.like), None)
        if template is None:
            names = ", ".join(each.name for each in endpoints) or "none"
            raise ManifestError(f"There is no template {request.like!r}. Endpoints to copy from: {names}.")
        _refuse_other_kind(template, request.facts)
        return template
    if request.facts.kind is None:
        names = ", ".join(each.name for each in endpoints) or "none"
        raise ManifestError(
            f"Hugging Face did not answer, so the kind of {request.facts.hf_id} is unknown: give kind=chat "
            f"(or completion, embeddings, reranker), or like= with an endpoint of the same kind, one of {names}."
        )
    if request.facts.unservable:
        refuse_unservable(request.facts)
    kind = _kind(request.facts)
    complete = [endpoint for endpoint in endpoints if endpoint.application_file and endpoint.alias] or list(endpoints)
    same_kind = [each for each in complete if each.kind == kind]
    if request.facts.kind == "reranker" and tei_serves(request.facts):
        same_kind = [each for each in complete if each.kind == "cpu-reranker"] or same_kind
    if not same_kind and request.facts.pools and kind.startswith("gpu-"):
        same_kind = [each for each in complete if each.kind == "gpu-chat"]
    if not same_kind:
        raise ManifestError(
            f"{request.facts.hf_id} needs a {kind} endpoint to copy from, and there is none; name one with like=."
        )
    return next((each for each in same_kind if each.name == platform.layout.template), same_kind[0])


def _explain_by_hand(pieces: Pieces, request: AddRequest) -> None:
    """Raise ManifestError with the file to add, and its content, for an endpoint that has no files of its own."""
    is_shared = pieces.home.endswith((".yaml", ".yml")) and not is_one_file(pieces)
    if pieces.form == "field map" or (is_shared and not is_item(pieces)):
        raise ManifestError(
            f"Stoker does not copy an endpoint of this form ({pieces.form} in {pieces.home}). {_by_hand(pieces, request)}"
        )


def _by_hand(pieces: Pieces, request: AddRequest) -> str:
    """Return which file to add by hand, and what to write into it."""
    folder, _, base = pieces.home.rpartition("/")
    place = f"{folder}/{base.replace(pieces.name, request.name) if pieces.name in base else request.name}".lstrip("/")
    if pieces.fields is not None:
        steps = [
            f"add a file of values like {pieces.home} with the model {request.facts.hf_id}",
            f"deploy it like {pieces.deployed_by or pieces.name}",
            f"add {request.name} to platform.endpoints in .stoker.yaml",
        ]
    elif pieces.home.endswith((".yaml", ".yml")) and not pieces.files[1:] and pieces.name not in base:
        kind = pieces.candidate.subject
        steps = [
            f"copy the part of {pieces.home}:{kind.start_mark.line + 1} about {pieces.name}",
            f"name it {request.name}, with the model {request.facts.hf_id} and its own volume and Service",
        ]
    else:
        steps = [
            f"copy {pieces.home} to {place}",
            f"write {request.name} for {pieces.name} in it, and {request.facts.hf_id} for {pieces.model.value}",
            "list the new file in the kustomization, if there is one",
        ]
    if pieces.entries:
        steps.append(f"add an entry to model_list in {pieces.entries[0].document.path}, like {pieces.entries[0].alias}")
    return f"To add {request.name} by hand: {'; '.join(steps)}."


def _refuse_uncopyable(platform: Platform, pieces: Pieces, request: AddRequest) -> None:
    """Refuse a template whose copy, or whose later removal, would be incomplete."""
    why = ""
    if pieces.opaque:
        first = pieces.opaque[0]
        why = f"kustomize changes it in a way that Stoker does not support ({first.path}:{first.line}: {first.key})"
    elif is_deployed_apart(platform, pieces):
        why = "its Application deploys another directory, which leads to it"
    if why:
        raise ManifestError(
            f"{pieces.name} cannot be copied: {why}. Name another template with like=. {_by_hand(pieces, request)}"
        )


def _refuse_other_kind(template: ModelEndpoint, facts: ModelFacts) -> None:
    """Refuse a template of the other family: embedding models and generating models are not interchangeable."""
    if facts.kind is None or facts.unservable:
        return
    if facts.pools and template.gpus and not on_cpu(facts):
        return  # the same engine with another runner
    if facts.pools and not template.gpus and facts.revision and not tei_serves(facts):
        raise ManifestError(
            f"{template.engine} on {template.name} does not serve {facts.hf_id}: name a template with a GPU with like=."
        )
    if does(template) == "reranker" and facts.kind == "embeddings" and not template.gpus:
        raise ManifestError(f"{template.name} ranks texts: name another template for {facts.hf_id} with like=.")
    if facts.pools != (does(template) in POOLING_KINDS):
        raise ManifestError(
            f"{facts.hf_id} {_DOES[facts.kind]}, and {template.name} {_DOES[does(template)]}: "
            "name another template with like=."
        )


def _kind(facts: ModelFacts) -> str:
    return f"{'cpu' if on_cpu(facts) else 'gpu'}-{facts.kind}"


def _sizing(request: AddRequest, template: ModelEndpoint, machine: Machine) -> Sizing:
    staged = request.facts.staged
    refuse_unknown(request.facts, gpu=template.gpus > 0)
    sizing = size(
        request.facts,
        machine,
        context=request.context,
        longest_wanted=template.context,
        gpu_utilization=request.gpu_utilization or template.gpu_utilization or 0.9,
        memory_limit_bytes=template.memory_limit_bytes,
        memory_bytes=quantity_bytes(request.memory) if request.memory else None,
        # Reserve space for a successor: a swap keeps the old weights.
        storage=request.storage or storage_for(staged, staged),
        engine=template.engine_version,
        gpu=template.gpus > 0,
    )
    refuse_misfit(request.facts, sizing)
    return sizing


def _target(
    request: AddRequest, pieces: Pieces, template: ModelEndpoint, sizing: Sizing, own: ModelArguments, file: str
) -> Target:
    model_naming = naming(pieces, request.facts, file)
    names_itself = pieces.served is None and template.served_name == pieces.model.value
    return Target(
        hf_id=request.facts.hf_id,
        model=model_naming.model,
        renames=model_naming.renames,
        served_name=request.served_name or (model_naming.model if names_itself else derived_served_name(request.facts)),
        quantization=derived_quantization(request.facts, request.quantization),
        context=sizing.context or None if request.facts.pools else _context(request, template, sizing),
        gpu_utilization=request.gpu_utilization,
        args=own.args,
        alone=True,
        removed=(*own.removed, *(("--max-model-len",) if request.facts.pools and not sizing.context else ())),
    )


def _context(request: AddRequest, template: ModelEndpoint, sizing: Sizing) -> int | None:
    if not template.context and not request.context and sizing.context == request.facts.max_context:
        return None  # the engine reads it from the model, like the template's engine
    return sizing.context if template.gpus and sizing.context else template.context


def _copies(
    platform: Platform,
    pieces: Pieces,
    template: ModelEndpoint,
    request: AddRequest,
    target: Target,
    sizing: Sizing,
) -> dict[str, str]:
    """The new endpoint's own files, and LiteLLM's values with its entry."""
    layout, new = platform.layout, request.name
    rewording = _rewording(template, request, target)
    if is_item(pieces):
        return _item(platform, pieces, template, request, target, sizing)
    bundle = bundle_of(platform, pieces)
    names = names_of_copy(platform, pieces, template, bundle, new)
    refuse_undeployed(platform, pieces, template, bundle, new)
    copies: dict[str, str] = {}
    edited = {
        path: staging.with_patterns(each, request.facts)
        for path, each in retarget(pieces, target, resource_edits(pieces, template, request, sizing)).items()
    }
    if outside := sorted(set(edited) - {*bundle.files, bundle.apart}):
        raise Uncopyable(f"{template.name} cannot be copied: its model is also named in {', '.join(outside)}.")
    for path in filter(None, (*bundle.files, bundle.apart)):
        text = platform.read(path)
        if text is None:
            continue
        place = bundle.moved(path, new)
        if platform.read(place) is not None:
            raise ManifestError(f"The name {new} is taken: {place} exists. Choose another.")
        if path in edited:
            document = Document(path, edited[path].text)
        elif path.endswith((".yaml", ".yml")):
            document = Document(path, text)
        else:
            copies[place] = rewording.text(text)
            continue
        document = at_rest(renamed(document, names, sizing.storage), platform, pieces, bundle)
        copies[place] = rewording.document(document).text
    copies |= listed_again(bundle, new) | generated_again(names)
    apart = pieces.application is not None and pieces.application.document.path not in bundle.files
    if pieces.application is not None and apart and template.name in template.application:
        exact = {**names.exact, template.application: template.application.replace(template.name, new)}
        document = renamed(pieces.application.document, names._replace(exact=exact), sizing.storage)
        path = _application_path(layout, template, request)
        if platform.read(path) is not None:
            raise ManifestError(f"The name {request.name} is taken: {path} exists. Choose another.")
        copies[path] = rewording.document(document).text
    if pieces.entry is not None:
        host = names.exact.get(_service_name(pieces), new)
        if pieces.service is None:  # KServe derives it from the name
            host = pieces.host.replace(template.name, request.name)
        hosts = {old: bundle.name(old, new) or old for old in pieces.candidate.hosts}
        hosts[pieces.host] = pieces.rendering.name(host)
        if pieces.entry.host[0] != pieces.host:  # another gateway, which has the names in its path
            hosts |= {f"/{old}": new for old in bundle.stems}
        elif names.moves_namespace and pieces.namespace in names.exact:
            hosts[f".{pieces.namespace}"] = f".{names.exact[pieces.namespace]}"
        entry = pieces.entry
        copies[entry.document.path] = with_entry(entry, hosts, request, target, rewording, pieces.runtime)
    return copies


def _item(
    platform: Platform,
    pieces: Pieces,
    template: ModelEndpoint,
    request: AddRequest,
    target: Target,
    sizing: Sizing,
) -> dict[str, str]:
    """The list with another item, and LiteLLM's values with its entry."""
    rewording, path = _rewording(template, request, target), pieces.deployment.document.path
    edited = retarget(pieces, target, resource_edits(pieces, template, request, sizing))
    files = {path: copied(pieces, edited[path], request.name, rewording, rests=pieces.gpu)}
    if pieces.entry is not None:
        hosts = {old: old.replace(template.name, request.name) for old in pieces.candidate.hosts}
        files[pieces.entry.document.path] = with_entry(pieces.entry, hosts, request, target, rewording, pieces.runtime)
    return files


def _service_name(pieces: Pieces) -> str:
    return value(pieces.service.node, "metadata", "name") if pieces.service else ""


def _rewording(template: ModelEndpoint, request: AddRequest, target: Target) -> Rewording:
    old = Target(
        hf_id=template.hf_id,
        served_name=template.served_name,
        quantization=template.quantization,
        context=template.context,
    )
    guess = estimated_weights(template.hf_id) or 0
    was = words(template.name, old, weight_bytes=guess, chat=chats(template), task=does(template))
    return Rewording(was, words(request.name, target, request.facts))


def _application_path(layout: Layout, template: ModelEndpoint, request: AddRequest) -> str:
    """The path of the new Application: next to the template's, or in the requested group, and named in the same way."""
    catalog_dir, group = layout.path(layout.catalog_dir), request.group or template.group
    if request.group is not None and not DNS_LABEL.fullmatch(request.group):
        raise ManifestError(f"{request.group!r} is not a group: name a directory below {catalog_dir}.")
    if not template.application_file.startswith(f"{catalog_dir}/"):  # the repository has no catalog
        folder, _, base = template.application_file.rpartition("/")
        named = base.replace(template.name, request.name) if template.name in base else f"{request.name}.yaml"
        return f"{folder}/{named}".lstrip("/")
    below = f"{catalog_dir}/{template.group}" if template.group else catalog_dir
    inside = template.application_file.removeprefix(f"{below}/")
    named = inside.replace(template.name, request.name)
    if named == inside:
        named = f"{request.name}.yaml"
    return "/".join(filter(None, (catalog_dir, group, named)))


def _lists(
    platform: Platform, template: ModelEndpoint, endpoint: ModelEndpoint, request: AddRequest, target: Target
) -> dict[str, str]:
    reads = (endpoint.context if endpoint.gpus else None) or request.facts.max_context or None
    new = catalog.CatalogRow(endpoint.hf_id, reads, endpoint.price_in, endpoint.price_out)
    old = catalog.CatalogRow(template.hf_id, template.context, template.price_in, template.price_out)
    rewording = _rewording(template, request, target)
    files = catalog.add_row(platform, template.alias, endpoint.alias, new, old, rewording.text)
    if endpoint.manual_sync:
        files |= catalog.add_manual(platform, template.name, endpoint.name, rewording.text)
    if request.portal:
        files |= catalog.add_to_portal(platform, template.alias, endpoint.alias)
    return files


def _warnings(request: AddRequest, template: ModelEndpoint, endpoint: ModelEndpoint) -> tuple[str, ...]:
    warnings = []
    if endpoint.alias:
        warnings.append(f"Virtual keys that list their models do not reach {endpoint.alias} until it is added to them.")
    if endpoint.alias and request.price_in is None:
        warnings.append(f"The price is that of {template.name}: nobody has set one for this model.")
    if endpoint.alias and request.facts.kind == "reranker":
        warnings.append(
            "LiteLLM does not count the cost of rankings by vLLM and TEI (BerriAI/litellm#13797): budgets do not limit them."
        )
    if request.facts.pools and does(template) not in POOLING_KINDS:
        warnings.append(f"{template.name} generates text: read the comments that were copied from it.")
    if not request.facts.revision:
        warnings.append(unchecked(request.facts))
    return tuple(warnings)
