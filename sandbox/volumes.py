"""The sandbox's volumes: zonal disks that are bound to claims, attached to one node, and filled by downloads.

They behave like GKE's `standard-rwo`: a claim waits for its first consumer and is bound in that pod's zone. A disk that
is attached to one node cannot be attached to another (`FailedAttachVolume`, Multi-Attach). It can grow but not shrink.
"""

import secrets
from collections import defaultdict
from collections.abc import Mapping

from sandbox.kubelet import Address, Kubelet
from sandbox.objects import Object, ObjectStore

ZONE = "topology.kubernetes.io/zone"
GPU_ZONE = "us-central1-a"
ZONES = (GPU_ZONE, "us-central1-b", "us-central1-c")
STORAGE_CLASS = {
    "kind": "StorageClass",
    "metadata": {
        "name": "standard-rwo",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "pd.csi.storage.gke.io",
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

Claim = tuple[str, str]
"""Namespace and name of a claim."""


class Volumes:
    """The volumes: their zones, the nodes to which they are attached, and the weights that they contain."""

    def __init__(self, store: ObjectStore, kubelet: Kubelet) -> None:
        self._store, self._kubelet = store, kubelet
        self.downloaded: dict[Claim, dict[str, float]] = defaultdict(dict)
        """Model id -> bytes, for each volume; an interrupted download keeps its partial data."""
        self.complete: dict[Claim, set[str]] = defaultdict(set)
        self.compiled: set[tuple[Claim, str]] = set()
        """The directories with vLLM's compiled kernels."""
        store.create(STORAGE_CLASS)

    def control(self, *, used_before: bool = False) -> None:
        """Reconcile the claims once: a bound claim grows with its request. `used_before` binds all claims immediately."""
        for claim in self._store.stored("PersistentVolumeClaim"):
            bound = bool(claim["spec"].get("volumeName"))
            if not bound and used_before:
                self._bind(claim, GPU_ZONE)
            elif not bound:
                self._update_status(claim, {"phase": "Pending"})
            else:
                self._update_status(claim, {"phase": "Bound", "capacity": {"storage": _requested(claim)}})

    async def attached(self, address: Address, spec: Object, node: str) -> None:
        """Wait until all volumes of the pod are attached to the node."""
        zone = ((self._store.get("Node", node) or {"metadata": {}})["metadata"].get("labels") or {}).get(ZONE, GPU_ZONE)
        for name in claims_of(spec):
            claim = self._store.get("PersistentVolumeClaim", name, address.namespace)
            if claim and not claim["spec"].get("volumeName"):
                self._bind(claim, zone)
            while other_pod := self._elsewhere(address.namespace, name, node):
                volume = (self._store.get("PersistentVolumeClaim", name, address.namespace) or claim or {})["spec"]
                self._kubelet.event(
                    address,
                    "FailedAttachVolume",
                    f'Multi-Attach error for volume "{volume.get("volumeName")}" Volume is already used by pod(s) {other_pod}',
                    warning=True,
                )
                await self._store.changed(self._store.version)

    def zone_of(self, claim: Claim) -> str:
        """Return the zone of the volume; empty while the claim is not bound."""
        claim_object = self._store.get("PersistentVolumeClaim", claim[1], claim[0]) or {"spec": {}}
        volume = self._store.get("PersistentVolume", claim_object["spec"].get("volumeName", "")) or {}
        terms = (((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
        return str(terms[0]["matchExpressions"][0]["values"][0]) if terms else ""

    def free(self, claim: Claim) -> float:
        """Return the free bytes of the volume."""
        claim_object = self._store.get("PersistentVolumeClaim", claim[1], claim[0])
        return (quantity(_requested(claim_object)) if claim_object else 0) - sum(self.downloaded[claim].values())

    def compile_cache(self, namespace: str, container: Object, spec: Object) -> tuple[Claim, str] | None:
        """Return the claim and path with the engine's compiled kernels; None if they are lost with the pod."""
        environment = {variable["name"]: variable.get("value") or "" for variable in container.get("env") or ()}
        path = environment.get("VLLM_CACHE_ROOT") or environment.get("XDG_CACHE_HOME") or ""
        claims = {
            v["name"]: v["persistentVolumeClaim"]["claimName"]
            for v in spec.get("volumes") or ()
            if "persistentVolumeClaim" in v
        }
        for mount in container.get("volumeMounts") or ():
            if mount["name"] in claims and f"{path}/".startswith(f"{mount['mountPath'].rstrip('/')}/"):
                return (namespace, claims[mount["name"]]), path
        return None

    def forget(self, claim: Claim, model: str) -> None:
        self.downloaded[claim].pop(model, None)
        self.complete[claim].discard(model)

    def _elsewhere(self, namespace: str, claim: str, node: str) -> str:
        """Return the pod on another node to which the volume is attached; empty if there is none."""
        claim_object = self._store.get("PersistentVolumeClaim", claim, namespace)
        if claim_object and "ReadWriteMany" in (claim_object["spec"].get("accessModes") or ()):
            return ""
        for pod in self._store.stored("Pod", namespace):
            is_finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            pod_node = pod["spec"].get("nodeName")
            if pod_node and pod_node != node and not is_finished and claim in claims_of(pod["spec"]):
                return str(pod["metadata"]["name"])
        return ""

    def _bind(self, claim: Object, zone: str) -> None:
        meta, name = claim["metadata"], f"pvc-{secrets.token_hex(4)}"
        rule = {"matchExpressions": [{"key": "topology.gke.io/zone", "operator": "In", "values": [zone]}]}
        self._store.create(
            {
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": _requested(claim)},
                    "claimRef": {"kind": "PersistentVolumeClaim", "name": meta["name"], "namespace": meta["namespace"]},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [rule]}},
                },
                "status": {"phase": "Bound"},
            }
        )

        def bound(live: Object) -> None:
            live["spec"]["volumeName"] = name
            live["status"] = {"phase": "Bound", "capacity": {"storage": _requested(live)}}

        self._store.update("PersistentVolumeClaim", meta["name"], meta["namespace"], bound)

    def _update_status(self, claim: Object, status: Mapping[str, object]) -> None:
        meta = claim["metadata"]
        if claim.get("status") != status:
            self._store.update(
                "PersistentVolumeClaim", meta["name"], meta["namespace"], lambda live: live.update(status=dict(status))
            )


def claims_of(spec: Object) -> list[str]:
    """Return the names of the claims in a pod's volumes."""
    volumes = spec.get("volumes") or ()
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def quantity(text: str) -> float:
    """Return the bytes of a Kubernetes quantity."""
    for suffix, factor in _UNITS.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def _requested(claim: Object) -> str:
    return str(claim["spec"]["resources"]["requests"]["storage"])
