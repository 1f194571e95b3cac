"""The rules for weights: where they are staged, mounted and stored."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ruamel.yaml.nodes import Node

from manifests.edit import find, items, scalar, value
from manifests.layout import Layout
from manifests.pieces import Located, Pieces, environment
from manifests.rules.finding import Finding, at
from manifests.sizing import estimated_weights, quantity_bytes
from manifests.tree import within

# Other ways to configure the location of the weights.
_OTHER_CACHES = frozenset({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"})
_DOWNLOADS = re.compile(r"snapshot_download|hf_hub_download|\bhf download|huggingface-cli download")


def check(layout: Layout, pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report problems with the volume of one endpoint, and with its content."""
    yield from _weights_path(pieces)
    yield from _mounts(pieces)
    yield from _offline(pieces)
    yield from _claims(pieces, siblings)
    yield from _shared(pieces, siblings)
    yield from _size(pieces)


def _containers(pieces: Pieces) -> tuple[Node, ...]:
    return (*items(find(pieces.pod, "initContainers")), *items(find(pieces.pod, "containers")))


def _weights_path(pieces: Pieces) -> Iterator[Finding]:
    """Check that staged and served weights are at the same path on the volume."""
    root, pod = pieces.deployment, pieces.pod
    persistent = {value(item, "name") for item in items(find(pod, "volumes")) if find(item, "persistentVolumeClaim")}
    containers = (*items(find(pod, "initContainers")), pieces.container)
    mounted = [
        (
            mounter,
            [
                mount
                for item in items(find(mounter, "volumeMounts"))
                if value(item, "name") in persistent
                if (mount := scalar(item, "mountPath"))
            ],
        )
        for mounter in containers
    ]
    places: list[tuple[Node, str]] = []
    for container, mounts in mounted:
        env = environment(container)
        home = scalar(env.get("HF_HOME"), "value")
        if home is None or env.keys() & _OTHER_CACHES or pieces.flag("--download-dir"):
            continue
        if not mounts:
            if persistent and (container is pieces.container or _DOWNLOADS.search(_script(container))):
                message = f"HF_HOME is {home.value}, but the claim is not mounted: weights are lost with the pod"
                yield at(
                    "weights-path", root, find(container, "volumeMounts") or container, message, "mount the claim there"
                )
            continue
        mount = next((candidate for candidate in mounts if within(home.value, candidate.value)), None)
        if mount is not None:
            sub_path = next(
                (
                    part
                    for item in items(find(container, "volumeMounts"))
                    if value(item, "mountPath") == mount.value and (part := scalar(item, "subPath"))
                ),
                None,
            )
            place = posixpath.join(value(sub_path), posixpath.relpath(home.value, mount.value))
            places.append((sub_path or home, posixpath.normpath(place)))
            continue
        if any(within(candidate.value, home.value) for candidate in mounts):
            continue
        # If the other endpoints use the same mount path, the variable is wrong.
        other_paths = {
            candidate.value
            for other_container, candidates in mounted
            if other_container is not container
            for candidate in candidates
        }
        usual = mounts[0].value in other_paths
        message = f"HF_HOME is {home.value}, but the claim is mounted at {mounts[0].value}"
        fix = f"value: {mounts[0].value}" if usual else f"mountPath: {home.value}"
        yield at("weights-path", root, home if usual else mounts[0], message, fix)
        if len(mounted) == 1:  # with only one container, either path may be wrong
            yield at("weights-path", root, home, message, f"value: {mounts[0].value}")
    if len({place for _, place in places}) > 1:
        node, place = next(((node, place) for node, place in places if place != "."), places[-1])
        message = f"HF_HOME is {place} on the volume here, but another directory in the other container"
        yield at("weights-path", root, node, message, "write the same HF_HOME in both places")


def _script(container: Node) -> str:
    return " ".join(value(item) for key in ("command", "args") for item in items(find(container, key)))


def _mounts(pieces: Pieces) -> Iterator[Finding]:
    """Report mounts of volumes that the pod does not declare, which Kubernetes refuses."""
    volumes = {value(item, "name") for item in items(find(pieces.pod, "volumes"))}
    templates = find(pieces.deployment.node, "spec", "volumeClaimTemplates")
    mounted = Counter(
        value(mount, "name") for container in _containers(pieces) for mount in items(find(container, "volumeMounts"))
    )
    lost = [name for name in mounted if name and name not in volumes]
    unused = [volume for volume in items(find(pieces.pod, "volumes")) if value(volume, "name") not in mounted]
    if templates is None and len(lost) == len(unused) == 1 and mounted[lost[0]] > 1:
        name = scalar(unused[0], "name")  # several places agree on the other name
        message = f"nothing mounts {value(name)}, but {mounted[lost[0]]} mounts name {lost[0]}"
        yield at("volume-mount", pieces.deployment, name or unused[0], message, f"name: {lost[0]}")
        return
    for container in _containers(pieces) if templates is None else ():
        for mount in items(find(container, "volumeMounts")):
            name = scalar(mount, "name")
            if name is not None and name.value not in volumes:
                message = f"the pod has no volume {name.value}; it has {', '.join(sorted(volumes)) or 'none'}"
                yield at("volume-mount", pieces.deployment, name, message, "name a volume of the pod")


def _offline(pieces: Pieces) -> Iterator[Finding]:
    """Report a container that downloads from the Hub, but is set to offline mode."""
    for container in items(find(pieces.pod, "initContainers")):
        env = environment(container)
        node = env.get("HF_HUB_OFFLINE")
        if node is None or value(node, "value").lower() not in ("1", "true", "yes", "on"):
            continue
        if _DOWNLOADS.search(_script(container)):
            message = (
                "HF_HUB_OFFLINE is on in the container that downloads the weights: it finds nothing on an empty volume"
            )
            yield at(
                "staging-offline", pieces.deployment, find(node, "name"), message, "remove it here; the engine has it"
            )


