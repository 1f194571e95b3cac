"""The rules of the model contract: what must agree between the pieces, one function a piece.

No CI of a platform notices most of these, and each of them is an outage, an endless bill or a free lunch.
"""

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import BaseModel
from ruamel.yaml.nodes import Node

from manifests import catalog
from manifests.edit import find, items, line, scalar, value
from manifests.pieces import Entry, Layout, Located, Pieces, labels, locate, model_list, names, objects, require
from manifests.tree import Tree

_FORMATS = ("awq", "gptq", "fp8")


class Finding(BaseModel, frozen=True):
    """One disagreement: where it stands (lines are counted from 1), what is wrong, and what to write instead."""

    path: str
    line: int
    message: str
    fix: str


def check(tree: Tree, layout: Layout, name: str | None = None) -> tuple[Finding, ...]:
    """Every disagreement between the pieces of one endpoint, or of all, by file and line.

    With a `name` that does not exist, or lies outside the contract, ManifestError says so.
    """
    if name is not None:
        every: tuple[Pieces, ...] = (require(tree, layout, name),)
    else:
        located = (locate(tree, layout, each) for each in names(tree, layout))
        every = tuple(pieces for pieces in located if pieces is not None)
    found = [finding for pieces in every for finding in _endpoint(tree, layout, pieces)]
    found += _aliases(tree, layout, every if name else None)
    return tuple(sorted(set(found), key=lambda each: (each.path, each.line, each.message)))


