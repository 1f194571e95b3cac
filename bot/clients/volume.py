"""Determine where a second pod can mount an endpoint's volume, and expand the volume.

Kubernetes enforces the node affinity of a bound volume. When it binds a volume for a CPU pod, it does not consider the
GPU pod, which is created later: if the volume is bound in another zone, or to the CPU node, the GPU pod can never mount
it. So an unbound volume must be bound in a zone with a GPU.
"""

import asyncio
from collections.abc import Iterable

from pydantic import BaseModel

from bot.clients import boot
from bot.clients.kube import Collection, Kube, KubeObject, Selection
from bot.clients.rights import CLAIMS, MODELS, NODES, PODS, STORAGE_CLASSES, VOLUMES
from bot.clients.workload import gpus_of, owner_of
from bot.errors import BotError
from bot.settings.config import Staging
from manifests.sizing import quantity_bytes

ZONE = "topology.kubernetes.io/zone"
_ZONES = (ZONE, "failure-domain.beta.kubernetes.io/zone", "topology.gke.io/zone", "topology.ebs.csi.aws.com/zone")
"""Zone labels: the label of Kubernetes, its predecessor, and the labels that cloud drivers write to a PV's affinity."""
_NODE_LOCAL = (
    "kubernetes.io/no-provisioner",
    "rancher.io/local-path",
    "openebs.io/local",
    "topolvm.io",
    "local.csi.openebs.io",
)
"""Provisioners whose volumes are bound to one node."""
_GROWN_WITHIN = 600.0
"""Maximum seconds for the growth of a volume. A cloud disk and its mounted file system grow in one or two minutes."""
_POLL_SECONDS = 1.0
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


class CannotStage(BotError):
    """The weights cannot be staged without the GPU. The message contains the reason."""

    remedy = "Follow the message, or bring the endpoint up: its own pod also stages the weights."


class Place(BaseModel, frozen=True, defer_build=True):
    """The node or the zones for the staging pod. If both are empty, it may run anywhere."""

    node: str = ""
    """The node that uses the volume."""
    zones: tuple[str, ...] = ()
    """Zones in which an unbound volume may be bound."""
    shared: bool = False
    """True if pods on several nodes can mount the volume at the same time."""


class Growth(BaseModel, frozen=True, defer_build=True):
    """The required growth of a volume that is too small for the staged files."""

    claim: str
    current: str
    """The current size, as a quantity like `40Gi`."""
    target: str
    """The required size, as a quantity."""


