"""A new endpoint, made from the closest existing one.

The template's files are copied, fields are edited (never text), and comments are made true. Around the copy come the
Application, LiteLLM's entry, the catalog's row and, for an endpoint behind the cost gate, the two manual lists.
"""

import itertools
import re

from ruamel.yaml.nodes import MappingNode

from manifests import catalog, groups
from manifests.change import Change, Wanted
from manifests.contract import ModelEndpoint, chats, read_endpoint, read_endpoints
from manifests.edit import Comment, Document, Edit, scalar, scalars, value
from manifests.pieces import Entry, Layout, Pieces, applications, model_list, objects, require
from manifests.retarget import (
    DNS_LABEL,
    Target,
    derived_quantization,
    derived_served_name,
    refuse_bad_input,
    reprice,
    retarget,
    words,
)
from manifests.review import contract_rows, kept_contract, refuse_misfit, refuse_storage, refuse_unknown, unchecked
from manifests.sizing import Machine, ModelFacts, Sizing, estimated_weights, size, storage_for
from manifests.tree import ChangeSet, Files, ManifestError, Overlay, Tree
from manifests.wording import Rewording


class AddRequest(Wanted, frozen=True):
    """A new endpoint. What is None is derived from the model, the template and the machine.

    `portal` offers the alias to people who make their own keys, which is a decision and so never derived.
    """

    like: str | None = None
    group: str | None = None
    portal: bool = False


def plan_add(tree: Tree, layout: Layout, request: AddRequest, machine: Machine) -> Change:
    """The pull request that adds an endpoint; ManifestError says why there can be none."""
    refuse_bad_input(request.facts.hf_id, request.served_name, request.quantization, request.args)
    refuse_storage(request.storage)
    refuse_taken(tree, layout, request.name)
    template = _template(tree, layout, request)
    pieces = require(tree, layout, template.name)
    sizing = _sizing(request, template, machine)
    target = _target(request, template, sizing)
    files = _copies(tree, layout, pieces, template, request, target, sizing)
    after = Overlay(tree, ChangeSet(files=dict(files)))
    endpoint = read_endpoint(after, layout, request.name)
    files |= _lists(tree, layout, template, endpoint, request, target)
    flag, told = groups.switched_on(tree, layout, endpoint.group)
    files |= flag
    doubts = kept_contract(tree, Overlay(tree, ChangeSet(files=dict(files))), layout, template.name, request.name)
    return Change(
        changes=ChangeSet(files=dict(files)),
        title=f"feat(serving): add {request.name} ({request.facts.hf_id.rsplit('/', 1)[-1]})",
        intent=f"Adds the endpoint {request.name}, which serves {endpoint.hf_id} and is made like {template.name}.",
        summary=contract_rows(endpoint),
        sizing=sizing,
        warnings=(*sizing.warnings, *told, *_warnings(request, template, endpoint), *doubts),
        endpoint=endpoint,
    )


def refuse_taken(tree: Tree, layout: Layout, name: str) -> None:
    """Refuse a name that is no DNS label, or that a directory, an alias or an Application has already."""
    if not DNS_LABEL.fullmatch(name):
        raise ManifestError(
            f"{name!r} cannot name an endpoint: use small letters, digits and dashes, begin with a letter, "
            "63 characters at most (a DNS label)."
        )
    if tree.files(layout.home(name)):
        raise ManifestError(f"The name {name} is taken: {layout.home(name)} exists. Choose another, or swap its model.")
    for entry in model_list(tree, layout):
        if entry.alias == name:
            where = f"{entry.document.path}:{entry.first + 1}"
            raise ManifestError(f"The alias {name} is taken in LiteLLM ({where}). Choose another name.")
    for app in applications(tree, layout):
        if value(app.node, "metadata", "name") == name:
            raise ManifestError(f"The name {name} is taken by the Application in {app.document.path}. Choose another.")


