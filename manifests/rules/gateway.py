"""The rules of LiteLLM's entries: served name, address, prices, aliases."""

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from urllib.parse import SplitResult, urlsplit

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import find, items, line, scalar, value
from manifests.gateway import ENVIRON, Direction, Entry, includes, is_known, known_names, references
from manifests.groups import is_partial
from manifests.layout import Layout
from manifests.model_names import HF_ID
from manifests.objects import of_kind
from manifests.pieces import Located, Pieces, kustomization, objects
from manifests.platform import Platform
from manifests.rules import entries as entry_rules
from manifests.rules.finding import Finding, at
from manifests.rules.norms import has_aliases, is_made_elsewhere
from manifests.tree import Tree
from manifests.wording import stem

_EMBEDDING = re.compile(r"embed|rerank|\b(bge|gte|e5|minilm)-", re.IGNORECASE)
_PLAUSIBLE = 0.001
"""Dollars per token above which a price is probably meant per thousand or million tokens; the highest prices are 0.0006."""

_ONE_OF = "name a Service that exists, or remove the alias"


def check(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems between one endpoint and its entries."""
    layout = platform.layout
    lists = platform.model_lists()
    if not pieces.entries:
        if not lists and platform.read(layout.litellm_values) is None:
            return  # the repository has no gateway
        if not has_aliases(platform, pieces, siblings):
            return
        path = lists[0].document.path if lists else layout.litellm_values
        message = f"{path} has no alias for {pieces.name}: tenants cannot reach it"
        yield at("endpoint-without-alias", pieces.deployment, None, message, "add an entry to model_list")
        return
    for entry in pieces.entries:
        yield from entry_rules.check(pieces, entry)
        yield from _served_name(pieces, entry)
        if entry.is_unresolved:
            base = entry.base_node or find(entry.node, "litellm_params", "litellm_credential_name")
            address = entry.api_base or f"the credential {value(base)}"
            message = f"{address} is not set in {entry.document.path}, so the address of {entry.alias} is not checked"
            yield at("not-checked", entry, base, message, "compare it with the Service by hand")
        # If the host is another gateway that routes by served name, the address is not the address of the Service.
        elif pieces.service is not None and not entry.through_gateway(pieces.name, pieces.namespace):
            yield from _address(pieces, entry, pieces.service)
            yield from _namespace(platform, pieces, entry, pieces.service)
            yield from _key(pieces, entry)


def _served_name(pieces: Pieces, entry: Entry) -> Iterator[Finding]:
    requested, node = entry.requested_model, find(entry.node, "litellm_params", "model")
    if entry.model.startswith(ENVIRON):
        message = (
            f"{entry.model} is not set in {entry.document.path}, so the served name of {entry.alias} is not checked"
        )
        yield at("not-checked", entry, node, message, "compare it with the engine's by hand")
        return
    model_stem = stem(pieces.model.value)
    if not pieces.served_names:
        # TEI answers to any name, but the name of another model of the same family misleads readers.
        accepted = {model_stem.lower(), pieces.model.value.lower(), pieces.name, entry.alias}
        if (
            requested.lower() not in accepted
            and requested.lower().partition("-")[0] == model_stem.lower().partition("-")[0]
        ):
            message = f"LiteLLM names {entry.model}, but the engine serves {pieces.model.value}"
            comments = " ".join(comment.text for comment in pieces.deployment.document.comments()).lower()
            if requested.lower() in comments and model_stem.lower() not in comments:
                fix = f"{pieces.model.name}=…/{requested}"
                yield at(
                    "served-name", pieces.deployment, pieces.model.value_node, f"{message}, unlike its comments", fix
                )
            else:
                yield at("served-name", entry, node, message, f"model: {entry.model.partition('/')[0]}/{model_stem}")
        return
    if requested in pieces.served_names:
        return
    if HF_ID.fullmatch(requested) and any(
        other_entry.requested_model in pieces.served_names for other_entry in pieces.entries
    ):
        return  # the alias is for another model that may be swapped in later
    expected, served = pieces.served_names[0], pieces.served
    names = " and ".join(pieces.served_names)
    if served is not None and requested == model_stem.lower() != expected and served.carrier == "list":
        message = f"the engine answers to {names}, but both its model and LiteLLM name {requested}"
        yield at("served-name", pieces.deployment, served.value_node, message, f"{served.name}={requested}")
    else:
        message = f"LiteLLM requests {entry.model}, but the engine answers to {names}"
        yield at("served-name", entry, node, message, f"model: {entry.model.partition('/')[0] or 'openai'}/{expected}")


def _address(pieces: Pieces, entry: Entry, service: Located) -> Iterator[Finding]:
    base, host = entry.base_node, pieces.host
    namespace = pieces.namespace
    nodes = [node for item in items(find(service.node, "spec", "ports")) if (node := scalar(item, "port"))]
    ports = {str(node.value) for node in nodes}
    right = f"http://{host}.{namespace}.svc.cluster.local:{min(ports, default='8000')}/v1"
    if not entry.reaches(host, pieces.namespace):
        if entry.reaches(pieces.name, pieces.namespace) and host != pieces.rendering.name(pieces.name):
            message = f"the Service is named {host}, but LiteLLM calls {pieces.name}"
            name = find(service.node, "metadata", "name")
            yield at("api-base-host", service, name, message, f"name: {pieces.name}")
        else:
            yield at("api-base-host", entry, base, f"api_base {entry.api_base} is not the Service {host}", right)
    port = _port(entry.api_base)
    if ports and port not in ports:
        if port in {value(item, "containerPort") for item in items(find(pieces.container, "ports"))}:
            message = f"the Service has port {', '.join(sorted(ports))}, but LiteLLM and the engine use {port}"
            yield at("api-base-port", service, nodes[0], message, f"port: {port}")
            if "80" in ports:  # the usual port of a Service, so the address may be wrong
                yield at("api-base-port", entry, base, message, "port 80")
        else:
            message = f"api_base uses port {port}, but the Service has {', '.join(sorted(ports))}"
            yield at("api-base-port", entry, base, message, f"port {min(ports)}")
            if port == str(pieces.runtime.image_port):  # the Service should have the usual port
                yield at("api-base-port", service, nodes[0], message, f"port: {port}")
    parts = _parts(entry.api_base)
    if parts is None:
        return
    if parts.scheme == "https":
        message = f"api_base {entry.api_base} uses TLS, which the engine does not support"
        yield at("api-base-scheme", entry, base, message, right)
    path = parts.path.rstrip("/")
    if entry.provider == "huggingface" and pieces.runtime.reranks_as == "huggingface" and path not in ("", "/rerank"):
        message = f"api_base ends in {parts.path}, but {pieces.engine} ranks at {pieces.runtime.reranks_at}"
        yield at("api-base-path", entry, base, message, right.removesuffix("/v1"))
    if (
        entry.model.startswith(("openai/", "hosted_vllm/", "text-completion-openai/"))
        and parts.path.rstrip("/") != "/v1"
    ):
        message = f"the path of api_base is {parts.path or 'empty'}, but LiteLLM appends the rest of the path to /v1"
        yield at("api-base-path", entry, base, message, right)


def _namespace(platform: Platform, pieces: Pieces, entry: Entry, service: Located) -> Iterator[Finding]:
    """Check the Service's namespace, which its kustomization, the object or the Application sets, in this order."""
    listing, app = kustomization(platform, pieces), pieces.application
    namespaces = [
        (listing, scalar(listing.node, "namespace") if listing else None),
        (service, scalar(service.node, "metadata", "namespace")),
        (app, scalar(app.node, "spec", "destination", "namespace") if app else None),
    ]
    located, node = next(
        ((located, node) for located, node in namespaces if located and node is not None), (None, None)
    )
    expected = entry.host[1] if len(entry.host) > 1 else pieces.namespace
    if located is None or node is None or expected in (node.value, pieces.rendering.namespace):
        return
    if entry.reaches(entry.host[0], platform.layout.namespace):
        message = f"the Service is created in {node.value}, but LiteLLM expects it in {expected}"
        yield at("namespace", located, node, message, f"namespace: {expected}")


def _key(pieces: Pieces, entry: Entry) -> Iterator[Finding]:
    """Check that LiteLLM sends a key to an engine that requires one."""
    params = find(entry.node, "litellm_params")
    key = value(params, "api_key") or value(params, "litellm_credential_name")
    if pieces.requires_key and not key:
        message = f"{entry.alias} has no api_key, but the engine refuses calls without one"
        yield at("api-key-missing", entry, find(params, "api_key") or params, message, "api_key: os.environ/…")


def check_aliases(platform: Platform, endpoints: Collection[Pieces], only: Collection[Pieces] | None) -> list[Finding]:
    """Return problems in the list of aliases: in all entries, or in the entries that belong to the endpoints in `only`."""
    layout = platform.layout
    listed = platform.entries()
    only_aliases = None if only is None else {entry.alias for pieces in only for entry in pieces.entries}
    services, partial = _services(platform, endpoints), is_partial(platform)
    findings = [
        finding
        for model_list in platform.model_lists()
        for finding in entry_rules.check_list(layout, model_list, only_aliases)
    ]
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in listed:
        groups[entry.alias].append(entry)
    for entry in listed:
        if only_aliases is not None and entry.alias not in only_aliases:
            continue
        findings += _prices(entry, [other_entry for other_entry in listed if other_entry is not entry])
        findings += _secret(entry)
        findings += _duplicate(layout, groups[entry.alias], entry)
        host = entry.host
        if similar := _misspelled(entry, endpoints):
            message = f"the alias {entry.alias} leads to {host[0]}, but there is no Service of this name"
            findings.append(at("alias-without-endpoint", entry, entry.base_node, message, f"the Service {similar}"))
        elif host[1:2] == [layout.namespace] and host[0] not in services:
            # If the checkout is a part of a repository, assume that names in other files refer to missing files.
            if partial and _is_named_elsewhere(platform, entry, host[0]):
                continue
            if is_made_elsewhere(platform, host[0]):
                continue
            place = layout.serving_dir if platform.files(layout.serving_dir) else "the repository"
            message = f"the alias {entry.alias} leads to {host[0]}, but {place} has no such Service"
            findings.append(at("alias-without-endpoint", entry, entry.base_node, message, _ONE_OF))
    return findings if only is not None else [*findings, *_settings(platform)]


def _misspelled(entry: Entry, endpoints: Collection[Pieces]) -> str:
    """Return the Service in the same namespace whose name is close to the host in the entry's address; "" if there is none."""
    if any(
        entry.reaches(host, endpoint.namespace)
        for endpoint in endpoints
        for host in (endpoint.host, *endpoint.candidate.hosts)
    ):
        return ""
    hosts = [
        endpoint.host
        for endpoint in endpoints
        if entry.host[1:2] in ([], [endpoint.namespace]) and not endpoint.entries
    ]
    return next(iter(difflib.get_close_matches(entry.host[0], hosts, 1, 0.85)), "")


def _settings(platform: Platform) -> Iterator[Finding]:
    """Report fallbacks and similar settings with unknown names, and included files that cannot be read."""
    lists = platform.model_lists()
    names = known_names(lists)
    for reference in references(lists):
        if not is_known(reference.name, names):
            message = f"{reference.setting} names {reference.name}, but LiteLLM has no such alias"
            fix = "write an alias of model_list, or remove it"
            yield Finding(
                rule="alias-unknown", path=reference.document.path, line=line(reference.node), message=message, fix=fix
            )
    for document, node, path in includes(platform):
        if not path:
            message = f"{node.value} is included but is not in the repository: its aliases are not checked"
            fix = "put it beside this file, or compare it by hand"
            yield Finding(rule="not-checked", path=document.path, line=line(node), message=message, fix=fix)


def _duplicate(layout: Layout, group: list[Entry], entry: Entry) -> Iterator[Finding]:
    """Report two equal entries of one alias, or two with different models and without `order` or `weight`."""
    other_entries = [other_entry for other_entry in group if other_entry is not entry]
    name = find(entry.node, "model_name")
    for other_entry in other_entries:
        if (other_entry.model, other_entry.api_base) == (entry.model, entry.api_base) and not (
            entry.is_load_balanced or other_entry.is_load_balanced
        ):
            message = f"the alias {entry.alias} appears {len(group)} times for the same model at the same address"
            yield at("alias-duplicate", entry, name, message, "keep one of them")
            return
        local = entry.host[1:2] == other_entry.host[1:2] == [layout.namespace]
        intended = (
            entry.is_load_balanced
            or other_entry.is_load_balanced
            or entry.host[0] == entry.alias != other_entry.host[0]
        )
        if local and entry.requested_model != other_entry.requested_model and not intended:
            message = f"the alias {entry.alias} leads to {entry.requested_model} and to {other_entry.requested_model}: callers get one or the other"
            yield at("alias-duplicate", entry, name, message, "keep one of them, or set order or weight")
            return


def _prices(entry: Entry, other_entries: Sequence[Entry]) -> Iterator[Finding]:
    """Check the prices of an entry. LiteLLM has no price for a model at a custom address, unless the entry sets `base_model`."""
    if not entry.api_base or value(entry.node, "model_info", "base_model") or "*" in entry.alias:
        return
    embeds = value(entry.node, "model_info", "mode") in ("embedding", "rerank") or _EMBEDDING.search(
        f"{entry.alias} {entry.model}"
    )
    directions: tuple[Direction, ...] = ("input", "output")
    prices = {direction: entry.price(direction) for direction in directions}
    other_unit = any(price is not None and not price.is_per_token for price in prices.values())
    numbers = [_number(price.node) for price in prices.values() if price is not None]
    intended = len(numbers) > 1 and not any(numbers)
    charged = any(numbers) or any(
        (price := other_entry.price(direction)) is not None and _number(price.node) != 0
        for other_entry in other_entries
        for direction in directions
    )
    for direction, price in prices.items():
        key = f"{direction}_cost_per_token"
        optional = direction == "output" and (embeds or other_unit)
        if price is None and charged and not optional and not (other_unit and direction == "input"):
            message = f"{entry.alias} has no {key}: its calls cost nothing, and budgets have no effect"
            yield at("cost-missing", entry, find(entry.node, "litellm_params"), message, f"{key}: 0.0000005")
        elif price is not None:
            yield from _price(entry, price.key, price.node, zero_is_fine=bool(intended or optional))


def _price(entry: Entry, key: str, node: ScalarNode, *, zero_is_fine: bool) -> Iterator[Finding]:
    if _number(node) is None:
        # YAML 1.1 parses 5e-07, which has no dot, as a string; a number in quotes is also a string.
        message = f"{key} {node.value or 'without a value'} of {entry.alias} is not a number in every YAML parser"
        yield at("cost-not-a-number", entry, node, message, "write it out, like 0.0000005")
    elif float(node.value) == 0 and not zero_is_fine:
        yield at(
            "cost-zero", entry, node, f"{key} of {entry.alias} is zero: budgets have no effect", f"{key}: 0.0000005"
        )
    elif key.endswith("_per_token") and float(node.value) >= _PLAUSIBLE:
        million = float(node.value) * 10**6
        message = f"{key} {node.value} of {entry.alias} is ${million:g} per million tokens"
        yield at("cost-implausible", entry, node, message, f"{key}: {float(node.value) / 10**6:.9f}".rstrip("0"))


def _number(node: ScalarNode) -> float | None:
    if node.style or not re.fullmatch(r"\d+\.\d*([eE][-+]\d+)?|\.\d+([eE][-+]\d+)?|\d+", node.value):
        return None
    return float(node.value)


def _secret(entry: Entry) -> Iterator[Finding]:
    """Report an API key in plain text."""
    node = scalar(entry.node, "litellm_params", "api_key")
    if node is None or node.value.startswith(("os.environ/", "$", "{{")) or not is_secret(node.value):
        return
    message = f"the api_key of {entry.alias} is in plain text: everybody who can read the repository has it"
    yield at("secret-in-git", entry, node, message, "api_key: os.environ/…, from a Secret; revoke this key")


def is_secret(text: str) -> bool:
    """Return whether a text looks like a key of a well-known vendor."""
    return (
        re.match(
            r"(sk-(?!none|no-key|fake|dummy|xxx|1234$)|hf_(?!token|secret|key)|xox[abp]-|gh[pousr]_|AKIA|glpat-|AIza)[\w-]{4,}",
            text,
        )
        is not None
    )


def _services(platform: Platform, endpoints: Collection[Pieces]) -> set[str]:
    """Return the names of all Services below the serving directory, whether or not they follow the contract."""
    every = (located for path in platform.files(platform.layout.serving_dir) for located in objects(platform, path))
    names = {value(located.node, "metadata", "name") for kind, located in every if kind == "Service"}
    if not platform.files(platform.layout.serving_dir):
        names |= {value(located.node, "metadata", "name") for located in of_kind(platform, "Service")}
    return names | {
        host
        for endpoint in endpoints
        if endpoint.service is not None or not endpoint.is_plain
        for host in (endpoint.host, *endpoint.candidate.hosts)
    }


def _is_named_elsewhere(tree: Tree, entry: Entry, name: str) -> bool:
    whole = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
    return any(path != entry.document.path and whole.search(tree.read(path) or "") for path in tree.grep(name))


def _port(url: str) -> str:
    try:
        parts = urlsplit(url)
        return str(parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError:
        return "?"


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
