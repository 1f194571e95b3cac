"""Plan a new endpoint as a copy of the closest existing one.

The template's files are copied, fields are edited as YAML (never as text), and comments are corrected. The change also
adds the Application, LiteLLM's entry, the catalog row and, for a cost-gated endpoint, entries in the two lists of
manual applications.
"""

from typing import NamedTuple

from manifests import catalog, groups, staging
from manifests.bundle import Bundle, bundle_of
from manifests.change import Change, ModelRequest, of_kind
from manifests.contract import ModelEndpoint, chats, read_endpoint, read_endpoints, task_of
from manifests.copying import (
    Names,
    Uncopyable,
    copied_names,
    needs,
    refuse_undeployed_copy,
    with_generator_items,
    with_kustomization_entries,
    with_new_names,
    without_replicas,
)
from manifests.edit import Document, value
from manifests.gateway import Entry
from manifests.gateway_entry import with_copied_entry
from manifests.gguf import choose
from manifests.items import is_item, with_copy
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
    comment_facts,
    derived_quantization,
    derived_served_name,
    refuse_bad_input,
    retarget,
)
from manifests.review import (
    check_after_change,
    contract_rows,
    not_looked_up_warning,
    refuse_misfit,
    refuse_storage,
    refuse_unknown,
    refuse_unservable,
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


class AddRequest(ModelRequest, frozen=True):
    """Options of a new endpoint. A field that is None is derived from the model, the template or the machine.

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
    """The pull request that adds an endpoint; raises ManifestError if the endpoint cannot be added."""
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
        quantization = request.quantization or template.quantization
        gguf_file = choose(request.facts, quantization, machine, exact=bool(request.quantization))
        request, file = request.model_copy(update={"facts": gguf_file.facts, "quantization": None}), gguf_file.file
    staging_warnings = staging.warnings(pieces, request.facts)
    facts = request.facts.model_copy(update={"staged_bytes": staging.downloaded_bytes(pieces, request.facts)})
    request = request.model_copy(update={"facts": facts})
    sizing = _sizing(request, template, machine)
    arguments = model_arguments(pieces, template, request.facts, request.args)
    target = _target(request, pieces, template, sizing, arguments, file)
    try:
        files = _copies(_Copy(platform, pieces, template, request, target, sizing))
    except Uncopyable as error:
        raise ManifestError(f"{error} {_by_hand(pieces, request)}") from error
    after = platform.with_changes(files)
    endpoint = read_endpoint(after, request.name)
    files |= _lists(platform, template, endpoint, request, target)
    flag, group_warnings = groups.enable_group(platform, endpoint.group)
    files |= flag
    contract_findings = check_after_change(platform, platform.with_changes(files), template.name, request.name)
    return Change(
        changes=ChangeSet(files=dict(files)),
        title=f"feat(serving): add {request.name} ({request.facts.hf_id.rsplit('/', 1)[-1]})",
        intent=f"Adds the endpoint {request.name}, which serves {endpoint.hf_id}, as a copy of {template.name}.",
        summary=contract_rows(endpoint),
        sizing=sizing,
        warnings=(
            *sizing.warnings,
            *terms(request.facts),
            *arguments.warnings,
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
        existing = layout.home(name) if platform.files(layout.home(name)) else f"an endpoint {name}"
        raise ManifestError(f"The name {name} is taken: {existing} exists. Choose another, or swap its model.")
    for entry in platform.entries():
        if entry.alias == name:
            place = f"{entry.document.path}:{entry.first + 1}"
            raise ManifestError(f"The alias {name} is taken in LiteLLM ({place}). Choose another name.")
    for app in platform.applications():
        if value(app.node, "metadata", "name") == name:
            raise ManifestError(f"The name {name} is taken by the Application in {app.document.path}. Choose another.")


def _template(platform: Platform, request: AddRequest) -> ModelEndpoint:
    endpoints = read_endpoints(platform)
    if request.like is not None:
        template = next((endpoint for endpoint in endpoints if endpoint.name == request.like), None)
        if template is None:
            names = ", ".join(endpoint.name for endpoint in endpoints) or "none"
            raise ManifestError(f"There is no template {request.like!r}. Endpoints to copy from: {names}.")
        _refuse_other_kind(template, request.facts)
        return template
    if request.facts.kind is None:
        names = ", ".join(endpoint.name for endpoint in endpoints) or "none"
        raise ManifestError(
            f"Hugging Face did not answer, so the kind of {request.facts.hf_id} is unknown: give kind=chat "
            f"(or completion, embeddings, reranker), or like= with an endpoint of the same kind, one of {names}."
        )
    if request.facts.unservable:
        refuse_unservable(request.facts)
    kind = _kind(request.facts)
    complete = [endpoint for endpoint in endpoints if endpoint.application_file and endpoint.alias] or list(endpoints)
    same_kind = [endpoint for endpoint in complete if endpoint.kind == kind]
    if request.facts.kind == "reranker" and tei_serves(request.facts):
        same_kind = [endpoint for endpoint in complete if endpoint.kind == "cpu-reranker"] or same_kind
    if not same_kind and request.facts.pools and kind.startswith("gpu-"):
        same_kind = [endpoint for endpoint in complete if endpoint.kind == "gpu-chat"]
    if not same_kind:
        raise ManifestError(
            f"{request.facts.hf_id} needs a {kind} endpoint to copy, and the repository has none. Name another endpoint with like=."
        )
    return next((endpoint for endpoint in same_kind if endpoint.name == platform.layout.template), same_kind[0])


def _explain_by_hand(pieces: Pieces, request: AddRequest) -> None:
    """Raise ManifestError with instructions for adding the endpoint by hand, if the template has no separate files."""
    is_shared = pieces.home.endswith((".yaml", ".yml")) and not is_one_file(pieces)
    if pieces.form == "field map" or (is_shared and not is_item(pieces)):
        raise ManifestError(
            f"Stoker does not copy an endpoint of this form ({pieces.form} in {pieces.home}). {_by_hand(pieces, request)}"
        )


def _by_hand(pieces: Pieces, request: AddRequest) -> str:
    """The instructions for adding the endpoint by hand."""
    folder, _, base = pieces.home.rpartition("/")
    place = f"{folder}/{base.replace(pieces.name, request.name) if pieces.name in base else request.name}".lstrip("/")
    if pieces.fields is not None:
        steps = [
            f"add a file of values like {pieces.home} with the model {request.facts.hf_id}",
            f"deploy it like {pieces.deployed_by or pieces.name}",
            f"add {request.name} to platform.endpoints in .stoker.yaml",
        ]
    elif pieces.home.endswith((".yaml", ".yml")) and not pieces.files[1:] and pieces.name not in base:
        declaration = pieces.candidate.subject
        steps = [
            f"copy the part of {pieces.home}:{declaration.start_mark.line + 1} about {pieces.name}",
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
    """Refuse a template if its copy, or the later removal of that copy, would be incomplete."""
    reason = ""
    if pieces.opaque:
        first = pieces.opaque[0]
        reason = f"kustomize changes it in a way that Stoker does not support ({first.path}:{first.line}: {first.key})"
    elif is_deployed_apart(platform, pieces):
        reason = "its Application deploys another directory, which refers to this one"
    if reason:
        raise ManifestError(
            f"{pieces.name} cannot be copied: {reason}. Name another template with like=. {_by_hand(pieces, request)}"
        )


def _refuse_other_kind(template: ModelEndpoint, facts: ModelFacts) -> None:
    """Refuse a template whose engine cannot do the model's task: a template that generates text cannot serve an embedding model."""
    if facts.kind is None or facts.unservable:
        return
    if facts.pools and template.gpus and not on_cpu(facts):
        return  # vLLM serves both kinds, each with its own runner
    if facts.pools and not template.gpus and facts.revision and not tei_serves(facts):
        raise ManifestError(
            f"{template.engine} on {template.name} does not serve {facts.hf_id}: name a template with a GPU with like=."
        )
    if task_of(template) == "reranker" and facts.kind == "embeddings" and not template.gpus:
        raise ManifestError(f"{template.name} ranks texts: name another template for {facts.hf_id} with like=.")
    if facts.pools != (task_of(template) in POOLING_KINDS):
        raise ManifestError(
            f"{facts.hf_id} {_DOES[facts.kind]}, and {template.name} {_DOES[task_of(template)]}: "
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
    request: AddRequest, pieces: Pieces, template: ModelEndpoint, sizing: Sizing, arguments: ModelArguments, file: str
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
        args=arguments.args,
        alone=True,
        removed=(*arguments.removed, *(("--max-model-len",) if request.facts.pools and not sizing.context else ())),
    )


def _context(request: AddRequest, template: ModelEndpoint, sizing: Sizing) -> int | None:
    if not template.context and not request.context and sizing.context == request.facts.max_context:
        return None  # the engine reads the context from the model, like the template's engine
    return sizing.context if template.gpus and sizing.context else template.context


class _Copy(NamedTuple):
    """The plan of a copy: its template, model and sizes."""

    platform: Platform
    pieces: Pieces
    template: ModelEndpoint
    request: AddRequest
    target: Target
    sizing: Sizing

    @property
    def rewording(self) -> Rewording:
        return _rewording(self.template, self.request, self.target)

    def edited_files(self) -> dict[str, Document]:
        """The template's files with the requested model."""
        edits = resource_edits(self.pieces, self.template, self.request, self.sizing)
        return retarget(self.pieces, self.target, edits)


def _copies(copy: _Copy) -> dict[str, str]:
    """The new endpoint's own files, and LiteLLM's values with its entry."""
    pieces = copy.pieces
    if is_item(pieces):
        return _item(copy)
    bundle = bundle_of(copy.platform, pieces)
    names = copied_names(copy.platform, pieces, copy.template, bundle, copy.request.name)
    refuse_undeployed_copy(copy.platform, pieces, copy.template, bundle, copy.request.name)
    files = _copied_files(copy, bundle, names)
    files |= (
        with_kustomization_entries(bundle, copy.request.name)
        | with_generator_items(names)
        | _copied_application(copy, bundle, names)
    )
    if pieces.entry is not None:
        hosts = _hosts_of_copy(copy, bundle, names)
        files |= _with_gateway_entry(copy, pieces.entry, hosts)
    return files


def _copied_files(copy: _Copy, bundle: Bundle, names: Names) -> dict[str, str]:
    """The files of the bundle under their new paths; raises Uncopyable if another file also names the model."""
    edited_files = {
        path: staging.with_patterns(document, copy.request.facts) for path, document in copy.edited_files().items()
    }
    if other_files := sorted(set(edited_files) - {*bundle.files, bundle.flux_file}):
        raise Uncopyable(
            f"{copy.template.name} cannot be copied: its model is also named in {', '.join(other_files)}. "
            "Name another template with like=."
        )
    rewording = copy.rewording
    files: dict[str, str] = {}
    for path in filter(None, (*bundle.files, bundle.flux_file)):
        text = copy.platform.read(path)
        if text is None:
            continue
        new_path = bundle.copied_path(path, copy.request.name)
        _refuse_existing(copy, new_path)
        if path in edited_files or path.endswith((".yaml", ".yml")):
            document = Document(path, edited_files[path].text if path in edited_files else text)
            document = without_replicas(
                with_new_names(document, names, copy.sizing.storage), copy.platform, copy.pieces, bundle
            )
            files[new_path] = rewording.document(document).text
        else:
            files[new_path] = rewording.text(text)
    return files


def _copied_application(copy: _Copy, bundle: Bundle, names: Names) -> dict[str, str]:
    """A copy of the Application if it is not among the files of the bundle."""
    application, template, new_name = copy.pieces.application, copy.template, copy.request.name
    if application is None or application.document.path in bundle.files or template.name not in template.application:
        return {}
    exact = {**names.exact, template.application: template.application.replace(template.name, new_name)}
    document = with_new_names(application.document, names._replace(exact=exact), copy.sizing.storage)
    path = _application_path(copy.platform.layout, template, copy.request)
    _refuse_existing(copy, path)
    return {path: copy.rewording.document(document).text}


def _refuse_existing(copy: _Copy, path: str) -> None:
    if copy.platform.read(path) is not None:
        raise ManifestError(f"The name {copy.request.name} is taken: {path} exists. Choose another.")


def _hosts_of_copy(copy: _Copy, bundle: Bundle, names: Names) -> dict[str, str]:
    """The hosts in the template's gateway entry, each with the corresponding host of the copy."""
    pieces, new_name = copy.pieces, copy.request.name
    host = names.exact.get(_service_name(pieces), new_name)
    if pieces.service is None:  # KServe derives the host from the name
        host = pieces.host.replace(copy.template.name, new_name)
    hosts = {old: bundle.name(old, new_name) or old for old in pieces.candidate.hosts}
    hosts[pieces.host] = pieces.rendering.name(host)
    if pieces.entry is not None and pieces.entry.host[0] != pieces.host:
        # The entry points to another gateway, and its path contains the endpoint's names.
        hosts |= {f"/{old}": new_name for old in bundle.stems}
    elif names.moves_namespace and pieces.namespace in names.exact:
        hosts[f".{pieces.namespace}"] = f".{names.exact[pieces.namespace]}"
    return hosts


def _item(copy: _Copy) -> dict[str, str]:
    """The list with an item for the copy, and LiteLLM's values with an entry for it."""
    pieces, path = copy.pieces, copy.pieces.deployment.document.path
    files = {path: with_copy(pieces, copy.edited_files()[path], copy.request.name, copy.rewording, at_zero=pieces.gpu)}
    if pieces.entry is not None:
        hosts = {old: old.replace(copy.template.name, copy.request.name) for old in pieces.candidate.hosts}
        files |= _with_gateway_entry(copy, pieces.entry, hosts)
    return files


def _with_gateway_entry(copy: _Copy, entry: Entry, hosts: dict[str, str]) -> dict[str, str]:
    """LiteLLM's values with a copy of `entry`."""
    text = with_copied_entry(entry, hosts, copy.request, copy.target, copy.rewording, copy.pieces.runtime)
    return {entry.document.path: text}


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
    old_facts = comment_facts(template.name, old, weight_bytes=guess, chat=chats(template), task=task_of(template))
    return Rewording(old_facts, comment_facts(request.name, target, request.facts))


def _application_path(layout: Layout, template: ModelEndpoint, request: AddRequest) -> str:
    """The path of the new Application: next to the template's, or in the requested group, with a name of the same form."""
    catalog_dir, group = layout.path(layout.catalog_dir), request.group or template.group
    if request.group is not None and not DNS_LABEL.fullmatch(request.group):
        raise ManifestError(f"{request.group!r} is not a group: name a directory below {catalog_dir}.")
    if not template.application_file.startswith(f"{catalog_dir}/"):  # the repository has no catalog
        folder, _, base = template.application_file.rpartition("/")
        file_name = base.replace(template.name, request.name) if template.name in base else f"{request.name}.yaml"
        return f"{folder}/{file_name}".lstrip("/")
    group_dir = f"{catalog_dir}/{template.group}" if template.group else catalog_dir
    relative_path = template.application_file.removeprefix(f"{group_dir}/")
    file_name = relative_path.replace(template.name, request.name)
    if file_name == relative_path:
        file_name = f"{request.name}.yaml"
    return "/".join(filter(None, (catalog_dir, group, file_name)))


def _lists(
    platform: Platform, template: ModelEndpoint, endpoint: ModelEndpoint, request: AddRequest, target: Target
) -> dict[str, str]:
    context = (endpoint.context if endpoint.gpus else None) or request.facts.max_context or None
    new = catalog.CatalogRow(endpoint.hf_id, context, endpoint.price_in, endpoint.price_out)
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
        warnings.append(
            f"The price was copied from {template.name}. Set the price of this model with price-in= and price-out=."
        )
    if endpoint.alias and request.facts.kind == "reranker":
        warnings.append(
            "LiteLLM does not count the cost of rankings by vLLM and TEI (BerriAI/litellm#13797): budgets do not limit them."
        )
    if request.facts.pools and task_of(template) not in POOLING_KINDS:
        warnings.append(f"{template.name} generates text, so comments copied from it may be wrong: check them.")
    if not request.facts.revision:
        warnings.append(not_looked_up_warning(request.facts))
    return tuple(warnings)
