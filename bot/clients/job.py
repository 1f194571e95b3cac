"""Run the benchmark's Job: GuideLLM 0.8 on the node of a model's pod.

On that node, GuideLLM finds the tokenizer in the model's weight cache, so it downloads nothing from the Hub. It needs no
GPU. It is started with a list of arguments and without a shell. The key comes from the Secret through the environment,
and GuideLLM never prints it. If GuideLLM succeeds, a second container prints the result to its log, so the bot only
needs the right to read logs.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import PurePosixPath

from kubernetes.aio.client import ApiClient
from pydantic import BaseModel

from bot.clients.diagnosis import pods as diagnose
from bot.clients.diagnosis.problems import Patience
from bot.clients.kube import Collection, Conflict, Kube, KubeObject, Selection, View
from bot.clients.rights import BENCHMARKS, MODELS, PODS
from bot.clients.whereabouts import Whereabouts
from bot.clients.workload import engine_of, environment_of, named
from bot.domain.phases import MEASURE, START_BENCHMARK, Phase
from bot.errors import BotError
from bot.settings.config import Bench, SecretRef
from bot.text.mrkdwn import with_code

MODEL, OPERATION = "stoker.dev/model", "stoker.dev/operation"
NAME = {"app.kubernetes.io/name": "stoker-benchmark", "app.kubernetes.io/managed-by": "stoker"}
MEASURING, RESULT = "guidellm", "result"
_FILE = "/results/benchmarks.csv"
_KEPT = timedelta(hours=1)
"""Time for which a finished Job is kept, so that people, and a bot that was down, can read it."""
_LINES = 200
_USER = 65532
_LATE = 60.0
"""Maximum seconds that Kubernetes needs to end the Job after its deadline."""


class Load(BaseModel, frozen=True, defer_build=True):
    """The target and the load of the benchmark."""

    model: str
    """The name of the endpoint."""
    target: str
    served_name: str
    tokenizer: str
    chat: bool


class BenchFailed(BotError):
    """The benchmark's Job produced no result."""

    remedy = "Read the Job's last lines in the thread, fix the problem, and try again."