def _template(tree: Tree, layout: Layout, request: AddRequest) -> ModelEndpoint:
    endpoints = read_endpoints(tree, layout)
    if request.like is not None:
        named = next((each for each in endpoints if each.name == request.like), None)
        if named is None:
            known = ", ".join(each.name for each in endpoints) or "none"
            raise ManifestError(f"There is no template {request.like!r}. Endpoints to copy from: {known}.")
        _refuse_other_kind(named, request.facts)
        return named
    if request.facts.chat is None and request.facts.pipeline_tag is None:
        known = ", ".join(each.name for each in endpoints) or "none"
        raise ManifestError(
            f"Nobody could look up whether {request.facts.hf_id} chats, completes or embeds: "
            f"say which endpoint it resembles with like=, one of {known}."
        )
    kind = _kind(request.facts)
    alike = [each for each in endpoints if each.kind == kind and each.application_file and each.alias]
    if not alike:
        raise ManifestError(
            f"{request.facts.hf_id} needs a {kind} endpoint to copy from, and there is none; name one with like=."
        )
    return next((each for each in alike if each.name == layout.template), alike[0])


def _refuse_other_kind(template: ModelEndpoint, facts: ModelFacts) -> None:
    """A model that makes vectors and one that writes are never alike, where it is known what the model does."""
    if facts.chat is None and facts.pipeline_tag is None:
        return
    embeds, vectors = _kind(facts) == "cpu-embeddings", template.kind == "cpu-embeddings"
    if embeds != vectors:
        does = ("makes embeddings", "generates text")
        raise ManifestError(
            f"{facts.hf_id} {does[not embeds]}, and {template.name} {does[not vectors]}: name another template with like=."
        )


def _kind(facts: ModelFacts) -> str:
    if facts.pipeline_tag in ("feature-extraction", "sentence-similarity"):
        return "cpu-embeddings"
    return "gpu-chat" if facts.chat else "gpu-completion"


def _sizing(request: AddRequest, template: ModelEndpoint, machine: Machine) -> Sizing:
    weights = request.facts.weight_bytes
    refuse_unknown(request.facts, gpu=template.gpus > 0)
    sizing = size(
        request.facts,
        machine,
        context=request.context,
        gpu_utilization=request.gpu_utilization or template.gpu_utilization or 0.9,
        memory_limit_bytes=template.memory_limit_bytes,
        # Room for a successor: a swap keeps the old weights.
        storage=request.storage or storage_for(weights, weights),
        gpu=template.gpus > 0,
    )
    refuse_misfit(request.facts, sizing)
    return sizing


def _target(request: AddRequest, template: ModelEndpoint, sizing: Sizing) -> Target:
    return Target(
        hf_id=request.facts.hf_id,
        served_name=request.served_name or derived_served_name(request.facts),
        quantization=derived_quantization(request.facts, request.quantization),
        context=sizing.context if template.gpus and sizing.context else template.context,
        gpu_utilization=request.gpu_utilization,
        args=request.args,
    )


def _copies(
    tree: Tree,
    layout: Layout,
    pieces: Pieces,
    template: ModelEndpoint,
    request: AddRequest,
    target: Target,
    sizing: Sizing,
) -> dict[str, str]:
    """The new endpoint's own files, and LiteLLM's values with its entry."""
    rewording = _rewording(template, request, target)
    renames = _own_names(tree, pieces, template, request.name)
    made: dict[str, str] = {}
    for path in pieces.files:
        text = tree.read(path)
        if text is None:
            continue
        new_path = layout.home(request.name) + path[len(layout.home(template.name)) :]
        if path == pieces.deployment.document.path:
            document = retarget(pieces, target)
        elif path.endswith((".yaml", ".yml")):
            document = Document(path, text)
        else:
            made[new_path] = rewording.text(text)
            continue
        document = _renamed(document, layout, template, request, sizing, renames)
        made[new_path] = rewording.document(document).text
    if pieces.application is not None:
        document = _renamed(pieces.application.document, layout, template, request, sizing, renames)
        path = _application_path(layout, template, request)
        if tree.read(path) is not None:
            raise ManifestError(f"The name {request.name} is taken: {path} exists. Choose another.")
        made[path] = rewording.document(document).text
    if pieces.entry is not None:
        made[layout.litellm_values] = _with_entry(tree, layout, pieces.entry, renames, request, target, rewording)
    return made


