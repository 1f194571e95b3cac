"""The rules of the engine's pod: its writable paths, its variables, its ports and its Service."""

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
    """Report problems in the pod of one endpoint. `siblings` are the other endpoints."""
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
        names: set[str] = set()
        present = environment(container)
        missing = [word for word in _VARIABLES if word not in present]
        for item in items(find(container, "env")):
            name = scalar(item, "name")
            if name is None:
                continue
            if name.value in names:
                message = f"{name.value} is set twice in the environment: only the last value counts"
                yield at("variable", pieces.deployment, name, message, "remove one of them")
            names.add(name.value)
            if name.value in _VARIABLES:
                continue
            if similar := difflib.get_close_matches(name.value.upper(), missing, 1, _ALMOST):
                message = f"nothing reads {name.value}: {similar[0]} is missing here"
                yield at("variable", pieces.deployment, name, message, f"name: {similar[0]}")


def _writes(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report variables that point to a read-only root file system, and volumes that the container cannot write to."""
    root = pieces.deployment
    for container in _containers(pieces):
        mounts = items(find(container, "volumeMounts"))
        writable = [value(item, "mountPath") for item in mounts if value(item, "readOnly") != "true"]
        for mount in mounts if container is not pieces.container else ():
            read_only = scalar(mount, "readOnly")
            if (
                read_only is not None
                and read_only.value == "true"
                and value(mount, "name") in _persistent_volumes(pieces)
            ):
                message = "the volume is mounted read-only, but the weights are downloaded to it here"
                yield at("volume-mount", root, read_only, message, "remove readOnly")
        if value(container, "securityContext", "readOnlyRootFilesystem") != "true":
            continue
        for name, node in environment(container).items():
            path_node = scalar(node, "value")
            if name not in _WRITTEN or path_node is None or not path_node.value.startswith("/"):
                continue
            places = [value(item, "mountPath") for item in mounts]
            if not any(within(path_node.value, place) or within(place, path_node.value) for place in places):
                message = (
                    f"{name} is {path_node.value}, but no volume is mounted there and the root file system is read-only"
                )
                fix = f"value: {writable[-1]}" if writable else "mount an emptyDir there"
                yield at("read-only-root", root, path_node, message, fix)
    context = find(root.node, "spec", "template", "spec", "securityContext")
    group = find(context, "fsGroup")
    groups = [
        find(sibling.deployment.node, "spec", "template", "spec", "securityContext", "fsGroup") for sibling in siblings
    ]
    if (
        context is not None
        and group is None
        and groups
        and all(groups)
        and value(context, "runAsUser") not in ("", "0")
    ):
        message = (
            "fsGroup is missing (the other endpoints set it), so this user may have no right to write to the volume"
        )
        yield at("read-only-root", root, context, message, f"fsGroup: {value(context, 'runAsGroup') or 'the group'}")


def _ports(pieces: Pieces) -> Iterator[Finding]:
    """Report a port whose name differs from the name that both the probes and the Service use."""
    ports = items(find(pieces.container, "ports"))
    if len(ports) != 1 or (name := scalar(ports[0], "name")) is None:
        return
    used_ports = [
        value(find(pieces.container, kind), "httpGet", "port")
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    ]
    if pieces.service is not None:
        used_ports += [value(item, "targetPort") for item in items(find(pieces.service.node, "spec", "ports"))]
    named = Counter(port for port in used_ports if port and not port.isdecimal())
    if name.value not in named and len(named) == 1 and named.total() > 1:
        (usual_name,) = named
        message = f"the port is named {name.value}, but probes and Service use {usual_name}"
        yield at("target-port", pieces.deployment, name, message, f"name: {usual_name}")


def _service(pieces: Pieces) -> Iterator[Finding]:
    service = pieces.service
    if service is None:
        return
    for port in items(find(service.node, "spec", "ports")):
        protocol = scalar(port, "protocol")
        if protocol is not None and protocol.value not in ("", "TCP"):
            message = f"the engine serves HTTP, but this port is {protocol.value}"
            yield at("target-port", service, protocol, message, "protocol: TCP")
    kind = scalar(service.node, "spec", "type")
    if kind is not None and kind.value == "ExternalName":
        message = "an ExternalName points outside the cluster, and its selector is ignored"
        yield at("service-selector", service, kind, message, "type: ClusterIP")


def _containers(pieces: Pieces) -> tuple[Node, ...]:
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    return (*items(find(pod, "initContainers")), pieces.container)


def _persistent_volumes(pieces: Pieces) -> set[str]:
    """Return the names of the pod's volumes that outlive the pod."""
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
    """Return the part of a toleration that does not match the taint: its key, effect or operator."""
    for toleration in tolerations:
        if value(toleration, "key") != taint:
            continue
        if value(toleration, "effect") not in ("", "NoSchedule"):
            return scalar(toleration, "effect")
        return scalar(toleration, "operator") or scalar(toleration, "key")
    return next((node for toleration in tolerations if (node := scalar(toleration, "key")) is not None), None)
