"""Build the manifest of the staging Job from the Deployment whose weights it stages. Pure: Kubernetes' JSON in and out.

The pod has the image, environment, identity and volumes of the model's staging container. It has no GPU, no service
account token, and none of the variables that disable downloads. There is at most one Job per volume, because the Job is
named after the claim.
"""

import hashlib
import json
from datetime import timedelta
from importlib.resources import files
from pathlib import PurePosixPath

from pydantic import BaseModel

from bot.clients.kube import KubeObject
from bot.clients.volume import CannotStage, Place
from bot.clients.workload import engine_of, environment_of, gpus_of, named
from bot.settings.config import Staging

NAME = {"app.kubernetes.io/name": "stoker-staging", "app.kubernetes.io/managed-by": "stoker"}
MODEL, OPERATION, ATTEMPT = "stoker.dev/model", "stoker.dev/operation", "stoker.dev/attempt"
CLAIM, WEIGHTS, PLACE = "stoker.dev/claim", "stoker.dev/weights", "stoker.dev/place"
_KEPT = timedelta(hours=1)
"""Time for which a finished Job is kept, so that people, and a bot that was down, can read it."""
_GPU_NODES = (
    "nvidia.com/gpu.present",  # NVIDIA's GPU feature discovery
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "kubernetes.azure.com/accelerator",
)
"""Labels of nodes with a GPU, and of node pools to which an autoscaler can add such nodes."""
_MACHINE_LABELS = ("kubernetes.io/arch", "kubernetes.io/os")
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_SCRIPT = """\
from huggingface_hub import snapshot_download
snapshot_download({model!r})
"""


class Weights(BaseModel, frozen=True, defer_build=True):
    """The weights that a Job stages, read from the endpoint's Deployment."""

    endpoint: str
    """The model's name; its Deployment may have another name."""
    hf_id: str
    claim: str
    container: KubeObject
    """The staging container from the manifest."""
    deployment: KubeObject

    @property
    def namespace(self) -> str:
        return named(self.deployment)[0]

    @property
    def template(self) -> KubeObject:
        """The spec of the Deployment's pod template."""
        spec: KubeObject = self.deployment["spec"]["template"]["spec"]
        return spec


def name_of(claim: str) -> str:
    """The name of the Job that fills a claim. The name is unique per claim, so a second Job cannot be created."""
    return f"stoker-stage-{claim[:32].rstrip('-.')}-{hashlib.sha256(claim.encode()).hexdigest()[:8]}"


def weights_of(
    deployment: KubeObject, hf_id: str = "", container: KubeObject | None = None, *, endpoint: str = ""
) -> Weights:
    """The weights that a Deployment's pod stages, and the container that stages them. Raises CannotStage if a Job cannot
    stage them.
    """
    name, spec = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
    if not gpus_of(deployment):
        raise CannotStage(f"{name} runs without a GPU, so its pod stages its own weights at no extra cost.")
    engine = engine_of(spec)
    model = hf_id or model_of(engine)
    if not model or model.startswith(("/", ".", "s3://", "gs://")):
        raise CannotStage(f"{name} serves {model or 'no model that it names'}, which is not a model on Hugging Face.")
    staging = staging_container(spec, model_of(engine))
    if staging is None and container is None:
        script = ["python3", "-c", _SCRIPT.format(model=model)]
        of_engine = ("image", "env", "envFrom", "securityContext", "volumeMounts")
        copied: KubeObject = {key: engine[key] for key in of_engine if key in engine}
        staging = {"name": "stage-weights", "command": script, **copied}
    if container is not None:
        # The command comes from the unmerged change, everything else from the cluster.
        staging = (staging or container) | {
            key: container[key] for key in ("command", "args", "image") if key in container
        }
    claim = _claim_of(spec, staging or {})
    if not claim:
        raise CannotStage(
            f"{name} has no volume claim that its staging container mounts at HF_HOME, so another pod cannot stage"
            " its weights."
        )
    return Weights(endpoint=endpoint or name, hf_id=model, claim=claim, container=staging or {}, deployment=deployment)


def staging_container(spec: KubeObject, model: str) -> KubeObject | None:
    """The initContainer that downloads the weights: its command or environment contains the engine's model. None if
    there is none.
    """
    inits: list[KubeObject] = spec.get("initContainers") or []
    for container in inits:
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        values = environment_of(container).values()
        if model and any(model in word for word in (*words, *values)):
            return container
    return None


def manifest(
    operation: str,
    number: int,
    weights: Weights,
    place: Place,
    shape: Staging,
    keep: tuple[str, ...],
    limit: timedelta,
) -> KubeObject:
    """The Job's manifest."""
    labels = NAME | {MODEL: weights.endpoint, OPERATION: operation, ATTEMPT: str(number)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(weights.claim),
            "labels": labels,
            "annotations": {WEIGHTS: weights.hf_id, CLAIM: weights.claim, PLACE: _kind_of(place)},
        },
        "spec": {
            # After a 429 there must be no immediate retry: the bot waits, and then creates another Job.
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(60, int(limit.total_seconds())),
            "ttlSecondsAfterFinished": int(_KEPT.total_seconds()),
            "template": {
                "metadata": {
                    # An injected service mesh sidecar would outlive the download, and the Job would never complete.
                    "labels": labels | {"sidecar.istio.io/inject": "false"},
                    "annotations": {
                        "linkerd.io/inject": "disabled",
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                    },
                },
                "spec": _pod(weights, place, shape, keep),
            },
        },
    }