def _rewording(template: ModelEndpoint, request: AddRequest, target: Target) -> Rewording:
    old = Target(
        hf_id=template.hf_id,
        served_name=template.served_name,
        quantization=template.quantization,
        context=template.context,
    )
    guess = estimated_weights(template.hf_id) or 0
    was = words(template.name, old, weight_bytes=guess, chat=chats(template))
    return Rewording(was, words(request.name, target, request.facts))


def _own_names(tree: Tree, pieces: Pieces, template: ModelEndpoint, name: str) -> dict[str, str]:
    """The names of the template's objects, and what they become in the copy.

    ManifestError for an object that is not the model's own: two Applications would fight over it.
    """
    found = {template.name: name}
    for path in pieces.files:
        for kind, each in objects(tree, path):
            old = value(each.node, "metadata", "name")
            if kind == "Kustomization" or not old or old in (template.name, template.pvc_name):
                continue
            if template.name not in old:
                raise ManifestError(
                    f"{template.name} cannot be copied: {path} holds the {kind} {old}, which is not the model's own. "
                    "Name another template with like=."
                )
            found[old] = old.replace(template.name, name)
    if template.application_file and len(objects(tree, template.application_file)) > 1:
        raise ManifestError(
            f"{template.name} cannot be copied: {template.application_file} holds more than its Application. "
            "Name another template with like=."
        )
    if template.name not in template.application:
        why = (
            f"its Application is named {template.application}" if template.application else "no Application deploys it"
        )
        raise ManifestError(f"{template.name} cannot be copied: {why}. Name another template with like=.")
    return found | {template.application: template.application.replace(template.name, name)}


def _renamed(
    document: Document,
    layout: Layout,
    template: ModelEndpoint,
    request: AddRequest,
    sizing: Sizing,
    renames: dict[str, str],
) -> Document:
    """Every field that holds the template's name, its claim, its path or its size, with the new one's."""
    exact = {
        **renames,
        **{
            f"{lead}{layout.home(template.name)}{end}": f"{lead}{layout.home(request.name)}{end}"
            for lead in ("", "./", "/")
            for end in ("", "/")
        },
    }
    if template.pvc_name:
        exact[template.pvc_name] = claim_name(template, request.name)
    edits = [document.set_value(node, exact[node.value]) for node in scalars(document.roots) if node.value in exact]
    storages = (scalar(root, "spec", "resources", "requests", "storage") for root in document.roots)
    edits += [document.set_value(node, sizing.storage) for node in storages if node and node.value != sizing.storage]
    return document.apply(edits)


def claim_name(template: ModelEndpoint, name: str) -> str:
    """The claim of a new endpoint, named as the template names its own."""
    if template.name in template.pvc_name:
        return template.pvc_name.replace(template.name, name)
    return f"{name}-model-cache"


def _application_path(layout: Layout, template: ModelEndpoint, request: AddRequest) -> str:
    """Beside the template's, or in the group that is asked for; named as the template's is."""
    catalog_dir, group = layout.path(layout.catalog_dir), request.group or template.group
    if request.group is not None and not DNS_LABEL.fullmatch(request.group):
        raise ManifestError(f"{request.group!r} is no group: name a directory below {catalog_dir}.")
    below = f"{catalog_dir}/{template.group}" if template.group else catalog_dir
    inside = template.application_file.removeprefix(f"{below}/")
    named = inside.replace(template.name, request.name)
    if named == inside:
        named = f"{request.name}.yaml"
    return "/".join(filter(None, (catalog_dir, group, named)))


def _with_entry(
    tree: Tree,
    layout: Layout,
    entry: Entry,
    renames: dict[str, str],
    request: AddRequest,
    target: Target,
    rewording: Rewording,
) -> str:
    """LiteLLM's values with the new entry after the last one of the template's group."""
    document = reprice(entry, model=target.served_name, price_in=request.price_in, price_out=request.price_out)
    copied = next(each for each in _entries(document) if each.alias == entry.alias)
    document = _renamed_entry(document, copied.node, renames, request.name)
    copied = next(each for each in _entries(document) if each.alias == request.name)
    text = _own_comments(document, copied, rewording)
    after = _last_of_group(model_list(tree, layout), entry)
    original = entry.document
    return original.apply([original.insert_lines(after.last + 1, text)]).text


