"""The rules of an endpoint's own directory: Deployment, initContainer, volume and Service.

If two places disagree, the fault is reported at the place that a third place contradicts.
"""

import difflib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from ruamel.yaml.nodes import MappingNode, Node

from manifests import kustomize
from manifests.assembly import selects
from manifests.edit import find, items, line, scalar, scalars, value
from manifests.kustomize import Opaque
from manifests.layout import Layout
from manifests.model_names import is_path, model_of
from manifests.pieces import GPU, Located, Pieces, environment, kustomization, labels, objects
from manifests.platform import Platform
from manifests.rules import norms
from manifests.rules.finding import Finding, at
from manifests.tree import Tree
from manifests.wording import stem

_FORMATS = ("awq", "gptq", "fp8")
_SEVERAL = ("compressed-tensors", "moe_wna16", "auto-round", "inc", "modelopt", "quark", "torchao")
"""Methods of vLLM that load weights of several formats."""

# The scanner's rule against secrets in environment variables; vLLM can read its key only from such a variable.
_SECRET_IN_ENVIRONMENT = "CKV_K8S_35"  # noqa: S105


def check(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems in the directory of one endpoint. `siblings` are the other endpoints."""
    yield from _kustomization(platform, pieces)
    yield from _labels(pieces)
    yield from _deployment(platform, pieces, siblings)
    yield from _staging(pieces)
    yield from _engine(pieces, siblings)
    yield from _port(pieces)
    yield from _service(pieces, siblings)
    yield from _skips(platform.layout, pieces, siblings)


def _kustomization(platform: Platform, pieces: Pieces) -> Iterator[Finding]:
    """Check that the kustomization lists all files and sets the same namespace.

    Without a kustomization, Argo CD deploys the whole directory.
    """
    listing = kustomization(platform, pieces)
    if listing is None:
        return
    resources = find(listing.node, "resources")
    listed = {str(node.value).removeprefix("./") for node in scalars([listing.node])}
    parts = [part for part in (pieces.deployment, pieces.service, *pieces.claims) if part is not None]
    for path in sorted({part.document.path for part in parts}):
        name = path.removeprefix(f"{pieces.home}/")
        if "/" not in name and name not in listed:
            yield at("kustomization", listing, resources, f"{name} is not listed, so it is not deployed", f"- {name}")
    yield from check_resources(platform, listing)
    space = scalar(listing.node, "namespace")
    for part in parts:
        namespace = scalar(part.node, "metadata", "namespace")
        if space is not None and namespace is not None and namespace.value != space.value:
            message = f"the object's namespace is {namespace.value}, but its kustomization sets {space.value}"
            yield at("namespace", part, namespace, message, f"namespace: {space.value}")


def check_around(platform: Platform, endpoints: Iterable[Pieces]) -> Iterator[Finding]:
    """Check the kustomizations of the endpoints' directories and their parents, which may include each other."""
    files = {path for endpoint in endpoints for path in endpoint.files}
    folders = {path.rsplit("/", count)[0] for path in files for count in range(1, path.count("/") + 1)} | {""}
    for folder in sorted(folders):
        document = kustomize.read(platform, folder)
        if document is not None and isinstance(document.roots[0], MappingNode):
            yield from check_resources(platform, Located(document, document.roots[0]))


def check_resources(platform: Platform, listing: Located) -> Iterator[Finding]:
    """Report files in a kustomization that are missing or listed twice, which kustomize refuses."""
    folder, listed_paths = posixpath.dirname(listing.document.path), set[str]()
    for node in items(find(listing.node, "resources")):
        named = value(node)
        path = posixpath.normpath(posixpath.join(folder, named))
        if named and "://" not in named and "?ref=" not in named and not named.startswith("github.com"):
            if not platform.files(path):
                yield at(
                    "kustomization",
                    listing,
                    node,
                    f"{named} is listed, but the file does not exist",
                    "remove it, or add the file",
                )
            elif path in listed_paths:
                yield at(
                    "kustomization",
                    listing,
                    node,
                    f"{named} is listed twice: kustomize refuses it",
                    "remove one of them",
                )
        listed_paths.add(path)


def _labels(pieces: Pieces) -> Iterator[Finding]:
    """Check that the selectors of Deployment and Service match the labels of the pod template."""
    root, service = pieces.deployment, pieces.service
    pod = find(root.node, "spec", "template", "metadata", "labels")
    pod_labels = labels(pod)
    selected = labels(find(root.node, "spec", "selector", "matchLabels"))
    routed = labels(find(service.node, "spec", "selector")) if service else {}
    for key in {**selected, **routed}:
        expected = {selector[key] for selector in (selected, routed) if key in selector}
        if expected == {pod_labels.get(key)}:
            continue
        if key in selected and key in routed and len(expected) == 1:
            message = (
                f"the pod's label {key} is {pod_labels.get(key, 'missing')}, but both selectors have {selected[key]}"
            )
            yield at("pod-selector", root, find(pod, key) or pod, message, f"{key}: {selected[key]}")
            continue
        if key in selected and selected[key] != pod_labels.get(key):
            node = find(root.node, "spec", "selector", "matchLabels", key)
            message = f"the selector {key}: {selected[key]} is not a label of the pod"
            yield at("pod-selector", root, node, message, _set(key, pod_labels.get(key)))
        if service and key in routed and routed[key] != pod_labels.get(key):
            message = f"the selector {key}: {routed[key]} is not a label of the pod"
            yield at(
                "service-selector",
                service,
                find(service.node, "spec", "selector", key),
                message,
                _set(key, pod_labels.get(key)),
            )


def _deployment(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    root = pieces.deployment
    replicas, strategy = scalar(root.node, "spec", "replicas"), scalar(root.node, "spec", "strategy", "type")
    spec = find(root.node, "spec")
    message = "a GPU model must have zero replicas in git, or every sync starts the GPU and its cost"
    replaced = _replaced_replicas(pieces)
    yield from check_replicas(pieces, siblings)
    gated = pieces.gpu and norms.is_gated(pieces, siblings)
    if gated and replaced is None and (replicas is None or replicas.value != "0"):
        yield at("replicas", root, replicas or spec, message, "replicas: 0")
    if gated and (strategy is None or strategy.value != "Recreate"):
        message = "a rolling update waits for a second GPU forever"
        yield at("strategy", root, strategy or find(spec, "strategy") or spec, message, "strategy.type: Recreate")
    pulled, off = scalar(pieces.container, "image"), replicas is not None and replicas.value == "0" and replaced is None
    if (
        not pieces.gpu
        and off
        and pieces.entries
        and norms.names_applications(siblings, platform)
        and not _is_scaled(platform, pieces)
    ):
        message = "an endpoint without a GPU is always up, but nothing scales this one above zero"
        yield at("replicas", root, replicas, message, "replicas: 1")
    tag = re.search(r"text-embeddings-inference:([^@]+)", pulled.value) if pulled is not None else None
    if tag and pieces.gpu == tag[1].startswith("cpu"):
        message = f"the image {tag[0]} is for {'a CPU' if pieces.gpu else 'a GPU'}, but the pod has {'a GPU' if pieces.gpu else 'none'}"
        yield at("gpu-limit", root, pulled, message, "use the image for this hardware")
    resources = find(pieces.container, "resources")
    limits, gpus = find(resources, "limits"), scalar(resources, "limits", GPU)
    tolerated = items(find(root.node, "spec", "template", "spec", "tolerations"))
    # A slice of a GPU has its own resource name, and a device claim is not a limit.
    asks = any(key.startswith("nvidia.com/") and amount not in ("", "0") for key, amount in labels(limits).items())
    if (
        any(value(toleration, "key") == GPU for toleration in tolerated)
        and not asks
        and find(resources, "claims") is None
    ):
        message = "the pod tolerates GPU nodes, but its engine requests no GPU"
        node = gpus or limits or resources or pieces.container
        yield at("gpu-limit", root, node, message, f"{GPU}: 1")
    for image in _images(root.node) if norms.pins_images(pieces, siblings) else ():
        rendered, pin = pieces.rendering.image(value(image)), r"@sha256:[0-9a-f]{64}$"
        substitute = pieces.rendering.image_change(value(image))
        if substitute is not None and re.search(pin, value(image)) and not re.search(pin, rendered):
            message = f"the kustomization changes the image to {rendered}, without a digest"
            fix = "write digest instead of newTag"
            yield Finding(rule="image-digest", path=substitute.path, line=substitute.line, message=message, fix=fix)
        elif not re.search(pin, rendered):
            message = f"the image {value(image)} is not pinned by digest"
            yield at("image-digest", root, image, message, "append @sha256:… of this tag")


def check_replicas(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report a kustomization that sets the replicas of a GPU model above zero."""
    replaced = _replaced_replicas(pieces)
    if pieces.gpu and norms.is_gated(pieces, siblings) and replaced is not None and replaced[0]:
        message = "a GPU model must have zero replicas in git, or every sync starts the GPU and its cost"
        place = replaced[1]
        yield Finding(rule="replicas", path=place.path, line=place.line, message=message, fix="write 0")


def _replaced_replicas(pieces: Pieces) -> tuple[int, Opaque] | None:
    """Return the replicas that a kustomization sets, with their position."""
    count = pieces.rendering.count(pieces.deployment.node)
    return (count.replicas, count.place) if count is not None else None


def _is_scaled(tree: Tree, pieces: Pieces) -> bool:
    """Return whether an autoscaler targets the Deployment."""
    kinds = ("HorizontalPodAutoscaler", "ScaledObject", "HTTPScaledObject")
    return any(
        kind in kinds and value(located.node, "spec", "scaleTargetRef", "name") == pieces.workload
        for path in tree.grep("scaleTargetRef")
        for kind, located in objects(tree, path)
    )


def _staging(pieces: Pieces) -> Iterator[Finding]:
    """Check that the initContainer downloads the model that the engine loads."""
    root, model = pieces.deployment, pieces.model
    served = pieces.flag("--served-model-name")
    # A bare name is neither a path nor an id on the Hub, so the engine cannot find the model.
    known_as = {model.value} if re.fullmatch(r"[\w.-]+", model.value) else {model.value, model_of(pieces).hf_id}
    for node in pieces.staging:
        for match in re.finditer(r"(?:[\"']|download\s+|^)([A-Za-z0-9][\w.-]*/[\w.-]+)(?:[\"']|\s|$)", node.value):
            staged = match[1]
            if staged in known_as:
                continue
            served_name = served.value if served else ""
            same = stem(staged).lower() == stem(model.value).lower()
            if same:  # only owner or case differ, so either of the two may be wrong
                message = f"the engine loads {model.value}, but the initContainer stages {staged}"
                yield at("staged-model", root, model.value_node, message, f"{model.name}={staged}")
            if stem(staged).lower() == served_name != stem(model.value).lower():
                message = f"the engine loads {model.value}, but the initContainer and the served name have {staged}"
                yield at("staged-model", root, model.value_node, message, f"{model.name}={staged}")
            else:
                within = node.value[: match.start(1)].count("\n") + (1 if node.style in ("|", ">") else 0)
                message = f"the initContainer stages {staged}, but the engine serves {model.value}"
                fix = f"stage {model.value}"
                yield Finding(
                    rule="staged-model", path=root.document.path, line=line(node) + within, message=message, fix=fix
                )


def _engine(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Check the quantization argument and the offline variables of an engine that has them."""
    root = pieces.deployment
    if not {"quantization", "offline"} <= pieces.runtime.rules:
        return
    quantization = pieces.flag("--quantization")
    model_id = model_of(pieces).hf_id
    named_format = next((name for name in _FORMATS if name in model_id.lower()), None)
    argument_format = next((name for name in _FORMATS if quantization and name in quantization.value), None)
    is_known = bool(named_format) or (
        argument_format in ("awq", "gptq") and not is_path(model_id)
    )  # a directory may have any name
    if quantization and named_format != argument_format and is_known and quantization.value not in _SEVERAL:
        message = f"--quantization={quantization.value}, but {model_id} is {named_format or 'not quantized'}"
        fix = f"name {named_format}" if named_format else "remove the argument"
        yield at("quantization", root, quantization.node, message, fix)
    env = environment(pieces.container)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if norms.runs_offline(pieces, siblings) else ():
        if variable not in env:
            message = f"{variable} is missing: the engine would contact the Hub"
            # Point at a misspelled variable if there is one, otherwise at the whole list.
            similar = difflib.get_close_matches(variable, set(env) - {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}, 1, 0.8)
            node = find(env[similar[0]], "name") if similar else find(pieces.container, "env")
            node = node or pieces.container
            yield at("offline", root, node, message, f'{variable}: "1"')
        elif value(env[variable], "value").lower() not in ("1", "true", "yes", "on"):
            yield at(
                "offline", root, find(env[variable], "value") or env[variable], f"{variable} is not on", 'value: "1"'
            )


def _port(pieces: Pieces) -> Iterator[Finding]:
    root, flag = pieces.deployment, pieces.flag("--port")
    ports = [node for item in items(find(pieces.container, "ports")) if (node := scalar(item, "containerPort"))]
    port = flag.value if flag else str(pieces.runtime.port or "")
    if ports and port.isdecimal() and port not in {node.value for node in ports}:
        message = f"the engine listens on {port}, but the container has {', '.join(node.value for node in ports)}"
        agreed = {value(port, "targetPort") or value(port, "port") for port in _service_ports(pieces)} | {
            value(find(pieces.container, kind), "httpGet", "port") for kind in ("startupProbe", "readinessProbe")
        }
        node = flag.node if flag and port not in agreed else ports[0]
        yield at("container-port", root, node, message, f"containerPort: {port}")


def _service_ports(pieces: Pieces) -> tuple[Node, ...]:
    return tuple(items(find(pieces.service.node, "spec", "ports"))) if pieces.service is not None else ()


def _service(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    root, service = pieces.deployment, pieces.service
    if service is None:
        if any(sibling.service is not None and selects(sibling.service.node, root.node) for sibling in siblings):
            return  # the Service belongs to another model that takes turns with this one
        yield at("service-missing", root, None, f"{pieces.name} has no Service", "add service.yaml")
        return
    ports = [item for container in items(find(pieces.pod, "containers")) for item in items(find(container, "ports"))]
    named = {value(port, "name") for port in ports}
    numbers = {value(port, "containerPort") for port in ports}
    for port in items(find(service.node, "spec", "ports")):
        target = scalar(port, "targetPort") or scalar(port, "port")
        if target is None or not ports:
            continue
        if target.value not in (numbers if target.value.isdecimal() else named):
            have = ", ".join(sorted(named - {""} | numbers))
            message = f"targetPort {target.value} is not a port of the container, which has {have}"
            yield at("target-port", service, target, message, f"targetPort: {next(iter(sorted(named - {''})), have)}")


def _skips(layout: Layout, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report exceptions for the security scanner that the template has and this endpoint lacks."""
    root, annotations = pieces.deployment, find(pieces.deployment.node, "metadata", "annotations")
    accepted = " ".join(labels(annotations).values())
    for key, reason, source in _expected_skips(layout, pieces, siblings):
        rule = reason.partition("=")[0]
        if rule not in accepted and (rule != _SECRET_IN_ENVIRONMENT or _reads_secrets(pieces)):
            node = annotations or find(root.node, "metadata")
            yield at("checkov-skip", root, node, f"the exception {rule} of {source} is missing", f"{key}: {reason}")


def _expected_skips(layout: Layout, pieces: Pieces, siblings: Sequence[Pieces]) -> list[tuple[str, str, str]]:
    """Return the template's exceptions; for the template itself, the exceptions that all its siblings share."""
    is_template = pieces.name == layout.template
    models = [sibling for sibling in siblings if is_template or sibling.name == layout.template]
    alike = [model for model in models if model.model.name == pieces.model.name]
    skips = [
        {
            reason.partition("=")[0]: (key, reason, model.name)
            for key, reason in labels(find(model.deployment.node, "metadata", "annotations")).items()
            if key.startswith("checkov.io/skip")
        }
        for model in alike
    ]
    return [first for rule, first in (skips[0] if skips else {}).items() if all(rule in skip for skip in skips)]


def _reads_secrets(pieces: Pieces) -> bool:
    env = items(find(pieces.container, "env"))
    return any(find(variable, "valueFrom", "secretKeyRef") is not None for variable in env)


def _images(deployment: Node) -> Iterator[Node]:
    pod = find(deployment, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        image = scalar(container, "image")
        if image is not None:
            yield image


def _set(key: str, expected: str | None) -> str:
    return f"{key}: {expected}" if expected else f"give the pod the label {key}"
