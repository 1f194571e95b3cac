"""The rules of the engine's container: its GPU, resources, probes, and the secrets that it reads."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ruamel.yaml.nodes import Node, ScalarNode

from manifests import accelerators
from manifests.edit import entries, find, items, scalar, value
from manifests.patches import edited_objects
from manifests.pieces import GPU, Located, Pieces, environment, labels, objects
from manifests.platform import Platform
from manifests.rules.finding import Finding, at
from manifests.rules.pod import tolerates, wrong_part
from manifests.sizing import estimated_weights, quantity_bytes
from manifests.tree import Tree

_ALMOST = 0.85
_OF_THE_VENDOR = re.compile(r"device-plugin|gpu-operator|dcgm-exporter|gpu-feature-discovery|node-feature-discovery")
"""Names of the GPU vendor's own daemons, which tolerate the taint even if no node has it."""
_LEAST_START = 120
"""Minimum seconds until a GPU model answers: the engine loads weights and captures graphs first."""


def check(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems in the engine's container. `siblings` are the other endpoints."""
    yield from _gpu(pieces)
    yield from _resources(pieces)
    yield from _probes(pieces)
    yield from _scheduling(platform, pieces, [sibling for sibling in siblings if sibling.gpu])
    yield from _images(pieces, siblings)
    yield from _secrets(platform, pieces, siblings)
    yield from _misread(pieces, siblings)


def _gpu(pieces: Pieces) -> Iterator[Finding]:
    """Check that the GPU limit matches the engine's parallelism, and that the request is equal to the limit."""
    root, resources = pieces.deployment, find(pieces.container, "resources")
    for part in ("limits", "requests"):
        for key, _ in entries(find(resources, part)):
            if key.value != GPU and difflib.get_close_matches(key.value.lower(), [GPU], 1, 0.9):
                yield at("gpu-limit", root, key, f"no node has {key.value}", f"{GPU}:")
    limit, request = scalar(resources, "limits", GPU), scalar(resources, "requests", GPU)
    if limit is not None and not limit.value.isdecimal():
        yield at("gpu-limit", root, limit, f"{GPU}: {limit.value} is not a whole number", f"{GPU}: 1")
    if limit is None:
        if request is not None and request.value != "0":
            message = f"{GPU} is requested and not limited: Kubernetes refuses the pod"
            yield at("gpu-limit", root, request, message, f"limits: {GPU}: {request.value}")
        return
    if request is not None and request.value != limit.value:
        message = f"{GPU} is requested {request.value} times and limited to {limit.value}: Kubernetes refuses the pod"
        yield at("gpu-limit", root, request, message, f"{GPU}: {limit.value}")
    flags = (
        pieces.flag("--tensor-parallel-size"),
        pieces.flag("--pipeline-parallel-size"),
        pieces.flag("--data-parallel-size"),
    )
    gpus = 1
    for flag in flags:
        gpus *= int(flag.value) if flag is not None and flag.value.isdecimal() else 1
    if limit.value.isdecimal() and int(limit.value) not in (0, gpus):
        message = f"the engine uses {gpus} GPU{'s' if gpus > 1 else ''}, but its limit is {limit.value}"
        split = next((flag.value_node for flag in flags if flag is not None and gpus > 1), limit)
        yield at("gpu-limit", root, split, message, f"as many GPUs as the engine uses: {GPU}: {gpus}")


def _resources(pieces: Pieces) -> Iterator[Finding]:
    root = pieces.deployment
    pod = find(root.node, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        for key, node in entries(find(container, "resources", "requests")):
            limit = scalar(container, "resources", "limits", str(key.value))
            if key.value == GPU or limit is None or not isinstance(node, ScalarNode):
                continue
            requested, allowed = _amount(node.value), _amount(limit.value)
            if requested is not None and allowed is not None and requested > allowed:
                message = f"{key.value} is requested ({node.value}) above its limit ({limit.value}): Kubernetes refuses the pod"
                yield at("resources", root, node, message, f"{key.value}: {limit.value} at most")
                yield at("resources", root, limit, message, f"{key.value}: {node.value} at least")
    memory, weights = scalar(pieces.container, "resources", "limits", "memory"), estimated_weights(pieces.model.value)
    limit_bytes = _amount(memory.value) if memory is not None else None
    # The size that the model's name gives is correct within 20 %, so only a clear shortage is a finding. A file that is
    # mapped into memory needs less than its size, so the rule applies only if the repository stages the weights.
    staged = any(pieces.model.value in str(node.value) for node in pieces.staging)
    if staged and memory is not None and limit_bytes is not None and weights and limit_bytes < 0.8 * weights:
        message = f"the memory limit {memory.value} is below the weights of {pieces.model.value} (about {weights / 10**9:.0f} GB)"
        yield at("resources", root, memory, message, f"memory: {weights * 1.25 / 2**30:.0f}Gi")


def _amount(text: str) -> float | None:
    if match := re.fullmatch(r"(\d+)m", text):
        return int(match[1]) / 1000
    try:
        return quantity_bytes(text)
    except ValueError:
        return None


def _probes(pieces: Pieces) -> Iterator[Finding]:
    root, engine = pieces.deployment, pieces.container
    ports = items(find(engine, "ports"))
    port_names = {value(port_node, key) for port_node in ports for key in ("name", "containerPort")} - {""}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = find(engine, kind)
        call = next((action for method in ("httpGet", "tcpSocket") if (action := find(probe, method))), None)
        port, path = scalar(call, "port"), scalar(call, "path")
        if port is not None and port_names and port.value not in port_names:
            message = f"{kind} uses port {port.value}, but the container has {', '.join(sorted(port_names))}"
            yield at("probe", root, port, message, f"port: {min(port_names, key=str.isdecimal)}")
        if (
            path is not None
            and pieces.runtime.probes
            and path.value not in pieces.runtime.probes
            and (path.value == "/v1/models") <= pieces.requires_key
        ):
            message = f"{kind} uses {path.value}, which {pieces.engine} does not answer without a key"
            yield at("probe", root, path, message, "path: /health")
        for word in items(find(probe, "exec", "command")):
            match = re.search(r"(?:localhost|127\.0\.0\.1):(\d+)", value(word))
            if match is not None and port_names and match[1] not in port_names:
                message = f"{kind} uses port {match[1]}, but the container has {', '.join(sorted(port_names))}"
                yield at("probe", root, word, message, f"port {min(port_names)}")
        scheme = scalar(call, "scheme")
        if scheme is not None and scheme.value == "HTTPS" and pieces.flag("--ssl-certfile") is None:
            yield at("probe", root, scheme, f"{kind} uses TLS, which the engine does not support", "scheme: HTTP")
    deadline = scalar(root.node, "spec", "progressDeadlineSeconds")
    if pieces.gpu and deadline is not None and deadline.value.isdecimal() and int(deadline.value) < _LEAST_START:
        message = f"the Deployment counts as failed after {deadline.value} s, before the engine can have loaded"
        yield at("probe", root, deadline, message, "progressDeadlineSeconds: 1200")
    startup, liveness = find(engine, "startupProbe"), find(engine, "livenessProbe")
    if pieces.gpu and liveness is not None and startup is None and _patience(liveness) < _LEAST_START:
        message = "there is no startupProbe: the liveness probe kills the engine before it has loaded"
        yield at("probe", root, liveness, message, "add a startupProbe")
    if pieces.gpu and startup is not None and _patience(startup) < _LEAST_START:
        threshold = find(startup, "failureThreshold") or startup
        message = f"the startup probe gives up after {_patience(startup)} s, before the engine can have loaded"
        yield at("probe", root, threshold, message, "failureThreshold: 90")


def _patience(probe: Node) -> int:
    """Return the seconds after which a probe without any success fails, with Kubernetes' defaults."""

    def number(key: str, default: int) -> int:
        text = value(probe, key)
        return int(text) if text.isdecimal() else default

    return number("initialDelaySeconds", 0) + number("periodSeconds", 10) * number("failureThreshold", 3)


def _scheduling(platform: Platform, pieces: Pieces, siblings: list[Pieces]) -> Iterator[Finding]:
    """Check that the pod has the scheduling fields with which the other models run on the GPU node."""
    layout = platform.layout
    if not pieces.gpu:
        return
    root, pod = pieces.deployment, find(pieces.deployment.node, "spec", "template", "spec")
    tolerated = items(find(pod, "tolerations"))
    tainted = any(tolerates(find(sibling.deployment.node, "spec", "template", "spec"), GPU) for sibling in siblings)
    tainted = tainted or any(
        path != root.document.path and not _OF_THE_VENDOR.search(platform.read(path) or "")
        for path in platform.grep(f"key: {GPU}")
        if path.endswith((".yaml", ".yml"))
    )
    # GKE adds the taint to its GPU nodes automatically (its documentation, "About GPUs").
    tainted = tainted or re.search(r"(?i)\bgke\b", platform.read(layout.path(layout.config)) or "") is not None
    other_vendor = any(
        not resource.startswith("nvidia.com/") for resource in _gpu_resources(pieces)
    )  # the GPU of another vendor is on other nodes
    similar = [
        toleration for toleration in tolerated if difflib.get_close_matches(value(toleration, "key"), [GPU], 1, _ALMOST)
    ]
    if (tainted or similar) and not other_vendor and not tolerates(pod, GPU):
        node = wrong_part(tolerated, GPU) or find(pod, "tolerations") or pod
        message = "the pod does not tolerate the taint of GPU nodes: it stays Pending"
        yield at("toleration", root, node, message, f"key: {GPU}, operator: Exists")
    bound = scalar(pod, "nodeName")
    if (
        bound is not None
        and siblings
        and not any(value(sibling.pod, "nodeName") for sibling in siblings if sibling.gpu)
    ):
        message = (
            f"the pod is bound to the node {bound.value}, unlike the other models: it cannot start on another node"
        )
        yield at("toleration", root, bound, message, "remove nodeName")
    chosen = [labels(find(sibling.deployment.node, "spec", "template", "spec", "nodeSelector")) for sibling in siblings]
    selected = labels(find(pod, "nodeSelector"))
    for key, usual in (chosen[0] if chosen else {}).items():
        if all(selector.get(key) == usual for selector in chosen) and len(chosen) > 1 and selected.get(key) != usual:
            node = find(pod, "nodeSelector", key) or find(pod, "nodeSelector") or pod
            message = (
                f"the nodeSelector {key} is {selected.get(key, 'missing')}, and that of the other GPU models is {usual}"
            )
            yield at("toleration", root, node, message, f"{key}: {usual}")


def _gpu_resources(pieces: Pieces) -> list[str]:
    limits = labels(find(pieces.container, "resources", "limits"))
    return [limit for limit in limits if accelerators.is_gpu(limit, pieces.gpu_resources)]


def _images(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report images whose tag or digest differs from the same image in other containers."""
    every = [image for endpoint in (pieces, *siblings) for image in _pinned(endpoint)]
    names = Counter(name for _, name, _, _ in every)
    for node, repository, tag, digest in _pinned(pieces):
        common = [name for name in names if names[name] > names[repository] == 1]
        if similar := difflib.get_close_matches(repository, common, 1, 0.93):
            message = f"no other container uses the image {repository}; others use {similar[0]}"
            yield at("image-tag", pieces.deployment, node, message, f"{similar[0]}:{tag}@{digest}")
    for node, repository, tag, digest in _pinned(pieces):
        same = Counter(other_tag for _, name, other_tag, pin in every if (name, pin) == (repository, digest))
        usual, most = same.most_common(1)[0]
        if len(same) > 1 and (most > same[tag] or list(same.values()).count(most) > 1):
            usual = next(other_tag for other_tag, _ in same.most_common() if other_tag != tag)
            message = f"the image has the tag {tag}, but elsewhere its digest has the tag {usual}"
            yield at("image-tag", pieces.deployment, node, message, f"{repository}:{usual}@{digest}")
        pins = Counter(pin for _, name, other_tag, pin in every if (name, other_tag) == (repository, tag))
        usual, most = pins.most_common(1)[0]
        if digest != usual and most > pins[digest]:
            message = f"the tag {tag} has another digest elsewhere"
            yield at("image-tag", pieces.deployment, node, message, f"{repository}:{tag}@{usual}")


def _pinned(pieces: Pieces) -> list[tuple[ScalarNode, str, str, str]]:
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    images = []
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        image = scalar(container, "image")
        match = re.fullmatch(r"(.+):([^:/@]+)@(sha256:[0-9a-f]{64})", image.value) if image is not None else None
        if image is not None and match is not None:
            images.append((image, match[1], match[2], match[3]))
    return images


def _secrets(tree: Tree, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Check references against the Secrets that the repository creates, and against the other models' references."""
    words = _words(pieces)
    created, references = (
        _created_secrets(tree),
        [reference for sibling in siblings for reference in _references(sibling)],
    )
    for variable, name, key in _references(pieces):
        keys = created.get(name.value)
        usual = [(a.value, b.value) for other_variable, a, b in references if other_variable == variable]
        agreed = usual[0] if usual and len(set(usual)) == 1 else None
        if keys is None and (agreed or created) and (agreed is None or agreed[0] != name.value):
            expected = agreed[0] if agreed else " or ".join(sorted(created))
            if agreed is not None or any(name.value[:4] == secret[:4] for secret in created):
                message = f"no manifest here creates the Secret {name.value}, from which {variable} is read"
                yield at("secret-missing", pieces.deployment, name, message, f"name: {expected}")
        elif keys is None and agreed is None and name.value not in words:
            similar = difflib.get_close_matches(name.value, words, 1, 0.85)
            if similar:
                message = f"no other file mentions the Secret {name.value}, from which {variable} is read"
                yield at("secret-missing", pieces.deployment, name, message, f"name: {similar[0]}")
        elif keys and key.value not in keys:
            message = f"the Secret {name.value} has no key {key.value}; it has {', '.join(sorted(keys))}"
            yield at("secret-missing", pieces.deployment, key, message, f"key: {min(keys)}")
        elif not keys and agreed is not None and agreed[0] == name.value and agreed[1] != key.value:
            message = f"{variable} is read from the key {key.value} here, but from {agreed[1]} elsewhere"
            yield at("secret-missing", pieces.deployment, key, message, f"key: {agreed[1]}")


def _misread(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report a ConfigMap reference with the name of a Secret, if the repository creates no such ConfigMap."""
    config_maps = {name for config in pieces.candidate.configs for _, name in edited_objects(config.node)}
    secrets = {name.value for sibling in siblings for _, name, _ in _references(sibling)} - config_maps
    for node in environment(pieces.container).values():
        reference = find(node, "valueFrom", "configMapKeyRef")
        if value(reference, "name") in secrets:
            message = f"{value(reference, 'name')} is a Secret, but is read here as a ConfigMap"
            key_node = next(key for key, _ in entries(find(node, "valueFrom")) if key.value == "configMapKeyRef")
            yield at("secret-missing", pieces.deployment, key_node, message, "secretKeyRef:")


def _words(pieces: Pieces) -> set[str]:
    """Return the names with a dash in the endpoint's other files and comments."""
    located = (part for part in (pieces.application, pieces.service, *pieces.claims, *pieces.entries) if part)
    texts = [comment.text for comment in pieces.deployment.document.comments()] + [
        part.document.text for part in located
    ]
    return set(re.findall(r"\b[a-z0-9]+(?:-[a-z0-9]+)+\b", " ".join(texts)))


def _references(pieces: Pieces) -> list[tuple[str, ScalarNode, ScalarNode]]:
    references = []
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        for variable, node in environment(container).items():
            reference = find(node, "valueFrom", "secretKeyRef")
            name, key = scalar(reference, "name"), scalar(reference, "key")
            if name is not None and key is not None and value(reference, "optional") != "true":
                references.append((variable, name, key))
    return references


def _created_secrets(tree: Tree) -> dict[str, set[str]]:
    """Return the Secrets that the repository creates, with their keys; no keys if the file does not contain them."""
    secrets: dict[str, set[str]] = {}
    for path in tree.grep("Secret", "secretGenerator:"):
        for kind, located in objects(tree, path):
            secrets |= _secret(kind, located)
    return secrets


def _secret(kind: str, located: Located) -> dict[str, set[str]]:
    node = located.node
    name = value(node, "metadata", "name")
    if kind == "Secret":
        keys = {str(key.value) for part in ("data", "stringData") for key, _ in entries(find(node, part))}
        return {name: keys}
    if kind == "SealedSecret":
        name = value(node, "spec", "template", "metadata", "name") or name
        return {name: {str(key.value) for key, _ in entries(find(node, "spec", "encryptedData"))}}
    if kind == "ExternalSecret":
        keys = {value(item, "secretKey") for item in items(find(node, "spec", "data"))}
        whole = find(node, "spec", "dataFrom") is not None or find(node, "spec", "target", "template") is not None
        return {value(node, "spec", "target", "name") or name: set() if whole else keys}
    if kind == "Kustomization":
        return {value(item, "name"): set[str]() for item in items(find(node, "secretGenerator"))}
    return {}
