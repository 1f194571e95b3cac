"""The rules of an endpoint's own directory: Deployment, initContainer, volume and Service.

Where two places disagree, the fault is named at the one that a third place contradicts.
"""

import difflib
import re
from collections.abc import Iterator

from ruamel.yaml.nodes import Node

from manifests.edit import find, flags, items, line, scalar, scalars, value
from manifests.pieces import GPU, Layout, Pieces, environment, kustomization, labels, locate, names
from manifests.rules.finding import Finding, at
from manifests.tree import Tree, within
from manifests.wording import stem

_FORMATS = ("awq", "gptq", "fp8")

# Other ways to say where weights are kept.
_OTHER_CACHES = frozenset({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"})

# The scanner's rule against secrets in environment variables; vLLM reads its key from nowhere else.
_SECRET_IN_ENVIRONMENT = "CKV_K8S_35"  # noqa: S105


def check(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """What is wrong in the directory of one endpoint."""
    yield from _kustomization(tree, layout, pieces)
    yield from _labels(pieces)
    yield from _deployment(pieces)
    yield from _staging(pieces)
    yield from _engine(pieces)
    yield from _port(pieces)
    yield from _weights_path(pieces)
    yield from _volume(layout, pieces)
    yield from _service(pieces)
    yield from _skips(tree, layout, pieces)


def _kustomization(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """A file that kustomize is not told of is not deployed; one without a kustomization is deployed by its directory."""
    listing = kustomization(tree, pieces)
    if listing is None:
        return
    resources = find(listing.node, "resources")
    listed = {str(each.value).removeprefix("./") for each in scalars([listing.node])}
    parts = [each for each in (pieces.deployment, pieces.service, *pieces.claims) if each is not None]
    for path in sorted({each.document.path for each in parts}):
        name = path.removeprefix(f"{layout.home(pieces.name)}/")
        if "/" not in name and name not in listed:
            yield at("kustomization", listing, resources, f"{name} is not listed, so it is not deployed", f"- {name}")


def _labels(pieces: Pieces) -> Iterator[Finding]:
    """Deployment, pod template and Service name the pod in the same way."""
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
            message = f"the selector {key}: {selected[key]} is no label of the pod"
            yield at("pod-selector", root, node, message, _set(key, given.get(key)))
        if service and key in routed and routed[key] != given.get(key):
            message = f"the selector {key}: {routed[key]} is no label of the pod"
            yield at(
                "service-selector",
                service,
                find(service.node, "spec", "selector", key),
                message,
                _set(key, given.get(key)),
            )


def _deployment(pieces: Pieces) -> Iterator[Finding]:
    root = pieces.deployment
    replicas, strategy = scalar(root.node, "spec", "replicas"), scalar(root.node, "spec", "strategy", "type")
    spec = find(root.node, "spec")
    if pieces.gpu and (replicas is None or replicas.value != "0"):
        message = "a GPU model must rest at zero replicas, or every sync starts the bill"
        yield at("replicas", root, replicas or spec, message, "replicas: 0")
    if pieces.gpu and (strategy is None or strategy.value != "Recreate"):
        message = "a rolling update waits for a second GPU for ever"
        yield at("strategy", root, strategy or find(spec, "strategy") or spec, message, "strategy.type: Recreate")
    resources = find(pieces.container, "resources")
    limits, gpus = find(resources, "limits"), scalar(resources, "limits", GPU)
    tolerated = items(find(root.node, "spec", "template", "spec", "tolerations"))
    # A slice of a GPU has a name of its own, and a claim of a device is no limit.
    asks = any(key.startswith("nvidia.com/") and given not in ("", "0") for key, given in labels(limits).items())
    if any(value(each, "key") == GPU for each in tolerated) and not asks and find(resources, "claims") is None:
        message = "the pod tolerates GPU nodes, and its engine asks for no GPU"
        where = gpus or limits or resources or pieces.container
        yield at("gpu-limit", root, where, message, f"{GPU}: 1")
    for image in _images(root.node):
        if not re.search(r"@sha256:[0-9a-f]{64}$", value(image)):
            message = f"the image {value(image)} is not pinned by digest"
            yield at("image-digest", root, image, message, "append @sha256:… of this tag")


def _staging(pieces: Pieces) -> Iterator[Finding]:
    """The initContainer fetches what the engine loads."""
    root, model = pieces.deployment, pieces.model
    served = pieces.flag("--served-model-name")
    for node in pieces.staging:
        for match in re.finditer(r"(?:[\"']|download\s+|^)([A-Za-z0-9][\w.-]*/[\w.-]+)(?:[\"']|\s|$)", node.value):
            staged = match[1]
            if staged == model.value:
                continue
            known = served.value if served else ""
            if stem(staged).lower() == known != stem(model.value).lower():
                message = f"the engine loads {model.value}, and the initContainer and the served name say {staged}"
                yield at("staged-model", root, model.value_node, message, f"{model.name}={staged}")
            else:
                within = node.value[: match.start(1)].count("\n") + (1 if node.style in ("|", ">") else 0)
                message = f"the initContainer stages {staged}, and the engine serves {model.value}"
                fix = f"stage {model.value}"
                yield Finding(
                    rule="staged-model", path=root.document.path, line=line(node) + within, message=message, fix=fix
                )


def _engine(pieces: Pieces) -> Iterator[Finding]:
    """vLLM's own arguments and environment. TEI has none of them."""
    root, model = pieces.deployment, pieces.model
    if model.name != "--model":
        return
    quantization = pieces.flag("--quantization")
    named = next((each for each in _FORMATS if each in model.value.lower()), None)
    given = next((each for each in _FORMATS if quantization and each in quantization.value), None)
    if quantization and named != given and (named or given in ("awq", "gptq")):
        message = f"--quantization={quantization.value}, and {model.value} is {named or 'not quantized'}"
        fix = f"name {named}" if named else "remove the argument"
        yield at("quantization", root, quantization.node, message, fix)
    env = environment(pieces.container)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if variable not in env:
            message = f"{variable} is missing: the engine would reach for the Hub"
            # A misspelled one stands somewhere; one that is not there at all is missing from the list.
            near = difflib.get_close_matches(variable, set(env) - {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}, 1, 0.8)
            where = find(env[near[0]], "name") if near else find(pieces.container, "env")
            where = where or pieces.container
            yield at("offline", root, where, message, f'{variable}: "1"')
        elif value(env[variable], "value").lower() not in ("1", "true", "yes", "on"):
            yield at(
                "offline", root, find(env[variable], "value") or env[variable], f"{variable} is not on", 'value: "1"'
            )


def _port(pieces: Pieces) -> Iterator[Finding]:
    root, every = pieces.deployment, flags(find(pieces.container, "command"))
    given = pieces.flag("--port") or next((each for each in every if each.name == "--port"), None)
    ports = [node for each in items(find(pieces.container, "ports")) if (node := scalar(each, "containerPort"))]
    port = given.value if given else "8000" if pieces.model.name == "--model" else ""
    if ports and port.isdecimal() and port not in {node.value for node in ports}:
        message = f"the engine listens on {port}, and the container has {', '.join(node.value for node in ports)}"
        yield at("container-port", root, given.node if given else ports[0], message, f"containerPort: {port}")


def _weights_path(pieces: Pieces) -> Iterator[Finding]:
    """What is staged and what is served is on the volume that keeps it."""
    root = pieces.deployment
    pod = find(root.node, "spec", "template", "spec")
    kept = {value(each, "name") for each in items(find(pod, "volumes")) if find(each, "persistentVolumeClaim")}
    containers = (*items(find(pod, "initContainers")), pieces.container)
    mounted = [
        (
            each,
            [
                mount
                for found in items(find(each, "volumeMounts"))
                if value(found, "name") in kept
                if (mount := scalar(found, "mountPath"))
            ],
        )
        for each in containers
    ]
    for container, mounts in mounted:
        env = environment(container)
        home = scalar(env.get("HF_HOME"), "value")
        if home is None or not mounts or env.keys() & _OTHER_CACHES or pieces.flag("--download-dir"):
            continue
        if any(within(home.value, each.value) or within(each.value, home.value) for each in mounts):
            continue
        # Where the others mount it as well, it is the variable that is wrong.
        others = {each.value for other, found in mounted if other is not container for each in found}
        usual = mounts[0].value in others
        message = f"HF_HOME is {home.value}, and the claim is mounted at {mounts[0].value}"
        fix = f"value: {mounts[0].value}" if usual else f"mountPath: {home.value}"
        yield at("weights-path", root, home if usual else mounts[0], message, fix)


def _volume(layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """Both ends of a claim that does not meet: nobody knows which of the names was meant."""
    root, home = pieces.deployment, layout.home(pieces.name)
    claimed = [
        claim
        for volume in items(find(root.node, "spec", "template", "spec", "volumes"))
        if (claim := scalar(volume, "persistentVolumeClaim", "claimName"))
    ]
    present = {value(each.node, "metadata", "name"): each for each in pieces.claims}
    missing = [claim for claim in claimed if claim.value not in present]
    unused = [each for name, each in present.items() if name not in {claim.value for claim in claimed}]
    if not present and pieces.model.name == "--model":
        # A claim that another directory makes is somebody's choice for CPU models; weights of a GPU model have their own.
        unused = []
    for claim in missing:
        message = f"no PersistentVolumeClaim in {home} is named {claim.value}"
        fix = f"claimName: {value(unused[0].node, 'metadata', 'name')}" if unused else "name the claim of pvc.yaml"
        yield at("claim", root, claim, message, fix)
    for each in unused if missing else ():
        name = find(each.node, "metadata", "name")
        message = f"the Deployment claims {missing[0].value}, and this one is used by nobody"
        yield at("claim", each, name, message, f"name: {missing[0].value}")


def _service(pieces: Pieces) -> Iterator[Finding]:
    root, service = pieces.deployment, pieces.service
    if service is None:
        yield at("service-missing", root, None, f"{pieces.name} has no Service", "add service.yaml")
        return
    ports = items(find(pieces.container, "ports"))
    named = {value(each, "name") for each in ports}
    numbers = {value(each, "containerPort") for each in ports}
    for port in items(find(service.node, "spec", "ports")):
        target = scalar(port, "targetPort") or scalar(port, "port")
        if target is None or not ports:
            continue
        if target.value not in (numbers if target.value.isdecimal() else named):
            have = ", ".join(sorted(named - {""} | numbers))
            message = f"targetPort {target.value} is no port of the container, which has {have}"
            yield at("target-port", service, target, message, f"targetPort: {next(iter(sorted(named - {''})), have)}")


def _skips(tree: Tree, layout: Layout, pieces: Pieces) -> Iterator[Finding]:
    """An exception for a security scanner that the template needed, a copy of it needs as well."""
    root, own = pieces.deployment, find(pieces.deployment.node, "metadata", "annotations")
    given = " ".join(labels(own).values())
    for key, reason, of in _expected_skips(tree, layout, pieces):
        rule = reason.partition("=")[0]
        if rule not in given and (rule != _SECRET_IN_ENVIRONMENT or _reads_secrets(pieces)):
            where = own or find(root.node, "metadata")
            yield at("checkov-skip", root, where, f"the exception {rule} of {of} is lost", f"{key}: {reason}")


def _expected_skips(tree: Tree, layout: Layout, pieces: Pieces) -> list[tuple[str, str, str]]:
    """The template's exceptions; for the template itself, those that all its siblings share."""
    if pieces.name != layout.template:
        template = locate(tree, layout, layout.template)
        siblings = [template] if template else []
    else:
        located = (locate(tree, layout, each) for each in names(tree, layout) if each != pieces.name)
        siblings = [each for each in located if each is not None]
    alike = [each for each in siblings if each.model.name == pieces.model.name]
    skips = [
        {
            reason.partition("=")[0]: (key, reason, each.name)
            for key, reason in labels(find(each.deployment.node, "metadata", "annotations")).items()
            if key.startswith("checkov.io/skip")
        }
        for each in alike
    ]
    return [first for rule, first in (skips[0] if skips else {}).items() if all(rule in each for each in skips)]


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
