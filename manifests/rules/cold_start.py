"""The rules for cold starts: compile caches that are lost with the pod, and images that are pulled again.

vLLM compiles its kernels at startup and stores the result in `VLLM_CACHE_ROOT` (`$XDG_CACHE_HOME/vllm` by default);
Triton uses `TRITON_CACHE_DIR`. vLLM's documentation recommends keeping that directory "to save a great amount of
compilation time" (docs.vllm.ai, design/torch_compile); reported costs of a lost cache start at one minute per boot
(mitchross/talos-argocd-proxmox#1848: 166 s of torch.compile in a boot of 11 minutes). An emptyDir is deleted with the
pod.

The directory on the volume contains the image's digest in its name, so that each image uses its own files.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from ruamel.yaml.nodes import ScalarNode

from manifests.edit import find, items, scalar, value
from manifests.pieces import Pieces, environment
from manifests.rules.finding import Finding, at

_ROOTS = ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME")
"""Variables that set vLLM's own cache; the first of them that is set applies."""
DIRECTORY = "compile-cache"
DIGEST = re.compile(r"@sha256:(?P<digest>[0-9a-f]{12})[0-9a-f]{52}$")


class Lost(NamedTuple):
    """A cache variable whose directory is not on the volume, or belongs to another image; `node` is None if it is not
    set.
    """

    name: str
    node: ScalarNode | None


def check(pieces: Pieces) -> Iterator[Finding]:
    """Report work that each cold start of the endpoint repeats unnecessarily."""
    image = pieces.image
    if applies(pieces) and DIGEST.search(image) and (missing := lost(pieces)):
        names = ", ".join(cache.name for cache in missing)
        node = next((cache.node for cache in missing if cache.node is not None), scalar(pieces.container, "image"))
        stale = all(cache.node is not None and DIRECTORY in cache.node.value for cache in missing)
        message = (
            f"the compile caches ({names}) are named after an image other than {_short(image)}"
            if stale
            else f"the compile caches ({names}) are lost with the pod, so that each boot compiles again"
        )
        fix = f"put them on the volume, below the image's digest: `/model tune {pieces.name}`"
        yield at("cold-start", pieces.deployment, node, message, fix)
    for policy in pulled_again(pieces):
        message = "imagePullPolicy is Always although the image is pinned by digest: each start contacts the registry unnecessarily"
        yield at("image-pull-policy", pieces.deployment, policy, message, "write IfNotPresent")


def applies(pieces: Pieces) -> bool:
    return "cold-start" in pieces.runtime.rules and pieces.gpu and bool(mounts(pieces))


def mounts(pieces: Pieces) -> list[str]:
    """Return the mount paths of claims to which the engine can write."""
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    claims = {value(v, "name") for v in items(find(pod, "volumes")) if value(v, "persistentVolumeClaim", "claimName")}
    return [
        value(mount, "mountPath").rstrip("/")
        for mount in items(find(pieces.container, "volumeMounts"))
        if value(mount, "name") in claims and value(mount, "readOnly") != "true" and not value(mount, "subPath")
    ]


def lost(pieces: Pieces) -> list[Lost]:
    """Return the caches that are lost with the pod; those of Triton and Inductor count only if their variables are set."""
    variables = {name: scalar(node, "value") for name, node in environment(pieces.container).items()}
    # Without HF_HOME, the weights are also below XDG_CACHE_HOME, so this variable must keep its value.
    roots = _ROOTS if "HF_HOME" in variables else _ROOTS[:1]
    root = next((name for name in roots if name in variables), _ROOTS[0])
    names = (root, *(name for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR") if name in variables))
    digest = DIGEST.search(pieces.image)
    lost_caches = []
    for name in names:
        node = variables.get(name)
        if name in variables and node is None:
            continue  # a ConfigMap or a Secret sets the variable, so its value is unknown
        if node is None or not _is_kept(node.value, mounts(pieces), digest["digest"] if digest else ""):
            lost_caches.append(Lost(name, node))
    return lost_caches


def _is_kept(path: str, mounts: list[str], digest: str) -> bool:
    """Return whether a path is on a volume, and not in the directory of another image."""
    if not any(PurePosixPath(path).is_relative_to(mount) for mount in mounts):
        return False
    return DIRECTORY not in path or not digest or digest in path


def pulled_again(pieces: Pieces) -> Iterator[ScalarNode]:
    pod = find(pieces.deployment.node, "spec", "template", "spec")
    for container in (*items(find(pod, "initContainers")), *items(find(pod, "containers"))):
        policy = scalar(container, "imagePullPolicy")
        if policy is not None and policy.value == "Always" and "@sha256:" in value(container, "image"):
            yield policy


def _short(image: str) -> str:
    return image.rpartition("/")[2][:40]
