"""The rules of an endpoint's own directory: Deployment, initContainer, volume and Service.

If two places disagree, the fault is reported at the place that a third one contradicts.
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

# The scanner's rule against secrets in environment variables; vLLM can read its key only from one.
_SECRET_IN_ENVIRONMENT = "CKV_K8S_35"  # noqa: S105


def check(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Problems in the directory of one endpoint. `siblings` are the other endpoints."""
    yield from _kustomization(platform, pieces)
    yield from _labels(pieces)
    yield from _deployment(platform, pieces, siblings)
    yield from _staging(pieces)
    yield from _engine(pieces, siblings)
    yield from _port(pieces)
    yield from _service(pieces, siblings)
    yield from _skips(platform.layout, pieces, siblings)


def _kustomization(platform: Platform, pieces: Pieces) -> Iterator[Finding]:
    """kustomize deploys only the files that it lists; without a kustomization, Argo CD deploys the whole directory."""
    listing = kustomization(platform, pieces)
    if listing is None:
        return
    resources = find(listing.node, "resources")
    listed = {str(each.value).removeprefix("./") for each in scalars([listing.node])}
    parts = [each for each in (pieces.deployment, pieces.service, *pieces.claims) if each is not None]
    for path in sorted({each.document.path for each in parts}):
        name = path.removeprefix(f"{pieces.home}/")
        if "/" not in name and name not in listed:
            yield at("kustomization", listing, resources, f"{name} is not listed, so it is not deployed", f"- {name}")
    yield from check_resources(platform, listing)
    space = scalar(listing.node, "namespace")
    for part in parts:
        own = scalar(part.node, "metadata", "namespace")
        if space is not None and own is not None and own.value != space.value:
            message = f"the object says {own.value}, and its kustomization sets {space.value}"
            yield at("namespace", part, own, message, f"namespace: {space.value}")


def check_around(platform: Platform, endpoints: Iterable[Pieces]) -> Iterator[Finding]:
    """Check the kustomizations of the directories around the endpoints, of which one may include the other."""
    files = {path for endpoint in endpoints for path in endpoint.files}
    folders = {path.rsplit("/", count)[0] for path in files for count in range(1, path.count("/") + 1)} | {""}
    for folder in sorted(folders):
        document = kustomize.read(platform, folder)
        if document is not None and isinstance(document.roots[0], MappingNode):
            yield from check_resources(platform, Located(document, document.roots[0]))


def check_resources(platform: Platform, listing: Located) -> Iterator[Finding]:
    """Check the files that a kustomization lists: kustomize refuses one that is missing, or listed twice."""
    folder, seen = posixpath.dirname(listing.document.path), set[str]()
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
            elif path in seen:
                yield at(
                    "kustomization",
                    listing,
                    node,
                    f"{named} is listed twice: kustomize refuses it",
                    "remove one of them",
                )
        seen.add(path)


def _labels(pieces: Pieces) -> Iterator[Finding]:
    """Deployment, pod template and Service must select the same pods."""
    root, service = pieces.deployment, pieces.service
    pod = find(root.node, "spec", "template", "metadata", "labels")
    given = labels(pod)
    selected = labels(find(root.node, "spec", "selector", "matchLabels"))
    routed = labels(find(service.node, "spec", "selector")) if service else {}
    for key in {**selected, **routed}:
        wanted = {each[key] for each in (selected, routed) if key in each}
        if wanted == {given.get(key)}:
            continue
        if key in selected and key in routed and len(wanted) == 1:
            message = (
                f"the pod's label {key} is {given.get(key, 'missing')}, and both selectors ask for {selected[key]}"
            )
            yield at("pod-selector", root, find(pod, key) or pod, message, f"{key}: {selected[key]}")
            continue
        if key in selected and selected[key] != given.get(key):
            node = find(root.node, "spec", "selector", "matchLabels", key)
            message = f"the selector {key}: {selected[key]} is not a label of the pod"
            yield at("pod-selector", root, node, message, _set(key, given.get(key)))
        if service and key in routed and routed[key] != given.get(key):
            message = f"the selector {key}: {routed[key]} is not a label of the pod"
            yield at(
                "service-selector",
                service,
                find(service.node, "spec", "selector", key),
                message,
                _set(key, given.get(key)),
            )


