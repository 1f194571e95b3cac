"""Kubernetes' JSON of a Deployment that serves a model, and of any workload with a GPU. Pure: JSON in, values out."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal

from pydantic import BaseModel

from bot.clients.kube import KubeObject
from manifests import accelerators
from manifests.engines import Engine, engines, running, usual
from manifests.sizing.quantities import whole

LEASE = "stoker.dev/lease"
FENCE = "stoker.dev/fence"
"""The highest fence with which the Deployment was ever scaled. It remains after the lease ends, so that an older fence
stays invalid.
"""
LAST_MESSAGE = "stoker.dev/told"
"""The last message about the Deployment that was sent without Redis. Only one of several bots sends the message."""
_FENCES = 9 * 10**12
"""Upper limit of a valid fence in milliseconds (the year 2255). Later claims increase the fence and stay below the
limit of `bot.domain.marks`.
"""
KIND = "stoker.dev/kind"
MODEL = "stoker.dev/model"
"""The model that a Deployment with another name, or in another namespace, serves. Stoker never removes this annotation."""
_PORT = 8000
"""vLLM's default port."""

_SECRET = re.compile(r"key|token$|secret|password")
"""Flags with secret values (`--api-key`, `--hf-token`); `--max-num-batched-tokens` does not match."""

Kind = Literal["chat", "completion", "embedding", "rerank"]
_NAMES = tuple(dict.fromkeys(name for engine in engines() if engine.served for name in engine.spellings(engine.served)))
_MODELS = tuple(dict.fromkeys(name for engine in engines() for name in engine.spellings(*engine.model)))
_KEYS = {variable for engine in engines() if (variable := engine.key[0])}


class Workload(BaseModel, frozen=True, defer_build=True):
    """A Deployment that serves a model, with its Service.

    `kind` is the label or annotation `stoker.dev/kind` if the Deployment has one. Otherwise, it is `embedding` for TEI
    (which has `--model-id`) and for vLLM with `--runner=pooling`, or `rerank` if their model is a reranker. It is `chat`
    if the engine has a parser for tool calls or reasoning, or if the name of the model or the served name contains
    `instruct`, `chat` or `it`. Otherwise, it is `completion`, because a base model has no chat template and returns 400
    for a chat request.
    """

    name: str
    namespace: str
    replicas: int
    ready_replicas: int
    gpus: int
    lease: str | None
    served_names: tuple[str, ...]
    """The names that the engine answers to; the model's id if no argument sets them."""
    service: str
    port: int
    image: str
    model: str
    """The model: an id on the Hub, or a path."""
    kind: Kind
    kind_is_said: bool = False
    """True if the kind comes from a label or an annotation."""
    arguments: tuple[str, ...] = ()
    """The engine's arguments, without secret values."""
    keyed: bool = True
    """True if the engine requires an API key."""
    endpoint: str = ""
    """The endpoint that the Deployment serves; empty for an unrelated Deployment."""
    engine: str = usual().name
    """The engine, from the image and the command. An unknown engine counts as the usual one, because most engines have
    the same API.
    """
    names_said: bool = False
    """True if the arguments set the served names, so that they are not the model's id."""
    deployed_by: str = ""
    """The application that deploys it, from the label or annotation of Argo CD or Flux."""
    kept_by_owner: bool | None = None
    """True if KServe's controller reverts replicas that other clients set; None for a Deployment without KServe."""
    release: tuple[str, str] = ("", "")
    """Namespace and name of the Flux HelmRelease that installs it, from helm-controller's labels."""

    @property
    def served_name(self) -> str:
        """The first name, which is used in answers and metrics."""
        return self.served_names[0] if self.served_names else self.model

    @property
    def context(self) -> int | None:
        """The maximum tokens of prompt and answer together; None if the arguments do not set it."""
        length = _value(self.arguments, "--max-model-len") or ""
        return int(length) if length.isdecimal() else None