class Jobs:
    """Runs benchmark Jobs. Each Job is in the namespace of its model and reads the model's volume."""

    def __init__(self, api: ApiClient, whereabouts: Whereabouts) -> None:
        self._kube, self._whereabouts = Kube(api), whereabouts

    async def start(self, operation: str, load: Load, shape: Bench, key: SecretRef) -> None:
        """Create the operation's Job, unless it exists."""
        deployment = await self._deployment(load.model)
        if deployment is None:
            raise BenchFailed(
                f"The Deployment of {load.model} no longer exists: deploy it again, then repeat the request."
            )
        namespace = self._whereabouts.require(load.model).namespace
        if await self._kube.list(_of(operation, namespace)):
            return
        try:
            jobs = Collection(BENCHMARKS, namespace)
            await self._kube.create(jobs, manifest(operation, load, shape, key, deployment))
        except Conflict:
            return  # the name contains the operation, so it is the Job of this operation

    async def obstacle(self, model: str, shape: Bench, key: SecretRef) -> str:
        """The reason why a model in the cluster cannot be measured; empty if it can."""
        deployment = await self._deployment(model)
        load = Load(model=model, target="", served_name="", tokenizer="", chat=False)
        try:
            if deployment:
                manifest("none", load, shape, key, deployment)
        except BenchFailed as error:
            return error.message
        return ""

    async def result(
        self, operation: str, model: str, *, limit: timedelta, progress: Callable[[Phase], Awaitable[None]]
    ) -> str:
        """Wait until the benchmark has finished, and return its output (CSV). `progress` receives the benchmark's
        phase.

        Raises BenchFailed with the reason and the last log lines.
        """
        last: KubeObject | None = None
        namespace = self._whereabouts.require(model).namespace
        patience = Patience(limit.total_seconds(), asyncio.get_running_loop().time)

        async def check(jobs: View, pods: View) -> str | None:
            nonlocal last
            last = next(iter(pods.values()), last)  # a Job without retries creates only one pod
            if not jobs:
                raise BenchFailed(
                    "The benchmark's Job is gone: somebody deleted it, or it ended more than an hour ago."
                )
            failed = diagnose.not_started(last, ()) if last else None
            if patience.is_over(failed) and failed:
                raise BenchFailed(with_code(f"{failed.reason.rstrip('. ')}. {failed.remedy}"))
            for condition in (next(iter(jobs.values())).get("status") or {}).get("conditions") or ():
                if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
                    return str(condition["type"]) + f" {condition.get('reason', '')}: {condition.get('message', '')}"
            await progress(MEASURE if last and _has_started_measuring(last) else START_BENCHMARK)
            return None

        try:
            async with asyncio.timeout(limit.total_seconds() + _LATE):
                ended = await self._kube.follow(
                    _of(operation, namespace), _pods_of(operation, namespace), check=check, next_check=patience.left
                )
        except TimeoutError as error:
            raise BenchFailed("The benchmark's Job did not end in time, and Kubernetes did not end it.") from error
        if ended.startswith("Complete") and last:
            return await self._log(last, RESULT)
        explanation = f" {_failure_of(last)}" if last else ""
        raise BenchFailed(
            f"The benchmark failed ({ended.partition(' ')[2].rstrip('.: ')}).{explanation}",
            await self._log(last, MEASURING) if last else "",
        )

    async def delete(self, operation: str) -> bool:
        """Delete the operation's Job and its pod; returns whether the Job existed."""
        deleted = False
        for namespace in self._whereabouts.namespaces:
            for job in await self._kube.list(_of(operation, namespace)):
                await self._kube.delete(Collection(BENCHMARKS, namespace), job["metadata"]["name"])
                deleted = True
        return deleted

    async def delete_all(self, model: str) -> None:
        """Delete every benchmark Job of a model, because the pod of a Job would keep the billed node."""
        for namespace in self._whereabouts.namespaces:
            jobs = Collection(BENCHMARKS, namespace)
            for job in await self._kube.list(Selection(jobs, labels=_selector(NAME | {MODEL: model}))):
                await self._kube.delete(jobs, job["metadata"]["name"])

    async def _deployment(self, model: str) -> KubeObject | None:
        place = self._whereabouts.require(model)
        return await self._kube.get(Collection(MODELS, place.namespace), place.name)

    async def _log(self, pod: KubeObject, container: str) -> str:
        namespace, name = named(pod)
        pods = Collection(PODS, namespace)
        return await self._kube.log(pods, name, container=container, lines=_LINES, previous=False)


def _of(operation: str, namespace: str) -> Selection:
    return Selection(Collection(BENCHMARKS, namespace), fields=f"metadata.name={name_of(operation)}")


def _pods_of(operation: str, namespace: str) -> Selection:
    return Selection(Collection(PODS, namespace), labels=_selector(NAME | {OPERATION: operation}))


def name_of(operation: str) -> str:
    return f"stoker-bench-{operation}"


