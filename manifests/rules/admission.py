"""The rule for objects that Kubernetes refuses although each field is valid: duplicates, conflicting settings, quantities.

Source: the validation of Kubernetes' API server (`pkg/apis/core/validation`, `pkg/apis/apps/validation`).
"""

import re
from collections.abc import Iterator, Sequence

from ruamel.yaml.nodes import Node, ScalarNode

from manifests.edit import entries, find, items, scalar, value
from manifests.pieces import GPU, Located, Pieces
from manifests.rules.finding import Finding, at
from manifests.sizing import quantity_bytes

_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LEAST_MEMORY, _MOST_CPUS = 2**20, 1024
_HOST = ("hostIPC", "hostNetwork", "hostPID")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def check(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems of the Deployment, the Service and the claims of one endpoint."""
    root = pieces.deployment
    containers = _containers(pieces.pod)
    yield from _twice(root, items(find(pieces.pod, "volumes")), "name")
    yield from _twice(root, containers, "name")
    for item in items(find(pieces.pod, "volumes")):
        yield from _volume(root, item)
    for container in containers:
        yield from _container(root, pieces.pod, container)
    yield from _deployment(root)
    yield from _host(pieces, siblings)
    yield from _shared_memory(pieces)
    if pieces.service is not None:
        yield from _service(pieces.service)
    for claim in pieces.claims:
        yield from _quantities(claim, find(claim.node, "spec", "resources"))
        yield from _claim(claim)


def check_resources(pieces: Pieces) -> Iterator[Finding]:
    """Check the quantities of a container in a chart's values, or in an operator's object."""
    yield from _quantities(pieces.deployment, find(pieces.container, "resources"))


def _containers(pod: Node | None) -> tuple[Node, ...]:
    return (*items(find(pod, "initContainers")), *items(find(pod, "containers")))


def _twice(located: Located, listed: Sequence[Node], key: str) -> Iterator[Finding]:
    names = set[str]()
    for item in listed:
        name = scalar(item, key)
        if name is not None and name.value in names:
            message = f"{key} {name.value} appears twice: Kubernetes refuses the object"
            yield at("admission", located, name, message, "remove one of them, or name it differently")
        names.add(name.value if name is not None else "")


def _volume(root: Located, volume: Node) -> Iterator[Finding]:
    sources = [key for key, _ in entries(volume) if key.value not in ("name", "<<")]
    if len(sources) > 1:
        message = f"the volume {value(volume, 'name')} is both {sources[0].value} and {sources[1].value}"
        yield at("admission", root, sources[1], message, "keep one of them")
    medium, limit = scalar(volume, "emptyDir", "medium"), scalar(volume, "emptyDir", "sizeLimit")
    if medium is not None and medium.value not in ("", "Memory") and not medium.value.startswith("HugePages"):
        yield at("admission", root, medium, f"{medium.value} is not a valid medium", "medium: Memory")
    if limit is not None and not _QUANTITY.fullmatch(limit.value):
        yield at("admission", root, limit, f"{limit.value} is not a valid quantity", "sizeLimit: 8Gi")


def _container(root: Located, pod: Node | None, container: Node) -> Iterator[Finding]:
    yield from _twice(root, items(find(container, "volumeMounts")), "mountPath")
    yield from _twice(root, items(find(container, "ports")), "name")
    yield from _quantities(root, find(container, "resources"))
    name = scalar(container, "name")
    if name is not None and not _LABEL.fullmatch(name.value):
        message = f"{name.value} is not a valid name of a container: use lower-case letters, digits and dashes"
        yield at("admission", root, name, message, f"name: {re.sub('[^a-z0-9]+', '-', name.value.lower()).strip('-')}")
    for port in items(find(container, "ports")):
        name = scalar(port, "name")
        if name is not None and not _PORT.fullmatch(name.value):
            message = (
                f"{name.value} is not a valid name of a port: use at most 15 lower-case letters, digits and dashes"
            )
            yield at("admission", root, name, message, "name: http")
    for item in items(find(container, "env")):
        text = scalar(item, "value")
        if text is not None and text.value and find(item, "valueFrom") is not None:
            message = f"{value(item, 'name')} has a value and a valueFrom"
            yield at("admission", root, text, message, "keep one of them")
    for kind in ("startupProbe", "livenessProbe"):
        successes = scalar(container, kind, "successThreshold")
        if successes is not None and successes.value != "1":
            yield at("admission", root, successes, f"the successThreshold of a {kind} must be 1", "successThreshold: 1")
    yield from _security(root, pod, container)


def _security(root: Located, pod: Node | None, container: Node) -> Iterator[Finding]:
    context, pod_context = find(container, "securityContext"), find(pod, "securityContext")
    privileged = scalar(context, "privileged")
    if privileged is not None and privileged.value == "true" and value(context, "allowPrivilegeEscalation") == "false":
        message = "a privileged container may escalate its privileges, but allowPrivilegeEscalation is false"
        yield at("admission", root, privileged, message, "remove privileged")
    user = scalar(context, "runAsUser") or scalar(pod_context, "runAsUser")
    non_root = scalar(context, "runAsNonRoot") or scalar(pod_context, "runAsNonRoot")
    if user is not None and user.value == "0" and non_root is not None and non_root.value == "true":
        message = "the user is root, but runAsNonRoot is true: the container is not started"
        yield at("admission", root, user, message, "runAsUser: 65532")


def _quantities(located: Located, resources: Node | None) -> Iterator[Finding]:
    for part in ("requests", "limits"):
        for key, node in entries(find(resources, part)):
            if not isinstance(node, ScalarNode) or key.value == GPU or "{{" in node.value or "$" in node.value:
                continue
            rule = "volume-size" if key.value == "storage" else "resources"
            if not _QUANTITY.fullmatch(node.value):
                usual = {"cpu": '"4"', "memory": "16Gi"}.get(str(key.value), "20Gi")
                message = f"{key.value}: {node.value} is not a valid quantity"
                yield at(rule, located, node, message, f"{key.value}: {usual}")
            elif key.value == "memory" and re.fullmatch(r"\d+", node.value) and 0 < int(node.value) < _LEAST_MEMORY:
                message = f"memory: {node.value} is {node.value} bytes"
                yield at("resources", located, node, message, f"memory: {node.value}Gi")
            elif key.value == "cpu" and re.fullmatch(r"\d+", node.value) and int(node.value) > _MOST_CPUS:
                yield at("resources", located, node, f"cpu: {node.value} is {node.value} cores", f"cpu: {node.value}m")


def _service(service: Located) -> Iterator[Finding]:
    ports = items(find(service.node, "spec", "ports"))
    yield from _twice(service, ports, "name")
    for port in ports:
        target, node = scalar(port, "targetPort"), scalar(port, "nodePort")
        if target is not None and target.style and target.value.isdecimal():
            message = f'"{target.value}" is quoted, so Kubernetes reads it as a name, which must contain a letter'
            yield at("target-port", service, target, message, f"targetPort: {target.value}")
        if node is not None and value(service.node, "spec", "type") in ("", "ClusterIP"):
            message = "nodePort is only allowed in a Service of the type NodePort or LoadBalancer"
            yield at("admission", service, node, message, "remove nodePort")
        if len(ports) > 1 and find(port, "name") is None:
            message = "a Service with several ports needs a name for each"
            yield at("admission", service, port, message, "name: http")


def _claim(claim: Located) -> Iterator[Finding]:
    sizes = [scalar(claim.node, "spec", "resources", part, "storage") for part in ("requests", "limits")]
    try:
        request, limit = (quantity_bytes(size.value) if size is not None else 0 for size in sizes)
    except ValueError:
        return
    if limit and request > limit:
        message = f"the claim requests more than its limit {value(sizes[1])}"
        yield at("volume-size", claim, sizes[1], message, "remove the limit")
    mode = scalar(claim.node, "spec", "volumeMode")
    if mode is not None and mode.value == "Block":
        message = "a volume in Block mode has no file system that could be mounted"
        yield at("claim", claim, mode, message, "volumeMode: Filesystem")


def _deployment(root: Located) -> Iterator[Finding]:
    rolling = find(root.node, "spec", "strategy", "rollingUpdate")
    if value(root.node, "spec", "strategy", "type") == "Recreate" and entries(rolling):
        message = "rollingUpdate is not allowed with Recreate: Kubernetes refuses the Deployment"
        yield at("strategy", root, rolling, message, "remove rollingUpdate")


def _host(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Check that a hardened pod does not use the node's namespaces, if no other endpoint uses them."""
    hardened = value(pieces.pod, "securityContext", "runAsNonRoot") == "true"
    for field in _HOST if hardened and siblings else ():
        node = scalar(pieces.pod, field)
        if node is None or node.value != "true" or any(value(sibling.pod, field) == "true" for sibling in siblings):
            continue
        message = f"{field} gives the engine access to the node, and no other endpoint sets it"
        yield at("host-access", pieces.deployment, node, message, "remove it; for shared memory mount an emptyDir")
    grace = scalar(pieces.pod, "terminationGracePeriodSeconds")
    if grace is not None and grace.value == "0":
        message = "the engine is killed immediately: running requests fail, and the volume may still be attached"
        yield at("grace-period", pieces.deployment, grace, message, "terminationGracePeriodSeconds: 30")


def _shared_memory(pieces: Pieces) -> Iterator[Finding]:
    """Report tensor parallelism without a volume at /dev/shm, where its processes exchange data."""
    flag = pieces.flag("--tensor-parallel-size")
    if flag is None or not flag.value.isdecimal() or int(flag.value) < 2 or value(pieces.pod, "hostIPC") == "true":
        return
    if _SHARED_MEMORY in {value(item, "mountPath") for item in items(find(pieces.container, "volumeMounts"))}:
        return
    message = f"{flag.value} processes share memory, but /dev/shm has only 64 MiB unless a volume is mounted there"
    fix = f"mount an emptyDir with medium: Memory at {_SHARED_MEMORY}"
    yield at("shared-memory", pieces.deployment, flag.value_node, message, fix)