class GpuUser(BaseModel, frozen=True, defer_build=True):
    """A workload that uses or requests a GPU: a Deployment with replicas, or a pod without a Deployment."""

    kind: str
    """`Deployment`; otherwise the kind of the pod's owner (`StatefulSet`, `Job`, …), or `Pod`."""
    namespace: str
    name: str
    mark: str | None = None
    ready: bool = False
    endpoint: str = ""
    """The endpoint that a Deployment serves; empty if Stoker can neither lease nor stop it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def workload_of(
    deployment: KubeObject, services: Iterable[KubeObject], endpoint: str = "", *, more_gpus: Iterable[str] = ()
) -> Workload:
    """Parse a Deployment. `services` are the Services of its namespace; the one that selects its pods is used."""
    meta = deployment["metadata"]
    engine = _engine(deployment)
    service, port = _endpoint(deployment, engine, services)
    words = _words(engine)
    model = next((model_id for flag in _MODELS if (model_id := _value(words, flag)) and _is_known(model_id)), "")
    names = tuple(filter(_is_known, next(filter(None, (_values(words, flag) for flag in _NAMES)), ())))
    served_names = names or tuple(filter(None, [model]))
    return Workload(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        replicas=replicas_of(deployment),
        ready_replicas=whole((deployment.get("status") or {}).get("readyReplicas")),
        gpus=gpus_of(deployment, more_gpus),
        lease=annotations_of(deployment).get(LEASE),
        served_names=served_names,
        service=service,
        port=port,
        image=str(engine.get("image", "")),
        model=model,
        kind=_kind(deployment, engine, " ".join(served_names)),
        kind_is_said=_kind_said(deployment) is not None,
        arguments=tuple(_public(map(str, engine.get("args") or ()))),
        keyed=_asks_for_key(engine),
        endpoint=endpoint,
        engine=_running(engine).name,
        names_said=bool(names),
        deployed_by=_deployed_by(deployment),
        kept_by_owner=_is_kept_by_owner(deployment),
        release=_release(deployment),
    )


def _is_kept_by_owner(deployment: KubeObject) -> bool | None:
    """Return whether KServe reverts the replicas: always those of an LLMInferenceService, and those of an
    InferenceService that does not use its autoscaler.

    With the HorizontalPodAutoscaler, which does nothing at zero replicas, KServe ignores the replicas ("for HPA
    scaling, we should ignore Replicas of Deployment", deployment_reconciler.go;
    pkg/controller/…/llmisvc/workload_single_node.go).
    """
    owners = deployment["metadata"].get("ownerReferences") or ()
    kind = next((str(owner.get("kind")) for owner in owners if owner.get("controller")), "")
    if kind == "LLMInferenceService":
        return True
    scaler = annotations_of(deployment).get("serving.kserve.io/autoscalerClass", "")
    return scaler in ("external", "none") if kind == "InferenceService" else None


def _deployed_by(deployment: KubeObject) -> str:
    """The Kustomization that deploys it, with the namespace if the label contains it, or the Application.

    kustomize-controller labels the objects that it applies; Argo CD writes `APPLICATION:GROUP/KIND:NAMESPACE/NAME` to
    an annotation (the default since 3.0), or the name to a label that charts also write.
    """
    labels = deployment["metadata"].get("labels") or {}
    tracked = annotations_of(deployment).get("argocd.argoproj.io/tracking-id", "").partition(":")[0]
    # In a chart that helm-controller installs, the label is the release's name.
    instance = "" if any(_release(deployment)) else labels.get("app.kubernetes.io/instance", "")
    parts = (labels.get("kustomize.toolkit.fluxcd.io/namespace"), labels.get("kustomize.toolkit.fluxcd.io/name"))
    return "/".join(filter(None, parts)) if parts[1] else tracked or instance


def _release(deployment: KubeObject) -> tuple[str, str]:
    labels = deployment["metadata"].get("labels") or {}
    return labels.get("helm.toolkit.fluxcd.io/namespace", ""), labels.get("helm.toolkit.fluxcd.io/name", "")


def _public(arguments: Iterable[str]) -> Iterable[str]:
    secret = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        yield "…" if secret else f"{flag}=…" if equals and _SECRET.search(flag) else argument
        secret = not equals and flag.startswith("-") and _SECRET.search(flag) is not None


def _endpoint(deployment: KubeObject, engine: KubeObject, services: Iterable[KubeObject]) -> tuple[str, int]:
    """Name and port of the Service that selects the pods; otherwise the workload's name and container port."""
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    for service in services:
        selector = service["spec"].get("selector")
        same_namespace = named(service)[0] == named(deployment)[0]
        if same_namespace and selector and selector.items() <= labels.items():
            ports = service["spec"].get("ports") or [{}]
            return service["metadata"]["name"], whole(ports[0].get("port")) or _PORT
    ports = engine.get("ports") or [{}]
    return deployment["metadata"]["name"], whole(ports[0].get("containerPort")) or _PORT


