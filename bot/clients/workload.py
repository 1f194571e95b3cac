"""What Kubernetes' JSON says of a Deployment that serves a model, and of whatever takes a GPU. Pure: JSON in, values out."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel

from bot.clients.kube import KubeObject

LEASE = "stoker.dev/lease"
FENCE = "stoker.dev/fence"
"""The highest fence that ever scaled the Deployment; it stays when the lease is gone, so that no older one comes back."""
KIND = "stoker.dev/kind"
GPU = "nvidia.com/gpu"

_SECRET = re.compile(r"key|token$|secret|password")
"""Flags whose value is nobody's business (`--api-key`, `--hf-token`); `--max-num-batched-tokens` is none."""

Kind = Literal["chat", "completion", "embedding"]


class Workload(BaseModel, frozen=True):
    """A Deployment that serves a model, and the Service in front of it.

    `kind` is the label or annotation `stoker.dev/kind` where the Deployment has one. Else `embedding` for TEI (which
    takes `--model-id`), `chat` when the model's or the served name says so (`instruct`, `chat`, `it`), and
    `completion` for the rest: a base model has no chat template, and answers 400 to a chat.
    """

    name: str
    namespace: str
    replicas: int
    ready_replicas: int
    gpus: int
    lease: str | None
    served_name: str | None
    service: str
    port: int
    image: str
    model: str
    """What is served: a model id on the Hub, or a path."""
    kind: Kind
    arguments: tuple[str, ...] = ()
    """The engine's, without the values of those that hold a key."""

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, where the arguments say so."""
        found = _value(self.arguments, "--max-model-len") or ""
        return int(found) if found.isdecimal() else None


class GpuUser(BaseModel, frozen=True):
    """Whatever takes a GPU, or asks for one: a Deployment with replicas, or a pod that none of them made."""

    kind: str
    """`Deployment`; else the kind of the pod's owner (`StatefulSet`, `Job`, …), or `Pod`."""
    namespace: str
    name: str
    mark: str | None = None
    ready: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def workload_of(deployment: KubeObject, services: Iterable[KubeObject]) -> Workload:
    meta = deployment["metadata"]
    engine = _engine(deployment)
    service, port = _endpoint(deployment, engine, services)
    served_name = _argument(engine, "--served-model-name")
    return Workload(
        name=meta["name"],
        namespace=meta["namespace"],
        replicas=replicas_of(deployment),
        ready_replicas=(deployment.get("status") or {}).get("readyReplicas") or 0,
        gpus=gpus_of(deployment),
        lease=annotations_of(deployment).get(LEASE),
        served_name=served_name,
        service=service,
        port=port,
        image=engine.get("image", ""),
        model=_argument(engine, "--model") or _argument(engine, "--model-id") or "",
        kind=_kind(deployment, engine, served_name),
        arguments=tuple(_public(engine.get("args") or ())),
    )


def _public(arguments: Iterable[str]) -> Iterable[str]:
    secret = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        yield "…" if secret else f"{flag}=…" if equals and _SECRET.search(flag) else argument
        secret = not equals and flag.startswith("-") and _SECRET.search(flag) is not None


def _endpoint(deployment: KubeObject, engine: KubeObject, services: Iterable[KubeObject]) -> tuple[str, int]:
    """Name and port of the Service that selects the pods; of a workload without one, its own name and container port."""
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    for service in services:
        selector = service["spec"].get("selector")
        same_namespace = service["metadata"]["namespace"] == deployment["metadata"]["namespace"]
        if same_namespace and selector and selector.items() <= labels.items():
            return service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    ports = engine.get("ports") or [{}]
    return deployment["metadata"]["name"], ports[0].get("containerPort", 8000)


def _kind(deployment: KubeObject, engine: KubeObject, served_name: str | None) -> Kind:
    said = annotations_of(deployment).get(KIND) or (deployment["metadata"].get("labels") or {}).get(KIND)
    match said:
        case "chat" | "completion" | "embedding":
            return said
    if _argument(engine, "--model-id"):
        return "embedding"
    words = re.split(r"[^a-z]+", f"{_argument(engine, '--model')} {served_name}".lower())
    return "chat" if {"instruct", "chat", "it"} & set(words) else "completion"


def _engine(deployment: KubeObject) -> KubeObject:
    return engine_of(deployment["spec"]["template"]["spec"])


def engine_of(spec: KubeObject) -> KubeObject:
    """The container of a pod that serves: the one with the GPU, else the first."""
    containers: list[KubeObject] = spec["containers"]
    return next((c for c in containers if gpu_limit(c)), containers[0])


def _argument(container: KubeObject, flag: str) -> str | None:
    """The value of `--flag=value` or `--flag value`; vLLM takes `--flag_name` as well."""
    return _value([*(container.get("command") or ()), *(container.get("args") or ())], flag)


def _value(words: Sequence[str], flag: str) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, given = word.partition("=")
        if name.replace("_", "-") == flag:
            return (given if equals else following) or None
    return None


def environment_of(container: KubeObject) -> dict[str, str]:
    """The variables that are written out; those from Secrets and the like are not."""
    return {each["name"]: each["value"] for each in container.get("env") or () if "value" in each}


def gpu_limit(container: KubeObject) -> int:
    return int(((container.get("resources") or {}).get("limits") or {}).get(GPU, 0))


def gpus_of(deployment: KubeObject) -> int:
    return sum(gpu_limit(container) for container in deployment["spec"]["template"]["spec"]["containers"])


def replicas_of(deployment: KubeObject) -> int:
    return int(deployment["spec"].get("replicas", 1))


def annotations_of(deployment: KubeObject) -> dict[str, str]:
    return deployment["metadata"].get("annotations") or {}


def named(item: KubeObject) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def user_of(deployment: KubeObject) -> GpuUser:
    namespace, name = named(deployment)
    ready = bool((deployment.get("status") or {}).get("readyReplicas"))
    mark = annotations_of(deployment).get(LEASE)
    return GpuUser(kind="Deployment", namespace=namespace, name=name, mark=mark, ready=ready)


def owner_of(pod: KubeObject) -> tuple[str, str]:
    """Kind and name of what made the pod; a ReplicaSet's pod is its Deployment's."""
    owner = next((o for o in pod["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return "Pod", pod["metadata"]["name"]
    if owner["kind"] == "ReplicaSet" and "pod-template-hash" in (pod["metadata"].get("labels") or {}):
        return "Deployment", owner["name"].rpartition("-")[0]
    return owner["kind"], owner["name"]


def fence_of(deployment: KubeObject) -> int:
    text = annotations_of(deployment).get(FENCE, "")
    return int(text) if text.isdecimal() else 0