def manifest(operation: str, load: Load, shape: Bench, key: SecretRef, deployment: KubeObject) -> KubeObject:
    """The Job's manifest. Raises BenchFailed if the Deployment has no weight cache that a second pod can read."""
    template = deployment["spec"]["template"]["spec"]
    volume, mount = _weights(load.model, template)
    cache = environment_of(engine_of(template)).get("HF_HOME", "")
    identity = template.get("securityContext") or {}
    labels = NAME | {MODEL: load.model, OPERATION: operation}
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    results = {"name": "results", "mountPath": str(PurePosixPath(_FILE).parent)}
    scratch = {"name": "scratch", "mountPath": "/tmp"}  # noqa: S108  # the container's own /tmp
    variables = {
        "HOME": "/tmp",  # noqa: S108
        "HF_HOME": cache,
        "HF_DATASETS_CACHE": "/tmp/datasets",  # noqa: S108
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # Each worker takes about 400 MB of the memory of the model's machine.
        "GUIDELLM__MAX_WORKER_PROCESSES": "2",
        # NVIDIA's runtime gives a GPU to an image that is made for GPUs, even if the container requests none.
        "NVIDIA_VISIBLE_DEVICES": "void",
    }
    secret = {"valueFrom": {"secretKeyRef": {"name": key.name, "key": key.field}}}
    measuring = {
        "name": MEASURING,
        "image": shape.image,
        "args": arguments(load, shape),
        "workingDir": "/tmp",  # noqa: S108
        "env": [
            *({"name": name, "value": value} for name, value in variables.items() if value),
            *([{"name": "GUIDELLM__SPEC__BACKEND__API_KEY", **secret}] if key.name else []),
        ],
        "securityContext": restricted,
        "volumeMounts": [mount, results, scratch],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
    }
    printing = {
        "name": RESULT,
        "image": shape.image,
        "command": ["cat", _FILE],
        "securityContext": restricted,
        "volumeMounts": [results | {"readOnly": True}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            # The user of the model's pod, because this user can read the weights. The owner of the files is not
            # changed.
            "runAsUser": identity.get("runAsUser") or _USER,
            "runAsGroup": identity.get("runAsGroup") or _USER,
            **({"fsGroup": identity["fsGroup"]} if "fsGroup" in identity else {}),
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Two pods on one node can read a volume that only one node can mount.
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": deployment["spec"]["selector"].get("matchLabels") or {}},
                        "topologyKey": "kubernetes.io/hostname",
                    }
                ]
            }
        },
        "tolerations": template.get("tolerations") or [],
        "imagePullSecrets": template.get("imagePullSecrets") or [],
        "initContainers": [measuring],
        "containers": [printing],
        "volumes": [volume, {"name": "results", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name_of(operation), "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(shape.limit.total_seconds()),
            "ttlSecondsAfterFinished": int(_KEPT.total_seconds()),
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def arguments(load: Load, shape: Bench) -> list[str]:
    """The arguments of `guidellm`, the image's entrypoint. Values are JSON, so no character has a special meaning."""
    backend = {
        "kind": "openai_http",
        "target": load.target,
        "model": load.served_name,
        "request_format": "/v1/chat/completions" if load.chat else "/v1/completions",
    }
    tokens = {"prompt_tokens": shape.prompt_tokens, "output_tokens": shape.output_tokens}
    return [
        "run",
        "--disable-console-interactive",
        *("--backend", json.dumps(backend)),
        *("--tokenizer", json.dumps({"kind": "huggingface_auto", "model": load.tokenizer})),
        *("--profile", json.dumps({"kind": "concurrent"})),
        *("--override", "profile.streams", ",".join(map(str, shape.concurrency))),
        *("--constraint", json.dumps({"kind": "max_duration", "seconds": shape.each.total_seconds()})),
        *("--constraint", json.dumps({"kind": "max_errors", "count": 20})),
        *("--data", json.dumps({"kind": "synthetic_text", **tokens})),
        *("--metrics", json.dumps({"kind": "generative", "sample_size": 0})),
        *("--output", json.dumps({"kind": "csv", "path": _FILE})),
    ]


def _weights(model: str, template: KubeObject) -> tuple[KubeObject, KubeObject]:
    """The volume from which the engine reads its weights, and the volume's read-only mount."""
    engine = engine_of(template)
    cache = environment_of(engine).get("HF_HOME", "")
    claims = {v["name"]: v for v in template.get("volumes") or () if "persistentVolumeClaim" in v}
    for mount in engine.get("volumeMounts") or ():
        if mount["name"] in claims and cache and PurePosixPath(cache).is_relative_to(mount["mountPath"]):
            return claims[mount["name"]], mount | {"readOnly": True}
    raise BenchFailed(
        f"HF_HOME of the Deployment of {model} is not on a volume claim, so the benchmark has no tokenizer."
        " Set HF_HOME to the path at which the claim is mounted."
    )


def _has_started_measuring(pod: KubeObject) -> bool:
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return any(status["name"] == MEASURING and "waiting" not in (status.get("state") or {}) for status in statuses)


def _failure_of(pod: KubeObject) -> str:
    """The reason for the failure, from the pod's status; empty if the status has none."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return (
                f"Container {container['name']} ended with exit code {ended['exitCode']} ({ended.get('reason', '')})."
            )
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"No node takes its pod: {condition.get('message', '')}"
    return ""


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