def _claims(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report a claim whose name differs from the reference to it, at both places, because either name may be wrong."""
    root, home = pieces.deployment, pieces.home
    claimed = [
        claim
        for volume in items(find(pieces.pod, "volumes"))
        if (claim := scalar(volume, "persistentVolumeClaim", "claimName"))
    ]
    present = {value(located.node, "metadata", "name"): located for located in pieces.claims}
    elsewhere = {value(pieces.pvc.node, "metadata", "name")} if pieces.pvc else set()
    missing = [claim for claim in claimed if claim.value not in {*present, *elsewhere}]
    unused = [located for name, located in present.items() if name not in {claim.value for claim in claimed}]
    if not pieces.claims and not any(sibling.claims for sibling in siblings):
        return  # claims are created elsewhere
    for claim in missing:
        message = f"no PersistentVolumeClaim in {home} is named {claim.value}"
        fix = f"claimName: {value(unused[0].node, 'metadata', 'name')}" if unused else "name the claim of pvc.yaml"
        yield at("claim", root, claim, message, fix)
    if unused and not claimed:
        yield from _unmounted_claim(pieces, unused[0])
    for located in unused if missing else ():
        name = find(located.node, "metadata", "name")
        message = f"the Deployment claims {missing[0].value}, but nothing uses this claim"
        yield at("claim", located, name, message, f"name: {missing[0].value}")


def _unmounted_claim(pieces: Pieces, claim: Located) -> Iterator[Finding]:
    """Report weights on an emptyDir if the endpoint has a claim that nothing mounts."""
    home = value(environment(pieces.container).get("HF_HOME"), "value")
    mounts = {value(item, "name"): value(item, "mountPath") for item in items(find(pieces.container, "volumeMounts"))}
    for volume in items(find(pieces.pod, "volumes")):
        node, path = find(volume, "emptyDir"), mounts.get(value(volume, "name"), "")
        if node is not None and path and within(home, path):
            name = value(claim.node, "metadata", "name")
            message = f"the weights are lost with the pod, and the claim {name} is not used"
            yield at("claim", pieces.deployment, node, message, f"persistentVolumeClaim: claimName: {name}")


def _shared(pieces: Pieces, siblings: Sequence[Pieces]) -> Iterator[Finding]:
    """Report a ReadWriteOnce volume that two endpoints use: their pods wait for it, and two models fill it.

    An endpoint that declares no claim shares the volume on purpose: only one of the endpoints runs on the GPU at a
    time.
    """
    if (
        pieces.pvc is None
        or pieces.pvc not in pieces.claims
        or set(_modes(pieces.pvc.node)) - {"ReadWriteOnce", "ReadWriteOncePod"}
    ):
        return
    name = value(pieces.pvc.node, "metadata", "name")
    for sibling in (sibling for sibling in siblings if sibling.claims):
        for volume in items(find(sibling.pod, "volumes")):
            claim = scalar(volume, "persistentVolumeClaim", "claimName")
            if claim is not None and claim.value == name:
                message = f"{sibling.name} claims {name}, the volume of {pieces.name}: one of their pods waits for it"
                yield at("claim-shared", sibling.deployment, claim, message, "give it a claim of its own")


def _modes(claim: Node) -> tuple[str, ...]:
    return tuple(value(item) for item in items(find(claim, "spec", "accessModes")))


def _size(pieces: Pieces) -> Iterator[Finding]:
    if pieces.pvc is None or pieces.pvc not in pieces.claims:
        return
    yield from _binding(pieces, pieces.pvc)
    size, weights = (
        scalar(pieces.pvc.node, "spec", "resources", "requests", "storage"),
        estimated_weights(pieces.model.value),
    )
    if size is None:
        message = f"the claim of {pieces.name} requests no storage: Kubernetes refuses it"
        yield at("volume-size", pieces.pvc, find(pieces.pvc.node, "spec"), message, "resources.requests.storage: 20Gi")
        return
    try:
        capacity = quantity_bytes(size.value)
    except ValueError:
        message = f"{size.value} is not a valid size"
        yield at("volume-size", pieces.pvc, size, message, "storage: 20Gi")
        return
    if weights and capacity < weights:
        message = (
            f"the volume of {size.value} is smaller than the weights of {pieces.model.value} ({weights / 10**9:.1f} GB)"
        )
        yield at("volume-size", pieces.pvc, size, message, f"storage: {weights * 1.2 / 2**30:.0f}Gi")


def _binding(pieces: Pieces, claim: Located) -> Iterator[Finding]:
    """Report a claim that is not writable, or to which Kubernetes cannot bind a volume."""
    modes = items(find(claim.node, "spec", "accessModes"))
    if modes and all(value(mode) == "ReadOnlyMany" for mode in modes):
        message = "the volume is read-only, so the weights cannot be staged"
        yield at("claim", claim, modes[0], message, "ReadWriteOnce")
    storage_class = scalar(claim.node, "spec", "storageClassName")
    named = find(claim.node, "spec", "volumeName") or find(claim.node, "spec", "selector")
    if storage_class is not None and storage_class.style and not storage_class.value and named is None:
        message = f"an empty storageClassName creates no volume, so {pieces.name} stays Pending"
        yield at("claim", claim, storage_class, message, "remove it for the cluster's default class, or name one")