def _kind_said(deployment: KubeObject) -> Kind | None:
    kind = annotations_of(deployment).get(KIND) or (deployment["metadata"].get("labels") or {}).get(KIND)
    match kind:
        case "chat" | "completion" | "embedding" | "rerank":
            return kind
    return None


def _kind(deployment: KubeObject, engine: KubeObject, served_name: str) -> Kind:
    if explicit := _kind_said(deployment):
        return explicit
    overrides = _argument(engine, "--hf-overrides") or ""
    ranks = re.search(r"(?i)re-?rank", f"{_argument(engine, '--model')} {_argument(engine, '--model-id')}")
    if _argument(engine, "--runner") == "pooling" or _argument(engine, "--task") in ("embed", "score"):
        return "rerank" if ranks or "ForSequenceClassification" in overrides else "embedding"
    server = _running(engine)
    if server.pools or (
        server.is_usual and _argument(engine, "--model-id")
    ):  # KServe's own server also has `--model_id`
        return "rerank" if ranks else "embedding"
    if _argument(engine, "--tool-call-parser") or _argument(engine, "--reasoning-parser"):
        return "chat"
    words = re.split(r"[^a-z]+", f"{_argument(engine, '--model')} {served_name}".lower())
    return "chat" if {"instruct", "chat", "it"} & set(words) else "completion"


def _running(container: KubeObject) -> Engine:
    return running(" ".join([str(container.get("image", "")), *_words(container)]))


def _engine(deployment: KubeObject) -> KubeObject:
    return engine_of(deployment["spec"]["template"]["spec"])


def engine_of(spec: KubeObject) -> KubeObject:
    """The container that serves: the one with the GPU, otherwise the first; empty for a pod without containers."""
    containers: list[KubeObject] = spec["containers"]
    return next((c for c in containers if gpu_limit(c)), containers[0] if containers else {})


def _asks_for_key(container: KubeObject) -> bool:
    """Return whether the engine requires an API key: `--api-key` or the engine's environment variable is set."""
    variables = {str(variable["name"]) for variable in container.get("env") or ()}
    return bool(_argument(container, "--api-key") or variables & _KEYS)


def _words(container: KubeObject) -> list[str]:
    """The words of the container's command and arguments. Variables with a literal value are replaced by that value."""
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    if not any("$(" in word for word in words):
        return words
    variables = environment_of(container)
    return [re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), word) for word in words]


def _is_known(word: str) -> bool:
    """Return whether a word contains no variable from another source, such as a ConfigMap."""
    return "$(" not in word


def _argument(container: KubeObject, flag: str) -> str | None:
    """The value of `--flag=value` or `--flag value`; vLLM also accepts `--flag_name`."""
    return _value(_words(container), flag)


