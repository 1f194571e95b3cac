"""The rules of LiteLLM's entries: the served name, the way to the Service, prices, aliases."""

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import find, items, scalar, value
from manifests.groups import is_partial
from manifests.pieces import Entry, Layout, Located, Pieces, environment, kustomization, labels, model_list, objects
from manifests.rules.finding import Finding, at
from manifests.tree import Tree
from manifests.wording import stem

_EMBEDDING = re.compile(r"embed|\b(bge|gte|e5|minilm)-", re.IGNORECASE)


def check(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """What is wrong between one endpoint and its entry."""
    entry, service = pieces.entry, pieces.service
    if entry is None:
        message = f"{layout.litellm_values} has no alias for {pieces.name}: tenants cannot reach it"
        yield at("endpoint-without-alias", pieces.deployment, None, message, "add an entry to model_list")
        return
    yield from _served_name(pieces, entry)
    # Another host may be a gateway that routes on the served name: its address is not the Service's, and need not be.
    if service is not None and not entry.through_gateway(pieces.name, layout.namespace):
        yield from _address(layout, pieces, entry, service)
        yield from _namespace(tree, layout, pieces, entry, service)
        yield from _key(pieces, entry)


def _served_name(pieces: Pieces, entry: Entry) -> Iterator[Finding]:
    asked, node = entry.model.partition("/")[2], find(entry.node, "litellm_params", "model")
    served = pieces.flag("--served-model-name")
    own = stem(pieces.model.value)
    if pieces.model.name == "--model-id":
        # TEI answers to any name. One of the same family that is another model, though, misleads whoever reads it.
        known = {own.lower(), pieces.model.value.lower(), pieces.name, entry.alias}
        if asked.lower() not in known and asked.lower().partition("-")[0] == own.lower().partition("-")[0]:
            message = f"LiteLLM names {entry.model}, and the engine serves {pieces.model.value}"
            yield at("served-name", entry, node, message, f"model: {entry.model.partition('/')[0]}/{own}")
        return
    # Without the argument, vLLM answers to the model's id.
    wanted = served.value if served else pieces.model.value
    if asked == wanted:
        return
    if served is not None and asked == own.lower() != wanted:
        message = f"the engine answers to {wanted}, and both its model and LiteLLM say {asked}"
        yield at("served-name", pieces.deployment, served.value_node, message, f"--served-model-name={asked}")
    else:
        message = f"LiteLLM asks for {entry.model}, and the engine answers to {wanted}"
        yield at("served-name", entry, node, message, f"model: {entry.model.partition('/')[0] or 'openai'}/{wanted}")


def _address(layout: Layout, pieces: Pieces, entry: Entry, service: Located) -> Iterator[Finding]:
    base = find(entry.node, "litellm_params", "api_base")
    host = value(service.node, "metadata", "name")
    if not entry.reaches(host, layout.namespace):
        if entry.reaches(pieces.name, layout.namespace):
            message = f"the Service is named {host}, and LiteLLM asks for {pieces.name}"
            name = find(service.node, "metadata", "name")
            yield at("api-base-host", service, name, message, f"name: {pieces.name}")
        else:
            fix = f"http://{host}.{layout.namespace}.svc.cluster.local"
            yield at("api-base-host", entry, base, f"api_base {entry.api_base} is not the Service {host}", fix)
    nodes = [node for each in items(find(service.node, "spec", "ports")) if (node := scalar(each, "port"))]
    ports = {str(node.value) for node in nodes}
    port = _port(entry.api_base)
    if port in ports or not ports:
        return
    if port in {value(each, "containerPort") for each in items(find(pieces.container, "ports"))}:
        message = f"the Service has port {', '.join(sorted(ports))}, and LiteLLM and the engine use {port}"
        yield at("api-base-port", service, nodes[0], message, f"port: {port}")
    else:
        message = f"api_base asks port {port}, and the Service has {', '.join(sorted(ports))}"
        yield at("api-base-port", entry, base, message, f"port {min(ports)}")


def _namespace(tree: Tree, layout: Layout, pieces: Pieces, entry: Entry, service: Located) -> Iterator[Finding]:
    """kustomize's namespace wins over the object's own; where neither says one, the Application does."""
    listing, app = kustomization(tree, pieces), pieces.application
    said = [
        (listing, scalar(listing.node, "namespace") if listing else None),
        (service, scalar(service.node, "metadata", "namespace")),
        (app, scalar(app.node, "spec", "destination", "namespace") if app else None),
    ]
    where, node = next(((where, node) for where, node in said if where and node is not None), (None, None))
    asked = entry.host[1] if len(entry.host) > 1 else layout.namespace
    if where is None or node is None or node.value == asked or not entry.reaches(entry.host[0], layout.namespace):
        return
    message = f"the Service is put into {node.value}, and LiteLLM asks for it in {asked}"
    yield at("namespace", where, node, message, f"namespace: {asked}")


def _key(pieces: Pieces, entry: Entry) -> Iterator[Finding]:
    """vLLM refuses calls without the key that it was given."""
    wants = "VLLM_API_KEY" in environment(pieces.container) or pieces.flag("--api-key")
    given = labels(find(entry.node, "litellm_params"))
    if wants and not (given.get("api_key") or given.get("litellm_credential_name")):
        message = f"{entry.alias} has no api_key, and the engine refuses calls without one"
        params = find(entry.node, "litellm_params")
        yield at("api-key-missing", entry, find(params, "api_key") or params, message, "api_key: os.environ/…")


def check_aliases(tree: Tree, layout: Layout, only: tuple[Pieces, ...] | None) -> list[Finding]:
    """What is wrong in the list of aliases itself: of all entries, or of those that belong to some endpoints."""
    entries = model_list(tree, layout)
    mine = None if only is None else {each.entry.alias for each in only if each.entry}
    count = Counter(each.alias for each in entries)
    services, partial = _services(tree, layout), is_partial(tree, layout)
    found: list[Finding] = []
    for each in entries:
        if mine is not None and each.alias not in mine:
            continue
        found += _prices(each)
        if count[each.alias] > 1:
            message = f"the alias {each.alias} is given {count[each.alias]} times"
            found.append(at("alias-duplicate", each, find(each.node, "model_name"), message, "keep one of them"))
        host = each.host
        if host[1:2] == [layout.namespace] and host[0] not in services:
            # In a part of a repository, what other files speak of is taken for a thing that was left out.
            if partial and _is_named_elsewhere(tree, layout, host[0]):
                continue
            if _is_made_elsewhere(tree, host[0]):
                continue
            message = f"the alias {each.alias} leads to {host[0]}, and {layout.serving_dir} has no such Service"
            base, fix = (
                find(each.node, "litellm_params", "api_base"),
                "name a Service that is there, or remove the alias",
            )
            found.append(at("alias-without-endpoint", each, base, message, fix))
    return found


def _prices(entry: Entry) -> Iterator[Finding]:
    """LiteLLM knows no price for a model behind an address of one's own."""
    if not entry.api_base:
        return
    embeds = value(entry.node, "model_info", "mode") == "embedding" or _EMBEDDING.search(f"{entry.alias} {entry.model}")
    for key in ("input_cost_per_token", "output_cost_per_token"):
        node = scalar(entry.node, "litellm_params", key)
        if node is not None:
            yield from _price(entry, key, node, may_be_zero=bool(embeds) and key.startswith("output"))
        elif not embeds or key.startswith("input"):
            message = f"{entry.alias} has no {key}: its calls cost nothing and budgets never bind"
            yield at("cost-missing", entry, find(entry.node, "litellm_params"), message, f"{key}: 0.0000005")


def _price(entry: Entry, key: str, node: ScalarNode, *, may_be_zero: bool) -> Iterator[Finding]:
    if node.style or not re.fullmatch(r"\d+\.\d*([eE][-+]\d+)?|\.\d+([eE][-+]\d+)?|\d+", node.value):
        # YAML 1.1 takes 5e-07 (no dot) for a string, as it does anything in quotes.
        message = f"{key} {node.value or 'without a value'} of {entry.alias} is not a number to every YAML reader"
        yield at("cost-not-a-number", entry, node, message, "write it out, like 0.0000005")
    elif float(node.value) == 0 and not may_be_zero:
        yield at("cost-zero", entry, node, f"{key} of {entry.alias} is zero: budgets never bind", f"{key}: 0.0000005")


def _services(tree: Tree, layout: Layout) -> set[str]:
    """The names of all Services below the serving directory, inside the contract or not."""
    every = (each for path in tree.files(layout.serving_dir) for each in objects(tree, path))
    return {value(located.node, "metadata", "name") for kind, located in every if kind == "Service"}


def _is_named_elsewhere(tree: Tree, layout: Layout, name: str) -> bool:
    whole = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
    return any(path != layout.litellm_values and whole.search(tree.read(path) or "") for path in tree.grep(name))


def _is_made_elsewhere(tree: Tree, name: str) -> bool:
    """Whether something outside of the serving directory answers to the name, like a gateway in the same namespace."""
    return any(
        kind in ("Service", "Gateway", "InferenceService") and value(located.node, "metadata", "name") == name
        for path in tree.grep(name)
        for kind, located in objects(tree, path)
    )


def _port(url: str) -> str:
    try:
        parts = urlsplit(url)
        return str(parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError:
        return "?"
