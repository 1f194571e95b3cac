"""The sandbox's Jobs: one pod each, on a permitted node, and Kubernetes' report of the result.

There are two kinds: a benchmark, whose first container measures and whose second prints, and a download of weights. A
benchmark sends requests to real servers, so a Job runs in real time; only its image pull runs at the platform's speed.
Finished Jobs stay: with an accelerated clock, `ttlSecondsAfterFinished` would delete them within a moment.
"""

import asyncio
import base64
import random
import string
from collections.abc import Awaitable, Callable
from functools import partial

from sandbox import guidellm
from sandbox.download import Downloads, Script
from sandbox.kubelet import Address, Kubelet
from sandbox.objects import Object, ObjectStore
from sandbox.placement import fitting
from sandbox.volumes import Volumes, claims_of

NO_TOKENIZER = "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files."
Pull = Callable[[Address, str, Object, bool], Awaitable[None]]


class JobController:
    """Creates the pod of each Job and runs it. `pull` downloads a container's image to a node."""

    def __init__(
        self, store: ObjectStore, kubelet: Kubelet, pull: Pull, volumes: Volumes, downloads: Downloads
    ) -> None:
        self._store, self._kubelet, self._pull = store, kubelet, pull
        self._volumes, self._downloads = volumes, downloads
        self._lives: dict[Address, asyncio.Task[None]] = {}

    async def close(self) -> None:
        for life in self._lives.values():
            life.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)

    def control(self) -> None:
        """One reconciliation: create a pod for each new Job, and stop the deleted ones."""
        jobs = {job["metadata"]["uid"]: job for job in self._store.stored("Job")}
        for job in jobs.values():
            if job.get("status"):
                continue
            if "activeDeadlineSeconds" in job["spec"]:
                self._start(job)
            elif not job["spec"].get("suspend"):
                self._completed(job)  # one of the platform's own: what it runs is not known here
        for pod in self._store.stored("Pod"):
            owner = owner_of(pod)
            address = Address(pod["metadata"]["namespace"], pod["metadata"]["name"])
            if owner and (owner not in jobs or "deletionTimestamp" in pod["metadata"]):
                if life := self._lives.pop(address, None):
                    life.cancel()
                self._store.remove("Pod", address.name, address.namespace)

    def _start(self, job: Object) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        name = f"{meta['name']}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=5))}"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "controller": True, "uid": meta["uid"]}
        labels = {**template["metadata"].get("labels", {}), "batch.kubernetes.io/job-name": meta["name"]}
        self._tell(job, active=1, startTime=self._store.timestamp())
        self._store.create(
            {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "ownerReferences": [owner],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending", "conditions": []},
            }
        )
        address = Address(meta["namespace"], name)
        self._lives[address] = asyncio.create_task(self._life(job, address, template["spec"]))

    def _tell(self, job: Object, **status: object) -> None:
        meta = job["metadata"]
        if self._store.get("Job", meta["name"], meta["namespace"]):
            self._store.update("Job", meta["name"], meta["namespace"], lambda live: live.update(status=status))

    async def _life(self, job: Object, address: Address, spec: Object) -> None:
        try:
            async with asyncio.timeout(job["spec"]["activeDeadlineSeconds"]):
                succeeded = await self._run(address, spec)
        except TimeoutError:
            self._over(job, "DeadlineExceeded", "Job was active longer than specified deadline")
            self._store.remove("Pod", address.name, address.namespace)
            return
        if succeeded:
            self._kubelet.update(address, lambda pod: pod["status"].update(phase="Succeeded"))
            self._completed(job)
        else:
            self._kubelet.update(address, lambda pod: pod["status"].update(phase="Failed"))
            self._over(job, "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def _completed(self, job: Object) -> None:
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": self._store.timestamp()}
        self._tell(job, succeeded=1, completionTime=self._store.timestamp(), conditions=[condition])

    def _over(self, job: Object, reason: str, message: str) -> None:
        failed = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        self._tell(job, failed=1, conditions=[failed | {"lastTransitionTime": self._store.timestamp()}])

    async def _run(self, address: Address, spec: Object) -> bool:
        """Return whether each container succeeded."""
        node = await self._place(address, spec)
        self._kubelet.bound(address, node)
        await self._volumes.attached(address, spec, node)
        return await (self._benchmark if spec.get("initContainers") else self._download)(address, spec, node)

    async def _download(self, address: Address, spec: Object, node: str) -> bool:
        """The staging Job for weights."""
        container = spec["containers"][0]
        self._kubelet.container(address, container, waiting="ContainerCreating")
        await self._pull(address, node, container, False)
        self._kubelet.started(address, container, 0)
        self._kubelet.update(address, lambda pod: pod["status"].update(phase="Running"))
        script = Script.of(container["command"], self._environment(address.namespace, container))
        claim = (address.namespace, claims_of(spec)[0])
        staged = await self._downloads.run(script, claim, partial(self._kubelet.log, address, container))
        ended = {
            "exitCode": 0 if staged else 1,
            "reason": "Completed" if staged else "Error",
            "finishedAt": self._store.timestamp(),
        }
        self._kubelet.container(address, container, terminated=ended)
        return staged

    async def _benchmark(self, address: Address, spec: Object, node: str) -> bool:
        """The first container measures, the second prints the result."""
        measures, prints = spec["initContainers"][0], spec["containers"][0]
        self._kubelet.container(address, measures, init=True, waiting="PodInitializing")
        await self._pull(address, node, measures, True)
        self._kubelet.started(address, measures, 0, init=True)
        text = await self._measure(address, measures, spec)
        ended = {
            "exitCode": 0 if text else 1,
            "reason": "Completed" if text else "Error",
            "finishedAt": self._store.timestamp(),
        }
        self._kubelet.container(address, measures, init=True, terminated=ended, ready=bool(text))
        if not text:
            return False
        self._kubelet.started(address, prints, 0)
        self._kubelet.log(address, prints, *text.splitlines())
        self._kubelet.container(address, prints, terminated=ended)
        return True

    async def _measure(self, address: Address, container: Object, spec: Object) -> str:
        """The table; empty if the command failed, with its error in the log."""
        try:
            asked = guidellm.Arguments.parse(container["args"])
        except guidellm.BadUsage as refused:
            self._kubelet.log(address, container, "Usage: guidellm run [OPTIONS]", str(refused))
            return ""
        environment = self._environment(address.namespace, container)
        if not self._has_cache(address.namespace, environment.get("HF_HOME", ""), container, spec):
            self._kubelet.log(address, container, "Traceback (most recent call last):", NO_TOKENIZER)
            return ""
        return await guidellm.run(asked, environment.get("GUIDELLM__SPEC__BACKEND__API_KEY", ""))

    async def _place(self, address: Address, spec: Object) -> str:
        """A node for the pod, possibly after a wait."""
        while True:
            node, why = fitting(self._store, self._volumes, address.namespace, spec)
            if node:
                return node
            self._kubelet.unschedulable(address, why)
            await self._store.changed(self._store.version)

    def _environment(self, namespace: str, container: Object) -> dict[str, str]:
        values: dict[str, str] = {}
        for each in container.get("env") or ():
            if "value" in each:
                values[each["name"]] = each["value"]
            else:
                wanted = each["valueFrom"]["secretKeyRef"]
                secret = self._store.get("Secret", wanted["name"], namespace) or {"data": {}}
                values[each["name"]] = base64.b64decode(secret["data"].get(wanted["key"], "")).decode()
        return values

    def _has_cache(self, namespace: str, home: str, container: Object, spec: Object) -> bool:
        """Return whether HF_HOME is on an existing claim: the engine has stored the tokenizer there."""
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in spec.get("volumes") or ()
            if "persistentVolumeClaim" in volume
        }
        mounted = [m["name"] for m in container.get("volumeMounts") or () if home and home.startswith(m["mountPath"])]
        return any(
            self._store.get("PersistentVolumeClaim", claims[name], namespace) for name in mounted if name in claims
        )


def owner_of(pod: Object) -> str | None:
    """The uid of the Job that made the pod."""
    return next((o["uid"] for o in pod["metadata"].get("ownerReferences") or () if o["kind"] == "Job"), None)