def _endpoint(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    gpu = bool(value(pieces.container, "resources", "limits", "nvidia.com/gpu"))
    yield from _deployment(pieces, gpu)
    yield from _engine(pieces)
    yield from _volume(pieces)
    yield from _service(pieces)
    yield from _gateway(layout, pieces)
    yield from _application(layout, pieces, gpu)
    yield from _manual(tree, layout, pieces)
    yield from _skips(tree, layout, pieces)


def _deployment(pieces: Pieces, gpu: bool) -> Iterator[Finding]:
    root = pieces.deployment
    pod = find(root.node, "spec", "template", "metadata", "labels")
    for key, wanted in labels(find(root.node, "spec", "selector", "matchLabels")).items():
        if labels(pod).get(key) != wanted:
            node = find(root.node, "spec", "selector", "matchLabels", key)
            yield _at(
                root, node, f"the selector {key}: {wanted} is no label of the pod", _set(key, labels(pod).get(key))
            )
    replicas, strategy = scalar(root.node, "spec", "replicas"), scalar(root.node, "spec", "strategy", "type")
    if gpu and (replicas is None or replicas.value != "0"):
        where = replicas or find(root.node, "spec")
        yield _at(root, where, "a GPU model must rest at zero replicas, or every sync starts the bill", "replicas: 0")
    if gpu and (strategy is None or strategy.value != "Recreate"):
        where = strategy or find(root.node, "spec")
        yield _at(root, where, "a rolling update waits for a second GPU for ever", "strategy.type: Recreate")
    for image in _images(root.node):
        if not re.search(r"@sha256:[0-9a-f]{64}$", value(image)):
            yield _at(root, image, f"the image {value(image)} is not pinned by digest", "append @sha256:… of this tag")


def _engine(pieces: Pieces) -> Iterator[Finding]:
    root, model = pieces.deployment, pieces.model
    for node in pieces.staging:
        for staged in re.findall(r"[\"']([A-Za-z0-9][\w.-]*/[\w.-]+)[\"']", node.value):
            if staged != model.value:
                at = line(node) + (node.value.split(staged)[0].count("\n") + (1 if node.style in ("|", ">") else 0))
                message = f"the initContainer stages {staged}, and the engine serves {model.value}"
                yield Finding(path=root.document.path, line=at, message=message, fix=f"stage {model.value}")
    if model.name != "--model":
        return
    quantization = pieces.flag("--quantization")
    named = next((each for each in _FORMATS if each in model.value.lower()), None)
    given = next((each for each in _FORMATS if quantization and each in quantization.value), None)
    if quantization and named != given and (named or given in ("awq", "gptq")):
        message = f"--quantization={quantization.value}, and {model.value} is {named or 'not quantized'}"
        yield _at(root, quantization.node, message, "remove the argument" if not named else f"name {named}")
    env = {value(each, "name"): each for each in items(find(pieces.container, "env"))}
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if variable not in env:
            where = find(pieces.container, "env") or pieces.container
            yield _at(root, where, f"{variable} is missing: the engine would reach for the Hub", f'{variable}: "1"')
        elif value(env[variable], "value") != "1":
            yield _at(root, find(env[variable], "value"), f"{variable} is not on", 'value: "1"')


def _volume(pieces: Pieces) -> Iterator[Finding]:
    if pieces.pvc is not None:
        return
    root = pieces.deployment
    for volume in items(find(root.node, "spec", "template", "spec", "volumes")):
        claim = scalar(volume, "persistentVolumeClaim", "claimName")
        if claim is not None:
            message = f"no PersistentVolumeClaim in serving/{pieces.name} is named {claim.value}"
            yield _at(root, claim, message, "name the claim of pvc.yaml")


def _service(pieces: Pieces) -> Iterator[Finding]:
    root, service = pieces.deployment, pieces.service
    if service is None:
        yield _at(root, root.node, f"{pieces.name} has no Service", "add service.yaml")
        return
    pod = labels(find(root.node, "spec", "template", "metadata", "labels"))
    for key, wanted in labels(find(service.node, "spec", "selector")).items():
        if pod.get(key) != wanted:
            node = find(service.node, "spec", "selector", key)
            yield _at(service, node, f"the selector {key}: {wanted} is no label of the pod", _set(key, pod.get(key)))


def _gateway(layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    entry, service = pieces.entry, pieces.service
    if entry is None:
        message = f"{layout.litellm_values} has no alias for {pieces.name}: tenants cannot reach it"
        yield _at(pieces.deployment, pieces.deployment.node, message, "add an entry to model_list")
        return
    served = pieces.flag("--served-model-name")
    if served is not None and entry.model.partition("/")[2] != served.value:
        node = find(entry.node, "litellm_params", "model")
        message = f"LiteLLM asks for {entry.model}, and the engine answers to {served.value}"
        yield _in(entry, node, message, f"model: {entry.model.partition('/')[0]}/{served.value}")
    base = find(entry.node, "litellm_params", "api_base")
    if service is not None:
        host = value(service.node, "metadata", "name")
        if not entry.reaches(host, layout.namespace):
            fix = f"http://{host}.{layout.namespace}.svc.cluster.local"
            yield _in(entry, base, f"api_base {entry.api_base} is not the Service {host}", fix)
        ports = {value(each, "port") for each in items(find(service.node, "spec", "ports"))}
        port = _port(entry.api_base)
        if port not in ports:
            message = f"api_base asks port {port}, and the Service has {', '.join(sorted(ports))}"
            yield _in(entry, base, message, f"port {min(ports, default='')}")
    embeds = pieces.model.name == "--model-id"
    for key in ("input_cost_per_token",) if embeds else ("input_cost_per_token", "output_cost_per_token"):
        yield from _price(entry, key)


def _price(entry: Entry, key: str) -> Iterator[Finding]:
    node = scalar(entry.node, "litellm_params", key)
    if node is None:
        message = f"{entry.alias} has no {key}: its calls cost nothing and budgets never bind"
        yield _in(entry, find(entry.node, "litellm_params"), message, f"{key}: 0.0000005")
    elif node.style or not re.fullmatch(r"\d+\.\d*([eE][-+]\d+)?|\.\d+([eE][-+]\d+)?|\d+", node.value):
        # YAML 1.1 takes 5e-07 (no dot) for a string, as it does anything in quotes.
        message = f"{key} {node.value} of {entry.alias} is not a number to every YAML reader"
        yield _in(entry, node, message, "write it out, like 0.0000005")
    elif float(node.value) == 0:
        yield _in(entry, node, f"{key} of {entry.alias} is zero: budgets never bind", f"{key}: 0.0000005")


def _application(layout: Layout, pieces: Pieces, gpu: bool) -> Iterator[Finding]:
    app = pieces.application
    if app is None:
        message = f"no Application in {layout.path(layout.catalog_dir)} deploys {layout.home(pieces.name)}"
        yield _at(pieces.deployment, pieces.deployment.node, message, "add one to the catalog")
        return
    if value(app.node, "metadata", "name") != pieces.name:
        yield _at(app, find(app.node, "metadata", "name"), "the Application has another name", f"name: {pieces.name}")
    path = scalar(app.node, "spec", "source", "path")
    if path is None or path.value.rstrip("/") != layout.home(pieces.name):
        message = f"the Application deploys {path.value if path else 'nothing'}"
        yield _at(app, path or find(app.node, "spec"), message, f"path: {layout.home(pieces.name)}")
    if not gpu:
        return
    deployment = value(pieces.deployment.node, "metadata", "name")
    ignored = items(find(app.node, "spec", "ignoreDifferences"))
    for each in ignored:
        if value(each, "kind") == "Deployment" and value(each, "name") not in ("", deployment):
            message = f"ignoreDifferences names {value(each, 'name')}, so scaling {deployment} is drift"
            yield _at(app, find(each, "name"), message, f"name: {deployment}")
    if not any("/spec/replicas" in (value(p) for p in items(find(each, "jsonPointers"))) for each in ignored):
        where = find(app.node, "spec", "ignoreDifferences") or find(app.node, "spec")
        yield _at(app, where, "differences in /spec/replicas are not ignored", "ignore them for this Deployment")
    automated = find(app.node, "spec", "syncPolicy", "automated")
    if automated is not None:
        yield _at(app, automated, "a GPU model must not sync by itself: that is the cost gate", "remove automated")
    options = find(app.node, "spec", "syncPolicy", "syncOptions")
    if "RespectIgnoreDifferences=true" not in (value(each) for each in items(options)):
        message = "RespectIgnoreDifferences=true is missing: a sync would scale the model to zero"
        yield _at(app, options or find(app.node, "spec"), message, "add it to syncOptions")


def _manual(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    words = catalog.manual_apps(tree, layout)
    if words is None or pieces.application is None:
        return
    at, listed = words
    manual = find(pieces.application.node, "spec", "syncPolicy", "automated") is None
    if manual and pieces.name not in listed:
        message = f"manual_apps lacks {pieces.name}: waiting for it never ends"
        yield Finding(path=layout.wait_script, line=at, message=message, fix=f"add {pieces.name}")
    if not manual and pieces.name in listed:
        message = f"manual_apps names {pieces.name}, which syncs by itself: nobody waits for it"
        yield Finding(path=layout.wait_script, line=at, message=message, fix=f"remove {pieces.name}")


def _skips(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """An exception for a security scanner that the template needed, a copy of it needs as well."""
    template = locate(tree, layout, layout.template)
    if template is None or template.model.name != pieces.model.name:
        return
    root, own = pieces.deployment, find(pieces.deployment.node, "metadata", "annotations")
    given = " ".join(labels(own).values())
    for key, reason in labels(find(template.deployment.node, "metadata", "annotations")).items():
        rule = reason.partition("=")[0]
        if key.startswith("checkov.io/skip") and rule not in given:
            where = own or find(root.node, "metadata")
            yield _at(root, where, f"the exception {rule} of {layout.template} is lost", f"{key}: {reason}")


def _aliases(tree: Tree, layout: Layout, only: tuple[Pieces, ...] | None) -> list[Finding]:
    entries = model_list(tree, layout)
    mine = None if only is None else {each.entry.alias for each in only if each.entry}
    count = Counter(each.alias for each in entries)
    services = _services(tree, layout)
    found = []
    for each in entries:
        if mine is not None and each.alias not in mine:
            continue
        if count[each.alias] > 1:
            message = f"the alias {each.alias} is given {count[each.alias]} times"
            found.append(_in(each, find(each.node, "model_name"), message, "keep one of them"))
        host = (urlsplit(each.api_base).hostname or "").split(".")
        if host[1:2] == [layout.namespace] and host[0] not in services:
            message = f"the alias {each.alias} leads to {host[0]}, and {layout.serving_dir} has no such Service"
            base = find(each.node, "litellm_params", "api_base")
            found.append(_in(each, base, message, "name a Service that is there, or remove the alias"))
    return found


def _services(tree: Tree, layout: Layout) -> set[str]:
    """The names of all Services below the serving directory, inside the contract or not."""
    every = (each for path in tree.files(layout.serving_dir) for each in objects(tree, path))
    return {value(located.node, "metadata", "name") for kind, located in every if kind == "Service"}


def _images(deployment: Node) -> Iterator[Node]:
    pod = find(deployment, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        image = scalar(container, "image")
        if image is not None:
            yield image


def _port(url: str) -> str:
    try:
        parts = urlsplit(url)
        return str(parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError:
        return "?"


def _set(key: str, wanted: str | None) -> str:
    return f"{key}: {wanted}" if wanted else f"give the pod the label {key}"


def _at(located: Located, node: Node | None, message: str, fix: str) -> Finding:
    return Finding(path=located.document.path, line=line(node), message=message, fix=fix)


def _in(entry: Entry, node: Node | None, message: str, fix: str) -> Finding:
    return Finding(path=entry.document.path, line=line(node or entry.node), message=message, fix=fix)