def _values(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """All values of a flag that takes several values: `--flag a b`, up to the next word with a dash."""
    for position, word in reversed(list(enumerate(words))):  # the last one counts, as in argparse
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            following = takewhile(lambda word: not word.startswith("-"), words[position + 1 :])
            return (value,) if equals else tuple(following)
    return ()


def _value(words: Sequence[str], flag: str) -> str | None:
    for word, following in reversed(list(zip(words, [*words, ""][1:], strict=True))):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            return (value if equals else following) or None
    return None


def environment_of(container: KubeObject) -> dict[str, str]:
    """The variables with literal values; those from Secrets and other sources are omitted."""
    return {
        str(variable["name"]): str(variable["value"]) for variable in container.get("env") or () if "value" in variable
    }


def gpus_of(deployment: KubeObject, more_gpus: Iterable[str] = ()) -> int:
    """The number of GPUs of one pod; one if the number is unknown."""
    return gpus_in(deployment["spec"]["template"]["spec"], more_gpus)


def gpus_in(spec: KubeObject, more_gpus: Iterable[str] = ()) -> int:
    """The GPUs that a pod of this spec uses: the devices that its containers request, or those of its runtime class.

    Every claim of dynamic resource allocation counts as one GPU, because its device class is in another object, which
    Stoker may not read; list pods with claims for other devices in `gpu.beside`. The scheduler also allocates claims
    that no container uses. NVIDIA's runtime gives a container that requests no device all GPUs of its node if its
    variables request them (NVIDIA Container Toolkit, `NVIDIA_VISIBLE_DEVICES`). Such a container counts as one GPU.
    """
    patterns = tuple(more_gpus)
    requested = sum(gpu_limit(container, patterns) for container in spec["containers"]) + len(
        spec.get("resourceClaims") or ()
    )
    if requested or not str(spec.get("runtimeClassName", "")).startswith("nvidia"):
        return requested
    visible = (environment_of(container).get("NVIDIA_VISIBLE_DEVICES", "") for container in spec["containers"])
    return int(any(devices not in ("", "none", "void") for devices in visible))


def gpu_limit(container: KubeObject, more_gpus: Iterable[str] = ()) -> int:
    """The number of GPUs in the limits of one container."""
    return accelerators.gpus((container.get("resources") or {}).get("limits") or {}, more_gpus)


def replicas_of(deployment: KubeObject) -> int:
    return whole(deployment["spec"].get("replicas", 1))


def annotations_of(deployment: KubeObject) -> dict[str, str]:
    return deployment["metadata"].get("annotations") or {}


def named(item: KubeObject) -> tuple[str, str]:
    """Namespace and name of an object; the namespace is empty for a cluster-scoped object."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def user_of(deployment: KubeObject, endpoint: str = "") -> GpuUser:
    """The Deployment as a user of a GPU."""
    namespace, name = named(deployment)
    ready = bool((deployment.get("status") or {}).get("readyReplicas"))
    mark = annotations_of(deployment).get(LEASE)
    return GpuUser(kind="Deployment", namespace=namespace, name=name, mark=mark, ready=ready, endpoint=endpoint)


def owner_of(pod: KubeObject) -> tuple[str, str]:
    """Kind and name of the pod's owner: for a ReplicaSet's pod, the Deployment; without an owner, the pod."""
    owner = next((o for o in pod["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return "Pod", pod["metadata"]["name"]
    if owner["kind"] == "ReplicaSet" and "pod-template-hash" in (pod["metadata"].get("labels") or {}):
        return "Deployment", owner["name"].rpartition("-")[0]
    return owner["kind"], owner["name"]


def fence_of(deployment: KubeObject) -> int:
    """The fence of a Deployment; 0 if it has no valid fence."""
    text = annotations_of(deployment).get(FENCE, "")
    return int(text) if is_fence(text) else 0


def was_recorded_within(deployment: KubeObject, message: str, now: datetime, within: timedelta) -> bool:
    """Return whether `message` was recorded on the Deployment less than `within` ago. An invalid time is ignored."""
    recorded, _, at = annotations_of(deployment).get(LAST_MESSAGE, "").rpartition(" ")
    return recorded == message and is_fence(at) and abs(int(at) - now.timestamp()) <= within.total_seconds()


def is_fence(text: str) -> bool:
    """Return whether the text is a valid fence: a time in milliseconds since 1970, below `_FENCES`."""
    return text.isascii() and text.isdecimal() and len(text) <= 13 and int(text) < _FENCES