def _pod(weights: Weights, place: Place, shape: Staging, keep: tuple[str, ...]) -> KubeObject:
    template, container = weights.template, _container(weights, shape, keep)
    mounted = {mount["name"] for mount in container.get("volumeMounts") or ()}
    copied = ("serviceAccountName", "imagePullSecrets", "securityContext", "dnsPolicy", "dnsConfig", "hostAliases")
    selector = {key: value for key, value in (template.get("nodeSelector") or {}).items() if key in _MACHINE_LABELS}
    tolerations: list[KubeObject] = [toleration.model_dump(exclude_none=True) for toleration in shape.tolerations]
    if place.node:
        tolerations += template.get("tolerations") or []  # the Job runs on the model's node, which may have a GPU
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        **{key: template[key] for key in copied if key in template},
        "nodeSelector": selector | (shape.node_selector if not place.node else {}),
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _nodes(place)}},
        "tolerations": tolerations,
        "containers": [container],
        "volumes": [volume for volume in template.get("volumes") or () if volume["name"] in mounted],
    }


def _kind_of(place: Place) -> str:
    """`beside` for the node that uses the volume, `shared` if several nodes can mount the volume, otherwise `alone`."""
    return "beside" if place.node else "shared" if place.shared else "alone"


def _nodes(place: Place) -> KubeObject:
    """A node selector for the node that uses the volume; otherwise for nodes without a GPU, in the zones of `place`."""
    if place.node:
        field = {"key": "metadata.name", "operator": "In", "values": [place.node]}
        return {"nodeSelectorTerms": [{"matchFields": [field]}]}
    rules: list[KubeObject] = [{"key": key, "operator": "DoesNotExist"} for key in _GPU_NODES]
    if place.zones:
        rules.append({"key": "topology.kubernetes.io/zone", "operator": "In", "values": list(place.zones)})
    return {"nodeSelectorTerms": [{"matchExpressions": rules}]}


def takes(node: KubeObject, pod: KubeObject) -> bool:
    """Return whether a node's labels and taints accept the pod of a staging Job. Its free capacity is not considered."""
    labels = node["metadata"].get("labels") or {}
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    rules = [rule for term in terms for rule in term.get("matchExpressions") or ()]
    taints = (node.get("spec") or {}).get("taints") or ()
    return (
        pod["nodeSelector"].items() <= labels.items()
        and all(
            rule["key"] not in labels
            if rule["operator"] == "DoesNotExist"
            else labels.get(rule["key"]) in rule["values"]
            for rule in rules
        )
        and all(
            taint["effect"] == "PreferNoSchedule"
            or any(_tolerates(toleration, taint) for toleration in pod["tolerations"])
            for taint in taints
        )
    )


def _tolerates(toleration: KubeObject, taint: KubeObject) -> bool:
    """Return whether a toleration matches a taint; an empty field matches everything
    (https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/).
    """
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return (toleration.get("key"), toleration.get("value") or "") == (taint["key"], taint.get("value") or "")


def _container(weights: Weights, shape: Staging, keep: tuple[str, ...]) -> KubeObject:
    original = {
        key: value for key, value in weights.container.items() if not key.endswith(("Probe", "lifecycle", "ports"))
    }
    added = {
        **dict.fromkeys(_OFFLINE_VARIABLES, "0"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        # NVIDIA's runtime gives a GPU to an image that is made for GPUs, even if the container requests none.
        "NVIDIA_VISIBLE_DEVICES": "void",
        "STOKER_KEEP": json.dumps(keep),
    }
    env = [variable for variable in original.get("env") or () if variable["name"] not in added]
    limits = (original.get("resources") or {}).get("limits") or {}
    requests = (original.get("resources") or {}).get("requests") or {}
    bounded = {"cpu": shape.cpu, "memory": shape.memory} | {k: v for k, v in limits.items() if "/" not in k}
    requested = {k: v for k, v in requests.items() if "/" not in k} or {"cpu": "500m", "memory": "1Gi"}
    original.pop("restartPolicy", None)
    return original | {
        "image": shape.image or original["image"],
        "command": _command(weights.container),
        "env": [*env, *({"name": name, "value": value} for name, value in added.items())],
        "resources": {"requests": requested, "limits": bounded},
    }


def _command(container: KubeObject) -> list[str]:
    """The container's command. A Python script is run by `download.py`, which reports its progress."""
    command = [str(word) for word in container.get("command") or ()]
    words = [*command, *(str(word) for word in container.get("args") or ())]
    if len(words) == 3 and PurePosixPath(words[0]).name.startswith("python") and words[1] == "-c":
        program = files("bot.clients").joinpath("download.py").read_text(encoding="utf-8")
        return [words[0], "-c", program, words[2]]
    return command


def _claim_of(spec: KubeObject, container: KubeObject) -> str:
    """The claim that contains the container's HF_HOME; otherwise the only claim that it mounts."""
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"]
        for v in spec.get("volumes") or ()
        if "persistentVolumeClaim" in v
    }
    mounts = [m for m in container.get("volumeMounts") or () if m["name"] in claims and not m.get("readOnly")]
    environment = environment_of(container)
    home = environment.get("HF_HUB_CACHE") or environment.get("HF_HOME") or ""
    for mount in mounts:
        if home and PurePosixPath(home).is_relative_to(mount["mountPath"]):
            return str(claims[mount["name"]])
    return str(claims[mounts[0]["name"]]) if len(mounts) == 1 and not home else ""


def model_of(engine: KubeObject) -> str:
    """The model in the engine's arguments (`--model`, or after `serve`); empty if there is none."""
    words = [str(word) for word in (*(engine.get("command") or ()), *(engine.get("args") or ()))]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag == "--model":
            return value if equals else following
    return words[words.index("serve") + 1] if "serve" in words[:-1] else ""
