"""The sandbox's Jobs: one pod for each Job, on a permitted node, and the Job's status.

There are two kinds of Jobs: a download of weights, and a benchmark, whose first container measures and whose second
prints. A benchmark sends requests to real servers, so a Job runs in real time; only its image pull runs at the
platform's speed. Finished Jobs are not deleted, because `ttlSecondsAfterFinished` would be over immediately with an
accelerated clock.
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
        """Reconcile once: create a pod for each new Job, and remove the pods of deleted Jobs."""
        jobs = {job["metadata"]["uid"]: job for job in self._store.stored("Job")}
        for job in jobs.values():
            if job.get("status"):
                continue
            if "activeDeadlineSeconds" in job["spec"]:
                self._start(job)
            elif not job["spec"].get("suspend"):
                self._completed(job)  # a Job of the platform itself, which the sandbox does not run
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
        self._set_status(job, active=1, startTime=self._store.timestamp())
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

    def _set_status(self, job: Object, **status: object) -> None:
        meta = job["metadata"]
        if self._store.get("Job", meta["name"], meta["namespace"]):
            self._store.update("Job", meta["name"], meta["namespace"], lambda live: live.update(status=status))

    async def _life(self, job: Object, address: Address, spec: Object) -> None:
        try:
            async with asyncio.timeout(job["spec"]["activeDeadlineSeconds"]):
                succeeded = await self._run(address, spec)
        except TimeoutError:
            self._failed(job, "DeadlineExceeded", "Job was active longer than specified deadline")
            self._store.remove("Pod", address.name, address.namespace)
            return
        if succeeded:
            self._kubelet.update(address, lambda pod: pod["status"].update(phase="Succeeded"))
            self._completed(job)
        else:
            self._kubelet.update(address, lambda pod: pod["status"].update(phase="Failed"))
            self._failed(job, "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def _completed(self, job: Object) -> None:
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": self._store.timestamp()}
        self._set_status(job, succeeded=1, completionTime=self._store.timestamp(), conditions=[condition])

    def _failed(self, job: Object, reason: str, message: str) -> None:
        failed = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        self._set_status(job, failed=1, conditions=[failed | {"lastTransitionTime": self._store.timestamp()}])

    async def _run(self, address: Address, spec: Object) -> bool:
        """Run the pod; returns whether each container succeeded."""
        node = await self._wait_for_node(address, spec)
        self._kubelet.bound(address, node)
        await self._volumes.attached(address, spec, node)
        return await (self._benchmark if spec.get("initContainers") else self._download)(address, spec, node)

    async def _download(self, address: Address, spec: Object, node: str) -> bool:
        """Download weights; returns whether the volume has all of them."""
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
        """Measure in the first container and print the result in the second; returns whether both succeeded."""
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
        """Return the table; empty if the command failed, with its error in the log."""
        try:
            arguments = guidellm.Arguments.parse(container["args"])
        except guidellm.BadUsage as refused:
            self._kubelet.log(address, container, "Usage: guidellm run [OPTIONS]", str(refused))
            return ""
        environment = self._environment(address.namespace, container)
        if not self._has_cache(address.namespace, environment.get("HF_HOME", ""), container, spec):
            self._kubelet.log(address, container, "Traceback (most recent call last):", NO_TOKENIZER)
            return ""
        return await guidellm.run(arguments, environment.get("GUIDELLM__SPEC__BACKEND__API_KEY", ""))

    async def _wait_for_node(self, address: Address, spec: Object) -> str:
        """Wait until a node fits the pod, and return its name."""
        while True:
            node, reason = fitting(self._store, self._volumes, address.namespace, spec)
            if node:
                return node
            self._kubelet.unschedulable(address, reason)
            await self._store.changed(self._store.version)

    def _environment(self, namespace: str, container: Object) -> dict[str, str]:
        values: dict[str, str] = {}
        for variable in container.get("env") or ():
            if "value" in variable:
                values[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                secret = self._store.get("Secret", reference["name"], namespace) or {"data": {}}
                values[variable["name"]] = base64.b64decode(secret["data"].get(reference["key"], "")).decode()
        return values

    def _has_cache(self, namespace: str, home: str, container: Object, spec: Object) -> bool:
        """Return whether HF_HOME is on an existing claim, where the engine has stored the tokenizer."""
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
    """Return the uid of the Job that owns the pod; None for other pods."""
    return next((o["uid"] for o in pod["metadata"].get("ownerReferences") or () if o["kind"] == "Job"), None)