def _deployment(platform: Platform, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    root = pieces.deployment
    replicas, strategy = scalar(root.node, "spec", "replicas"), scalar(root.node, "spec", "strategy", "type")
    spec = find(root.node, "spec")
    message = "a GPU model must have zero replicas in git, or every sync starts the GPU and its cost"
    given = _replaced_replicas(pieces)
    yield from check_replicas(pieces, siblings)
    gated = pieces.gpu and norms.is_gated(pieces, siblings)
    if gated and given is None and (replicas is None or replicas.value != "0"):
        yield at("replicas", root, replicas or spec, message, "replicas: 0")
    if gated and (strategy is None or strategy.value != "Recreate"):
        message = "a rolling update waits for a second GPU forever"
        yield at("strategy", root, strategy or find(spec, "strategy") or spec, message, "strategy.type: Recreate")
    pulled, off = scalar(pieces.container, "image"), replicas is not None and replicas.value == "0" and given is None
    if (
        not pieces.gpu
        and off
        and pieces.entries
        and norms.names_applications(siblings, platform)
        and not _is_scaled(platform, pieces)
    ):
        message = "an endpoint without a GPU is always up, and nothing scales this one above zero"
        yield at("replicas", root, replicas, message, "replicas: 1")
    tag = re.search(r"text-embeddings-inference:([^@]+)", pulled.value) if pulled is not None else None
    if tag and pieces.gpu == tag[1].startswith("cpu"):
        message = f"the image {tag[0]} is for {'a CPU' if pieces.gpu else 'a GPU'}, and the pod has {'a GPU' if pieces.gpu else 'none'}"
        yield at("gpu-limit", root, pulled, message, "use the image for this hardware")
    resources = find(pieces.container, "resources")
    limits, gpus = find(resources, "limits"), scalar(resources, "limits", GPU)
    tolerated = items(find(root.node, "spec", "template", "spec", "tolerations"))
    # A slice of a GPU has its own resource name, and a device claim is not a limit.
    asks = any(key.startswith("nvidia.com/") and given not in ("", "0") for key, given in labels(limits).items())
    if any(value(each, "key") == GPU for each in tolerated) and not asks and find(resources, "claims") is None:
        message = "the pod tolerates GPU nodes, and its engine requests no GPU"
        where = gpus or limits or resources or pieces.container
        yield at("gpu-limit", root, where, message, f"{GPU}: 1")
    for image in _images(root.node) if norms.pins_images(pieces, siblings) else ():
        made, pin = pieces.rendering.image(value(image)), r"@sha256:[0-9a-f]{64}$"
        replaced = pieces.rendering.image_change(value(image))
        if replaced is not None and re.search(pin, value(image)) and not re.search(pin, made):
            message = f"the kustomization changes the image to {made}, without a digest"
            fix = "write digest instead of newTag"
            yield Finding(rule="image-digest", path=replaced.path, line=replaced.line, message=message, fix=fix)
        elif not re.search(pin, made):
            message = f"the image {value(image)} is not pinned by digest"
            yield at("image-digest", root, image, message, "append @sha256:… of this tag")


def check_replicas(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Return whether a kustomization leaves a GPU model above zero replicas."""
    given = _replaced_replicas(pieces)
    if pieces.gpu and norms.is_gated(pieces, siblings) and given is not None and given[0]:
        message = "a GPU model must have zero replicas in git, or every sync starts the GPU and its cost"
        where = given[1]
        yield Finding(rule="replicas", path=where.path, line=where.line, message=message, fix="write 0")


def _replaced_replicas(pieces: Pieces) -> tuple[int, Opaque] | None:
    """The replicas in a kustomization, with their position."""
    found = pieces.rendering.count(pieces.deployment.node)
    return (found.replicas, found.place) if found is not None else None


def _is_scaled(tree: Tree, pieces: Pieces) -> bool:
    """Return whether an autoscaler targets the Deployment."""
    kinds = ("HorizontalPodAutoscaler", "ScaledObject", "HTTPScaledObject")
    return any(
        kind in kinds and value(each.node, "spec", "scaleTargetRef", "name") == pieces.workload
        for path in tree.grep("scaleTargetRef")
        for kind, each in objects(tree, path)
    )


def _staging(pieces: Pieces) -> Iterator[Finding]:
    """The initContainer must download the model that the engine loads."""
    root, model = pieces.deployment, pieces.model
    served = pieces.flag("--served-model-name")
    # A bare name is neither a path nor an id: the engine finds nothing of that name.
    known_as = {model.value} if re.fullmatch(r"[\w.-]+", model.value) else {model.value, model_of(pieces).hf_id}
    for node in pieces.staging:
        for match in re.finditer(r"(?:[\"']|download\s+|^)([A-Za-z0-9][\w.-]*/[\w.-]+)(?:[\"']|\s|$)", node.value):
            staged = match[1]
            if staged in known_as:
                continue
            known = served.value if served else ""
            same = stem(staged).lower() == stem(model.value).lower()
            if same:  # the owner or the letters' case: it is unknown which of the two was meant
                message = f"the engine loads {model.value}, and the initContainer stages {staged}"
                yield at("staged-model", root, model.value_node, message, f"{model.name}={staged}")
            if stem(staged).lower() == known != stem(model.value).lower():
                message = f"the engine loads {model.value}, and the initContainer and the served name have {staged}"
                yield at("staged-model", root, model.value_node, message, f"{model.name}={staged}")
            else:
                within = node.value[: match.start(1)].count("\n") + (1 if node.style in ("|", ">") else 0)
                message = f"the initContainer stages {staged}, and the engine serves {model.value}"
                fix = f"stage {model.value}"
                yield Finding(
                    rule="staged-model", path=root.document.path, line=line(node) + within, message=message, fix=fix
                )


def _engine(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """The engine's own arguments and environment, if it has them."""
    root = pieces.deployment
    if not {"quantization", "offline"} <= pieces.runtime.rules:
        return
    quantization = pieces.flag("--quantization")
    known = model_of(pieces).hf_id
    named = next((each for each in _FORMATS if each in known.lower()), None)
    given = next((each for each in _FORMATS if quantization and each in quantization.value), None)
    told = bool(named) or (given in ("awq", "gptq") and not is_path(known))  # a directory may have any name
    if quantization and named != given and told and quantization.value not in _SEVERAL:
        message = f"--quantization={quantization.value}, and {known} is {named or 'not quantized'}"
        fix = f"name {named}" if named else "remove the argument"
        yield at("quantization", root, quantization.node, message, fix)
    env = environment(pieces.container)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if norms.runs_offline(pieces, siblings) else ():
        if variable not in env:
            message = f"{variable} is missing: the engine would contact the Hub"
            # A misspelled resource exists as a file; otherwise it is missing from the list.
            near = difflib.get_close_matches(variable, set(env) - {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}, 1, 0.8)
            where = find(env[near[0]], "name") if near else find(pieces.container, "env")
            where = where or pieces.container
            yield at("offline", root, where, message, f'{variable}: "1"')
        elif value(env[variable], "value").lower() not in ("1", "true", "yes", "on"):
            yield at(
                "offline", root, find(env[variable], "value") or env[variable], f"{variable} is not on", 'value: "1"'
            )


def _port(pieces: Pieces) -> Iterator[Finding]:
    root, given = pieces.deployment, pieces.flag("--port")
    ports = [node for item in items(find(pieces.container, "ports")) if (node := scalar(item, "containerPort"))]
    port = given.value if given else str(pieces.runtime.port or "")
    if ports and port.isdecimal() and port not in {node.value for node in ports}:
        message = f"the engine listens on {port}, and the container has {', '.join(node.value for node in ports)}"
        agreed = {value(each, "targetPort") or value(each, "port") for each in _service_ports(pieces)} | {
            value(find(pieces.container, kind), "httpGet", "port") for kind in ("startupProbe", "readinessProbe")
        }
        where = given.node if given and port not in agreed else ports[0]
        yield at("container-port", root, where, message, f"containerPort: {port}")


def _service_ports(pieces: Pieces) -> tuple[Node, ...]:
    return tuple(items(find(pieces.service.node, "spec", "ports"))) if pieces.service is not None else ()


def _service(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    root, service = pieces.deployment, pieces.service
    if service is None:
        if any(sibling.service is not None and selects(sibling.service.node, root.node) for sibling in siblings):
            return  # the Service of another model that takes turns with it
        yield at("service-missing", root, None, f"{pieces.name} has no Service", "add service.yaml")
        return
    ports = [item for container in items(find(pieces.pod, "containers")) for item in items(find(container, "ports"))]
    named = {value(each, "name") for each in ports}
    numbers = {value(each, "containerPort") for each in ports}
    for port in items(find(service.node, "spec", "ports")):
        target = scalar(port, "targetPort") or scalar(port, "port")
        if target is None or not ports:
            continue
        if target.value not in (numbers if target.value.isdecimal() else named):
            have = ", ".join(sorted(named - {""} | numbers))
            message = f"targetPort {target.value} is not a port of the container, which has {have}"
            yield at("target-port", service, target, message, f"targetPort: {next(iter(sorted(named - {''})), have)}")


def _skips(layout: Layout, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """A copy of the template needs the same exceptions for the security scanner."""
    root, own = pieces.deployment, find(pieces.deployment.node, "metadata", "annotations")
    given = " ".join(labels(own).values())
    for key, reason, of in _expected_skips(layout, pieces, siblings):
        rule = reason.partition("=")[0]
        if rule not in given and (rule != _SECRET_IN_ENVIRONMENT or _reads_secrets(pieces)):
            where = own or find(root.node, "metadata")
            yield at("checkov-skip", root, where, f"the exception {rule} of {of} is lost", f"{key}: {reason}")


def _expected_skips(layout: Layout, pieces: Pieces, siblings: Sequence[Pieces]) -> list[tuple[str, str, str]]:
    """The template's exceptions; for the template itself, those that all its siblings share."""
    own = pieces.name == layout.template
    models = [sibling for sibling in siblings if own or sibling.name == layout.template]
    alike = [model for model in models if model.model.name == pieces.model.name]
    skips = [
        {
            reason.partition("=")[0]: (key, reason, each.name)
            for key, reason in labels(find(each.deployment.node, "metadata", "annotations")).items()
            if key.startswith("checkov.io/skip")
        }
        for each in alike
    ]
    return [first for rule, first in (skips[0] if skips else {}).items() if all(rule in skip for skip in skips)]


def _reads_secrets(pieces: Pieces) -> bool:
    env = items(find(pieces.container, "env"))
    return any(find(each, "valueFrom", "secretKeyRef") is not None for each in env)


def _images(deployment: Node) -> Iterator[Node]:
    pod = find(deployment, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        image = scalar(container, "image")
        if image is not None:
            yield image


def _set(key: str, wanted: str | None) -> str:
    return f"{key}: {wanted}" if wanted else f"give the pod the label {key}"
