"""The rules of the pod around the engine: its writable paths, its variables and ports, its reachability."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

from ruamel.yaml.nodes import Node, ScalarNode

from manifests.edit import find, items, scalar, value
from manifests.pieces import Pieces, environment
from manifests.rules.finding import Finding, at
from manifests.tree import within

# Variables that configure the engines and their libraries; a misspelled one is silently ignored.
_VARIABLES = (
    "VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_LOGGING_LEVEL", "VLLM_USE_V1", "VLLM_PORT",
    "HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HUB_ENABLE_HF_TRANSFER",
    "HF_XET_HIGH_PERFORMANCE", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE",
    "TRANSFORMERS_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "LD_LIBRARY_PATH", "HOME", "TMPDIR",
)  # fmt: skip
_ALMOST = 0.85

# Paths that the engines write to (vLLM's and Triton's caches, Python's temporary files); `HF_HOME` has its own rule.
_WRITTEN = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TMPDIR")


def check(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Problems in the pod of one endpoint. `siblings` are the other endpoints."""
    yield from _deployment(pieces)
    yield from _variables(pieces)
    yield from _writes(pieces, siblings)
    yield from _ports(pieces)
    yield from _service(pieces)


def _deployment(pieces: Pieces) -> Iterator[Finding]:
    paused = scalar(pieces.deployment.node, "spec", "paused")
    if paused is not None and paused.value == "true":
        message = "the Deployment is paused: it starts no pod of a changed template"
        yield at("strategy", pieces.deployment, paused, message, "remove paused")


def _variables(pieces: Pieces) -> Iterator[Finding]:
    for container in _containers(pieces):
        seen: set[str] = set()
        present = environment(container)
        others = [word for word in _VARIABLES if word not in present]
        for item in items(find(container, "env")):
            name = scalar(item, "name")
            if name is None:
                continue
            if name.value in seen:
                message = f"{name.value} is set twice in the environment: only the last value counts"
                yield at("variable", pieces.deployment, name, message, "remove one of them")
            seen.add(name.value)
            if name.value in _VARIABLES:
                continue
            if near := difflib.get_close_matches(name.value.upper(), others, 1, _ALMOST):
                message = f"nothing reads {name.value}: {near[0]} is missing here"
                yield at("variable", pieces.deployment, name, message, f"name: {near[0]}")


def _writes(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """A container with a read-only root can write only to its mounts, and only with its own user or group."""
    root = pieces.deployment
    for container in _containers(pieces):
        mounts = items(find(container, "volumeMounts"))
        writable = [value(each, "mountPath") for each in mounts if value(each, "readOnly") != "true"]
        for mount in mounts if container is not pieces.container else ():
            given = scalar(mount, "readOnly")
            if given is not None and given.value == "true" and value(mount, "name") in _kept(pieces):
                message = "the volume is mounted for reading, and the weights are downloaded to it here"
                yield at("volume-mount", root, given, message, "remove readOnly")
        if value(container, "securityContext", "readOnlyRootFilesystem") != "true":
            continue
        for name, node in environment(container).items():
            given = scalar(node, "value")
            if name not in _WRITTEN or given is None or not given.value.startswith("/"):
                continue
            places = [value(each, "mountPath") for each in mounts]
            if not any(within(given.value, place) or within(place, given.value) for place in places):
                message = f"{name} is {given.value}, where nothing is mounted, and the root file system is read-only"
                fix = f"value: {writable[-1]}" if writable else "mount an emptyDir there"
                yield at("read-only-root", root, given, message, fix)
    context = find(root.node, "spec", "template", "spec", "securityContext")
    group = find(context, "fsGroup")
    others = [
        find(sibling.deployment.node, "spec", "template", "spec", "securityContext", "fsGroup") for sibling in siblings
    ]
    if (
        context is not None
        and group is None
        and others
        and all(others)
        and value(context, "runAsUser") not in ("", "0")
    ):
        message = "fsGroup is missing, which the other endpoints have: this user may not write to the volume"
        yield at("read-only-root", root, context, message, f"fsGroup: {value(context, 'runAsGroup') or 'the group'}")


def _ports(pieces: Pieces) -> Iterator[Finding]:
    """Probes and the Service use a port's name; if they agree on another name, the port is misnamed."""
    ports = items(find(pieces.container, "ports"))
    if len(ports) != 1 or (name := scalar(ports[0], "name")) is None:
        return
    asked = [
        value(find(pieces.container, kind), "httpGet", "port")
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    ]
    if pieces.service is not None:
        asked += [value(item, "targetPort") for item in items(find(pieces.service.node, "spec", "ports"))]
    named = Counter(each for each in asked if each and not each.isdecimal())
    if name.value not in named and len(named) == 1 and named.total() > 1:
        (other,) = named
        message = f"the port is named {name.value}, and probes and Service ask for {other}"
        yield at("target-port", pieces.deployment, name, message, f"name: {other}")


def _service(pieces: Pieces) -> Iterator[Finding]:
    service = pieces.service
    if service is None:
        return
    for port in items(find(service.node, "spec", "ports")):
        protocol = scalar(port, "protocol")
        if protocol is not None and protocol.value not in ("", "TCP"):
            message = f"the engine serves HTTP, and this port is {protocol.value}"
            yield at("target-port", service, protocol, message, "protocol: TCP")
    kind = scalar(service.node, "spec", "type")
    if kind is not None and kind.value == "ExternalName":
        message = "an ExternalName leads out of the cluster, and its selector is ignored"
        yield at("service-selector", service, kind, message, "type: ClusterIP")


def _containers(pieces: Pieces) -> tuple[Node, ...]:
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    return (*items(find(pod, "initContainers")), pieces.container)


def _kept(pieces: Pieces) -> set[str]:
    """The pod's volumes that outlive it."""
    volumes = items(find(pieces.deployment.node, "spec", "template", "spec", "volumes"))
    return {value(volume, "name") for volume in volumes if find(volume, "persistentVolumeClaim") is not None}


def tolerates(pod: Node | None, taint: str) -> bool:
    """Return whether a pod may run on nodes with the taint `KEY=present:NoSchedule`, as set by GKE and the GPU operator."""
    return any(_matches(item, taint) for item in items(find(pod, "tolerations")))


def _matches(toleration: Node, taint: str) -> bool:
    key, operator = value(toleration, "key"), value(toleration, "operator") or "Equal"
    if value(toleration, "effect") not in ("", "NoSchedule"):
        return False
    if operator == "Exists":
        return key in ("", taint)
    return key == taint and bool(value(toleration, "value"))


def wrong_part(tolerations: Sequence[Node], taint: str) -> ScalarNode | None:
    """The part of a toleration that does not match the taint: its key, effect or operator."""
    for toleration in tolerations:
        if value(toleration, "key") != taint:
            continue
        if value(toleration, "effect") not in ("", "NoSchedule"):
            return scalar(toleration, "effect")
        return scalar(toleration, "operator") or scalar(toleration, "key")
    return next((found for each in tolerations if (found := scalar(each, "key")) is not None), None)