def _entries(document: Document) -> tuple[Entry, ...]:
    return model_list(Files({document.path: document.text}), Layout(litellm_values=document.path))


def _renamed_entry(document: Document, node: MappingNode, renames: dict[str, str], name: str) -> Document:
    edits = []
    alias, base = scalar(node, "model_name"), scalar(node, "litellm_params", "api_base")
    if alias is not None:
        edits.append(document.set_value(alias, name))
    if base is not None:
        # The host's first label is the Service, which need not have the endpoint's name.
        host = re.sub(r"(?<=://)[\w-]+", lambda service: renames.get(service[0], service[0]), base.value)
        edits.append(document.set_value(base, host))
    return document.apply(edits)


def _own_comments(document: Document, entry: Entry, rewording: Rewording) -> str:
    """The entry's text with the comments that are about the model; what explains the fields is said once, above."""

    def about_the_model(comment: Comment) -> bool:
        key = document.lines[comment.line][: comment.column].strip(" -")
        return not comment.alone and key.startswith(("model_name:", "litellm_params:"))

    def inside(comment: Comment) -> bool:
        return entry.first <= comment.line <= entry.last

    edits = []
    for comment in document.comments():
        if not inside(comment) or about_the_model(comment):
            continue
        start = document.offset(comment.line)
        if comment.alone:
            edits.append(document.delete_lines(comment.line, comment.line))
        else:
            kept = document.lines[comment.line][: comment.column].rstrip()
            edits.append(Edit(start, start + comment.column + len(comment.text), kept))
    bare = document.apply(edits)
    entry = next(each for each in _entries(bare) if each.alias == entry.alias)
    worded = rewording.document(bare, concerns=lambda comment: entry.first <= comment.line <= entry.last)
    text = next(each for each in _entries(worded) if each.alias == entry.alias).text
    return text if text.endswith("\n") else text + "\n"


def _last_of_group(entries: tuple[Entry, ...], entry: Entry) -> Entry:
    """The last entry below the same comment that is reached in the same way (the same port of a Service)."""
    found = entry
    port = re.search(r":\d+/", entry.api_base)
    for previous, each in itertools.pairwise(entries):
        if each.first <= entry.first:
            continue
        if each.first != previous.last + 1:
            break
        if (other := re.search(r":\d+/", each.api_base)) and port and other[0] == port[0]:
            found = each
    return found


def _lists(
    tree: Tree, layout: Layout, template: ModelEndpoint, endpoint: ModelEndpoint, request: AddRequest, target: Target
) -> dict[str, str]:
    reads = (request.facts.max_context or None) if not endpoint.gpus else endpoint.context
    new = catalog.CatalogRow(endpoint.hf_id, reads, endpoint.price_in, endpoint.price_out)
    old = catalog.CatalogRow(template.hf_id, template.context, template.price_in, template.price_out)
    rewording = _rewording(template, request, target)
    files = catalog.add_row(tree, layout, template.alias, endpoint.alias, new, old, rewording.text)
    if endpoint.manual_sync:
        files |= catalog.add_manual(tree, layout, template.name, endpoint.name, rewording.text)
    if request.portal:
        files |= catalog.add_to_portal(tree, layout, template.alias, endpoint.alias)
    return files


def _warnings(request: AddRequest, template: ModelEndpoint, endpoint: ModelEndpoint) -> tuple[str, ...]:
    found = [f"Virtual keys that list their models do not reach {endpoint.alias} until it is added to them."]
    if request.price_in is None:
        found.append(
            f"The price is that of {template.name}: nobody has set one for this model (price-in=, price-out=)."
        )
    if not request.facts.revision:
        found.append(unchecked(request.facts))
    return tuple(found)
