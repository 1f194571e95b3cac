"""The Deployments that serve models, and everything that uses a GPU. Reads only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubernetes.aio.client import ApiClient

from bot.clients import boot
from bot.clients.diagnosis.reader import PodReader
from bot.clients.kube import Collection, Kube, KubeObject, Selection
from bot.clients.rights import (
    ALL_DEPLOYMENTS,
    ALL_PODS,
    MODELS,
    PODS,
    SERVICES,
    Access,
    Right,
)
from bot.clients.whereabouts import Address, Whereabouts
from bot.clients.workload import (
    FENCE,
    MODEL,
    GpuUser,
    Workload,
    annotations_of,
    fence_of,
    gpus_in,
    gpus_of,
    is_fence,
    named,
    owner_of,
    replicas_of,
    user_of,
    workload_of,
)
from bot.errors import BotError

_NOT_OVER = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector for pods: pods of finished Jobs stay listed, thousands of them in a large cluster."""


@dataclass(frozen=True)
class Survey:
    """The models and GPUs of the whole cluster at one time."""

    users: tuple[GpuUser, ...]
    """All users of a GPU, like `Models.gpu_users`."""
    spoilt_fences: Mapping[str, str]
    """Invalid fences, by Deployment; they are ignored."""


class Models:
    """The models in these namespaces, the home namespace first, and other users of a GPU.

    `more_gpus` are device resources that count as a GPU in addition to the known ones. The workloads in `beside`
    (`namespace/name`) may use the GPU together with a model, so they are not among its users.
    """

    def __init__(
        self,
        api: ApiClient,
        *namespaces: str,
        more_gpus: tuple[str, ...] = (),
        beside: tuple[str, ...] = (),
    ) -> None:
        self._kube = Kube(api)
        self.whereabouts = Whereabouts(*namespaces)
        self._readers = {each: PodReader(self._kube, Collection(PODS, each)) for each in self.whereabouts.namespaces}
        self._more_gpus, self._beside = more_gpus, frozenset(beside)

    async def lacking(self, wanted: Iterable[Right]) -> tuple[Right, ...]:
        """The rights among `wanted` that the bot's account does not have."""
        return await self._kube.lacking(wanted)

    async def workload(self, model: str) -> Workload | None:
        found = await self._find(model)
        return (await self._described([found]))[0] if found else None

    async def workloads(self) -> dict[str, Workload]:
        """Every Deployment that serves a model, by model; two requests per namespace."""
        described = await self._described(await self._models())
        return {each.endpoint: each for each in described if each.endpoint}

    async def _described(self, deployments: Iterable[KubeObject]) -> tuple[Workload, ...]:
        services: dict[str, tuple[KubeObject, ...]] = {}
        told = []
        for each in deployments:
            namespace = named(each)[0]
            if namespace not in services:
                ours = namespace in self.whereabouts.namespaces
                services[namespace] = await self._kube.list(in_namespace(SERVICES, namespace)) if ours else ()
            model = self._model_of(each)
            workload = workload_of(each, services[namespace], model, more_gpus=self._more_gpus)
            if workload.kept_by_owner and (deployer := self.whereabouts.deployer_of(model)):
                workload = workload.model_copy(update={"deployed_by": deployer})
            told.append(workload)
        return tuple(told)

    async def _models(self) -> list[KubeObject]:
        """Every Deployment in the namespaces of the models."""
        return [
            found for each in self.whereabouts.namespaces for found in await self._kube.list(in_namespace(MODELS, each))
        ]

    def _model_of(self, deployment: KubeObject) -> str:
        return self.whereabouts.model_at(Address(*named(deployment)), annotations_of(deployment).get(MODEL, ""))

    async def gpu_workloads(self) -> tuple[Workload, ...]:
        """Every Deployment of the cluster with a GPU and replicas above zero."""
        return await self._described(await self._gpu_deployments())

    async def gpu_users(self) -> tuple[GpuUser, ...]:
        """Everything in the cluster that uses a GPU: Deployments with replicas, and other pods (StatefulSets, Jobs,
        bare pods).

        Finished and terminating pods do not count: they release their GPU without action.
        """
        return (await self.survey()).users

    async def survey(self) -> Survey:
        """Read the whole cluster with two list requests, for any number of models."""
        deployments = [
            found
            async for found in self._kube.each(Selection(Collection(ALL_DEPLOYMENTS)))
            if named(found)[0] in self.whereabouts.namespaces or self._uses_gpu(found)
        ]
        models = [each for each in deployments if named(each)[0] in self.whereabouts.namespaces]
        users = {
            ("Deployment", *named(each)): user_of(each, self._model_of(each))
            for each in deployments
            if self._uses_gpu(each)
        }
        async for pod in self._kube.each(Selection(Collection(ALL_PODS), fields=_NOT_OVER)):
            if boot.is_over(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            if not gpus_in(pod["spec"], self._more_gpus):
                continue
            kind, name = owner_of(pod)
            namespace = pod["metadata"].get("namespace", "")
            if (
                kind != "Deployment"
            ):  # Deployments with replicas are handled above, and the pods of a Deployment at zero are terminating
                users.setdefault((kind, namespace, name), GpuUser(kind=kind, namespace=namespace, name=name))
        return Survey(
            users=tuple(user for user in users.values() if f"{user.namespace}/{user.name}" not in self._beside),
            spoilt_fences=self._spoilt_fences(models),
        )

    def _uses_gpu(self, deployment: KubeObject) -> bool:
        return bool(replicas_of(deployment) > 0 and gpus_of(deployment, self._more_gpus))

    async def _gpu_deployments(self) -> list[KubeObject]:
        """Every Deployment of the cluster with a GPU and replicas above zero."""
        everywhere = self._kube.each(Selection(Collection(ALL_DEPLOYMENTS)))
        return [found async for found in everywhere if self._uses_gpu(found)]

    async def highest_fence(self) -> int:
        """The highest fence of any model's Deployment: a new fence must be higher."""
        return max(map(fence_of, await self._models()), default=0)

    def _spoilt_fences(self, models: Iterable[KubeObject]) -> dict[str, str]:
        found = {self._model_of(each) or named(each)[1]: annotations_of(each).get(FENCE) for each in models}
        return {name: fence for name, fence in found.items() if fence is not None and not is_fence(fence)}

    async def _deployment(self, name: str) -> KubeObject:
        found = await self._find(name)
        if found is None:
            place = self.whereabouts.of(name) or Address(self.whereabouts.home, name)
            raise BotError(
                f"There is no Deployment {place.name} in namespace {place.namespace}: is {name} synced? (/model list)"
            )
        return found

    async def _find(self, model: str) -> KubeObject | None:
        """The Deployment of a model, even if the repository does not contain the model."""
        place = self.whereabouts.require(model)
        found = await self._kube.get(Collection(MODELS, place.namespace), place.name)
        if found is None and self.whereabouts.of(model) is None:
            everywhere = await self._models()
            marked = [each for each in everywhere if annotations_of(each).get(MODEL) == model]
            same_name = [each for each in everywhere if named(each)[1] == model]
            found = next((each[0] for each in (marked, same_name) if len(each) == 1), None)
        return found

    def _pods_of(self, deployment: KubeObject) -> Selection:
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        return Selection(
            in_namespace_of(deployment, PODS), labels=",".join(f"{key}={value}" for key, value in labels.items())
        )


def in_namespace(access: Access, namespace: str) -> Selection:
    return Selection(Collection(access, namespace))


def in_namespace_of(found: KubeObject, access: Access) -> Collection:
    """The objects of a kind in the namespace of another object."""
    return Collection(access, named(found)[0])