class Volumes:
    """Reads and expands the volume claims in the namespace of a model."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._pods = Collection(PODS, namespace)
        self._claims = Collection(CLAIMS, namespace)
        self._deployments = Collection(MODELS, namespace)

    async def requested(self, claim: str) -> str:
        """The size that the claim requests, as a quantity; empty if the claim does not exist."""
        return _requested(await self._kube.get(self._claims, claim) or {})

    async def growth(self, claim: str, target: str) -> Growth | None:
        """The growth that a bound volume needs for the size `target`; None if it is large enough."""
        current = _capacity(await self._kube.get(self._claims, claim) or {})
        if not (current and target) or quantity_bytes(target) <= quantity_bytes(current):
            return None
        return Growth(claim=claim, current=current, target=target)

    async def refuse_growth(self, growth: Growth) -> None:
        """Raise CannotStage if the volume cannot grow while it is in use."""
        stored = await self._kube.get(self._claims, growth.claim) or {}
        step = f"from {growth.current} to {growth.target}"
        if quantity_bytes(_requested(stored) or "0") >= quantity_bytes(growth.target):
            reason = _resize_error(stored) or "it has not done so yet"
            raise CannotStage(f"The volume of {growth.claim} has not grown {step} yet, as requested earlier: {reason}.")
        name = (stored.get("spec") or {}).get("storageClassName")
        storage = await self._class(name)
        if not (storage and storage.get("allowVolumeExpansion")):
            storage_text = (
                f"storage class {storage['metadata']['name']}" if storage else "storage class (there is none)"
            )
            raise CannotStage(
                f"The volume of {growth.claim} has to grow {step}, and its {storage_text} does not allow that (allowVolumeExpansion)."
            )

    async def grow(self, growth: Growth) -> None:
        """Request the larger size for the claim, and wait until the volume has it. Idempotent; a volume never shrinks.

        Raises CannotStage if the volume cannot grow, or does not grow in time.
        """
        stored = await self._kube.get(self._claims, growth.claim) or {}
        if quantity_bytes(_requested(stored) or "0") < quantity_bytes(growth.target):
            await self.refuse_growth(growth)
            # The patch contains the version, so that it does not overwrite a larger size that was requested in the
            # meantime.
            version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
            size = {"resources": {"requests": {"storage": growth.target}}}
            await self._kube.patch(self._claims, growth.claim, {"metadata": version, "spec": size})
        try:
            async with asyncio.timeout(_GROWN_WITHIN):
                while True:
                    if await self._has_grown(growth):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise CannotStage(
                f"The volume of {growth.claim} did not grow from {growth.current} to {growth.target} within"
                f" {_GROWN_WITHIN / 60:.0f} minutes: kubectl describe pvc {growth.claim} shows why."
            ) from error

    async def _has_grown(self, growth: Growth) -> bool:
        stored = await self._kube.get(self._claims, growth.claim) or {}
        if quantity_bytes(_capacity(stored) or "0") >= quantity_bytes(growth.target):
            return True
        if reason := _resize_error(stored):
            raise CannotStage(
                f"The volume of {growth.claim} does not grow from {growth.current} to {growth.target}: {reason}."
            )
        # The disk has grown. Its file system grows when the next pod mounts it, which is the staging Job's pod.
        return "FileSystemResizePending" in _conditions(stored) and not await self._users(growth.claim)

    async def place(self, claim: str, deployment: KubeObject, shape: Staging) -> Place:
        """The node or the zones in which a pod can write to the claim now. Raises CannotStage with the reason if there is
        no such place.
        """
        stored = await self._kube.get(self._claims, claim)
        if stored is None:
            raise CannotStage(f"The cluster has no volume claim {claim}: sync the endpoint's Application first.")
        modes = stored["spec"].get("accessModes") or []
        users = await self._users(claim)
        selector = deployment["spec"]["selector"].get("matchLabels") or {}
        for pod in users:
            mine = selector.items() <= (pod["metadata"].get("labels") or {}).items()
            if mine and not boot.is_ready(pod):
                name = deployment["metadata"]["name"]
                raise CannotStage(
                    f"{name} is starting or stopping, and its own pod may be writing to {claim}: try again in a few minutes."
                )
        if not {"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"} & set(modes):
            raise CannotStage(f"The claim {claim} can only be read (access mode {', '.join(modes) or 'none'}).")
        if users and "ReadWriteMany" not in modes:
            return _place_beside(claim, users, modes)
        phase = (stored.get("status") or {}).get("phase", "Pending")
        if phase == "Lost":
            raise CannotStage(
                f"The claim {claim} has lost its volume (phase Lost): delete the claim, then sync its Application."
            )
        zones = await self._zones(claim, stored, deployment, shape) if phase == "Pending" else ()
        return Place(zones=zones, shared="ReadWriteMany" in modes)

    async def shared_with(self, claim: str) -> tuple[KubeObject, ...]:
        """Every Deployment of the namespace that mounts the claim."""
        deployments = await self._kube.list(Selection(self._deployments))
        return tuple(
            deployment for deployment in deployments if claim in claims_of(deployment["spec"]["template"]["spec"])
        )

    async def zones_of(self, claim: str) -> tuple[str, ...]:
        """The zones of the claim's volume; empty if it is not bound, or has no zone."""
        bound = ((await self._kube.get(self._claims, claim)) or {"spec": {}})["spec"].get("volumeName")
        volume = await self._kube.get(Collection(VOLUMES), bound) if bound else None
        return _zones_of((volume["spec"].get("nodeAffinity") or {}).get("required") or {}) if volume else ()

    async def _users(self, claim: str) -> list[KubeObject]:
        """The pods that mount the claim or will mount it, except those of a staging Job."""
        pods = await self._kube.list(Selection(self._pods))
        return [
            pod for pod in pods if claim in claims_of(pod["spec"]) and not boot.is_over(pod) and not is_staging(pod)
        ]

    async def _zones(self, claim: str, stored: KubeObject, deployment: KubeObject, shape: Staging) -> tuple[str, ...]:
        """The zones in which an unbound volume may be bound: the zones with a GPU."""
        storage = await self._class_of(claim, stored["spec"].get("storageClassName"))
        if storage.get("volumeBindingMode", "Immediate") == "Immediate":
            return ()  # the volume is bound independently of any pod
        provisioner = storage.get("provisioner", "")
        if provisioner in _NODE_LOCAL:
            raise CannotStage(
                f"The claim {claim} is not bound yet, and {provisioner} creates volumes on a single node:"
                " the GPU node could not use weights that a CPU node staged."
            )
        nodes = await self._kube.list(Selection(Collection(NODES)))
        if not any(zone_of(node) for node in nodes):
            return ()  # a cluster without zones
        if (
            zones := shape.zones
            or selected_zones(deployment["spec"]["template"]["spec"])
            or await self._gpu_zones(nodes)
        ):
            return zones
        raise CannotStage(
            f"The claim {claim} is not bound yet, and the zone of the GPU is unknown: neither the pod's node selector, nor a"
            " node with a GPU, nor another model's volume shows it. Set `staging.zones`, or bring a GPU model up once."
        )

    async def _class_of(self, claim: str, name: str | None) -> KubeObject:
        if storage := await self._class(name):
            return storage
        problem = f"its storage class {name} does not exist" if name else "there is no default storage class"
        raise CannotStage(f"The claim {claim} is not bound, and {problem}.")

    async def _class(self, name: str | None) -> KubeObject | None:
        """The storage class of that name; None selects the default one."""
        for storage in await self._kube.list(Selection(Collection(STORAGE_CLASSES))):
            default = (storage["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
            if storage["metadata"]["name"] == name or (name is None and default):
                return storage
        return None

    async def _gpu_zones(self, nodes: Iterable[KubeObject]) -> tuple[str, ...]:
        """The zones of existing GPU nodes, and of the volumes that GPU models have used."""
        zones = {
            zone_of(node) for node in nodes if "nvidia.com/gpu" in ((node.get("status") or {}).get("capacity") or {})
        }
        for deployment in await self._kube.list(Selection(self._deployments)):
            for claim in claims_of(deployment["spec"]["template"]["spec"]) if gpus_of(deployment) else ():
                zones |= set(await self.zones_of(claim))
        return tuple(sorted(zones - {""}))


def _place_beside(claim: str, users: list[KubeObject], modes: list[str]) -> Place:
    """The place for a second pod if only one node can mount the volume: the node of the pod that uses it."""
    kind, name = owner_of(users[0])
    if "ReadWriteOncePod" in modes:
        raise CannotStage(
            f"{kind} {name} uses the claim {claim}, and its access mode ReadWriteOncePod allows no second pod."
        )
    nodes = {pod["spec"].get("nodeName", "") for pod in users}
    if len(nodes) > 1 or "" in nodes:
        raise CannotStage(
            f"{kind} {name} will soon use the claim {claim}, which only one node can mount: try again later."
        )
    return Place(node=nodes.pop())


def _requested(claim: KubeObject) -> str:
    return str((((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage", ""))


def _capacity(claim: KubeObject) -> str:
    """The size of a bound volume; empty if it is not bound."""
    return str(((claim.get("status") or {}).get("capacity") or {}).get("storage", ""))


def _conditions(claim: KubeObject) -> dict[str, str]:
    """The message of each true condition."""
    conditions = (claim.get("status") or {}).get("conditions") or ()
    return {
        condition["type"]: str(condition.get("message") or condition["type"])
        for condition in conditions
        if condition["status"] == "True"
    }


def _resize_error(claim: KubeObject) -> str:
    """The reason why a claim does not grow; empty if no problem is known. Kubernetes has reported it since 1.31."""
    conditions = _conditions(claim)
    for kind in ("ControllerResizeError", "NodeResizeError"):
        if kind in conditions:
            return conditions[kind].rstrip(". ")
    states = (claim.get("status") or {}).get("allocatedResourceStatuses") or {}
    return str(states["storage"]) if str(states.get("storage", "")).endswith("Infeasible") else ""


def is_staging(pod: KubeObject) -> bool:
    return (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == "stoker-staging"


def claims_of(spec: KubeObject) -> tuple[str, ...]:
    """The claims that a pod mounts."""
    volumes = spec.get("volumes") or ()
    return tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v)


def zone_of(node: KubeObject) -> str:
    """The zone in a node's labels; empty if there is none."""
    labels = node["metadata"].get("labels") or {}
    return next((labels[key] for key in _ZONES if key in labels), "")


def selected_zones(spec: KubeObject) -> tuple[str, ...]:
    """The zones that a pod's node selector or required node affinity allows; empty if they do not limit the zone."""
    selector = spec.get("nodeSelector") or {}
    if zone := next((selector[key] for key in _ZONES if key in selector), ""):
        return (zone,)
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return _zones_of(required or {})


def _zones_of(selector: KubeObject) -> tuple[str, ...]:
    """The zones of a NodeSelector; empty if it allows every zone. Its terms are alternatives, so a term without a zone
    allows every zone.
    """
    zones: set[str] = set()
    for term in selector.get("nodeSelectorTerms") or ():
        named = [e for e in term.get("matchExpressions") or () if e["key"] in _ZONES and e["operator"] == "In"]
        if not named:
            return ()
        zones |= set(named[0]["values"])
    return tuple(sorted(zones))
