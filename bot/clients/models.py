"""The Deployments that serve models, and everything that uses a GPU. This module only reads."""

from collections.abc import Iterable, Mapping

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
from manifests.frozen import frozen

_NOT_OVER = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector for pods: pods of finished Jobs stay listed, thousands of them in a large cluster."""


@frozen
class Survey:
    """The models and GPUs of the whole cluster at one time."""

    users: tuple[GpuUser, ...]
    """All users of a GPU, like `Models.gpu_users`."""
    invalid_fences: Mapping[str, str]
    """Invalid values of the fence annotation by model or Deployment name; they are ignored."""


class Models:
    """Reads the models in these namespaces (the home namespace first), and other users of a GPU.

    `more_gpus` are device resources that count as a GPU in addition to the known ones. The workloads in `beside`
    (`namespace/name`) may share the GPU with a model, so they are not among its users.
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
        self._readers = {
            namespace: PodReader(self._kube, Collection(PODS, namespace)) for namespace in self.whereabouts.namespaces
        }
        self._more_gpus, self._beside = more_gpus, frozenset(beside)

    async def lacking(self, rights: Iterable[Right]) -> tuple[Right, ...]:
        """The rights among `rights` that the bot's account does not have."""
        return await self._kube.lacking(rights)

    async def workload(self, model: str) -> Workload | None:
        """The Deployment of a model; None if there is none. Raises BotError if Stoker has no rights in its namespace."""
        deployment = await self._find(model)
        return (await self._to_workloads([deployment]))[0] if deployment else None

    async def workloads(self) -> dict[str, Workload]:
        """Every Deployment that serves a model, by model. Sends two requests per namespace."""
        described = await self._to_workloads(await self._models())
        return {workload.endpoint: workload for workload in described if workload.endpoint}

    async def _to_workloads(self, deployments: Iterable[KubeObject]) -> tuple[Workload, ...]:
        services: dict[str, tuple[KubeObject, ...]] = {}
        workloads = []
        for deployment in deployments:
            namespace = named(deployment)[0]
            if namespace not in services:
                in_scope = namespace in self.whereabouts.namespaces
                services[namespace] = await self._kube.list(in_namespace(SERVICES, namespace)) if in_scope else ()
            model = self._model_of(deployment)
            workload = workload_of(deployment, services[namespace], model, more_gpus=self._more_gpus)
            if workload.kept_by_owner and (deployer := self.whereabouts.deployer_of(model)):
                workload = workload.model_copy(update={"deployed_by": deployer})
            workloads.append(workload)
        return tuple(workloads)

    async def _models(self) -> list[KubeObject]:
        """Every Deployment in the namespaces of the models."""
        return [
            deployment
            for namespace in self.whereabouts.namespaces
            for deployment in await self._kube.list(in_namespace(MODELS, namespace))
        ]

    def _model_of(self, deployment: KubeObject) -> str:
        return self.whereabouts.model_at(Address(*named(deployment)), annotations_of(deployment).get(MODEL, ""))

    async def gpu_workloads(self) -> tuple[Workload, ...]:
        """Every Deployment of the cluster with a GPU and replicas above zero."""
        return await self._to_workloads(await self._gpu_deployments())

    async def gpu_users(self) -> tuple[GpuUser, ...]:
        """Everything in the cluster that uses a GPU: Deployments with replicas, and other pods (StatefulSets, Jobs,
        bare pods).

        Finished and terminating pods are not included, because they release their GPU without action.
        """
        return (await self.survey()).users

    async def survey(self) -> Survey:
        """Read the whole cluster with two list requests, for any number of models."""
        deployments = [
            deployment
            async for deployment in self._kube.iterate(Selection(Collection(ALL_DEPLOYMENTS)))
            if named(deployment)[0] in self.whereabouts.namespaces or self._uses_gpu(deployment)
        ]
        models = [deployment for deployment in deployments if named(deployment)[0] in self.whereabouts.namespaces]
        users = {
            ("Deployment", *named(deployment)): user_of(deployment, self._model_of(deployment))
            for deployment in deployments
            if self._uses_gpu(deployment)
        }
        async for pod in self._kube.iterate(Selection(Collection(ALL_PODS), fields=_NOT_OVER)):
            if boot.is_over(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            if not gpus_in(pod["spec"], self._more_gpus):
                continue
            kind, name = owner_of(pod)
            namespace = pod["metadata"].get("namespace", "")
            # Deployments with replicas are handled above, and the pods of a Deployment at zero are terminating.
            if kind != "Deployment":
                users.setdefault((kind, namespace, name), GpuUser(kind=kind, namespace=namespace, name=name))
        return Survey(
            users=tuple(user for user in users.values() if f"{user.namespace}/{user.name}" not in self._beside),
            invalid_fences=self._invalid_fences(models),
        )

    def _uses_gpu(self, deployment: KubeObject) -> bool:
        return bool(replicas_of(deployment) > 0 and gpus_of(deployment, self._more_gpus))

    async def _gpu_deployments(self) -> list[KubeObject]:
        """Every Deployment of the cluster with a GPU and replicas above zero."""
        everywhere = self._kube.iterate(Selection(Collection(ALL_DEPLOYMENTS)))
        return [deployment async for deployment in everywhere if self._uses_gpu(deployment)]

    async def highest_fence(self) -> int:
        """The highest fence of all models' Deployments; 0 if there is none. A new fence must be higher."""
        return max(map(fence_of, await self._models()), default=0)

    def _invalid_fences(self, models: Iterable[KubeObject]) -> dict[str, str]:
        fences = {self._model_of(item) or named(item)[1]: annotations_of(item).get(FENCE) for item in models}
        return {name: fence for name, fence in fences.items() if fence is not None and not is_fence(fence)}

    async def _deployment(self, name: str) -> KubeObject:
        deployment = await self._find(name)
        if deployment is None:
            place = self.whereabouts.of(name) or Address(self.whereabouts.home, name)
            raise BotError(
                f"There is no Deployment {place.name} in namespace {place.namespace}: is {name} synced? (/model list)"
            )
        return deployment

    async def _find(self, model: str) -> KubeObject | None:
        """The Deployment of a model, even if the repository does not contain the model."""
        place = self.whereabouts.require(model)
        deployment = await self._kube.get(Collection(MODELS, place.namespace), place.name)
        if deployment is None and self.whereabouts.of(model) is None:
            everywhere = await self._models()
            marked = [deployment for deployment in everywhere if annotations_of(deployment).get(MODEL) == model]
            same_name = [deployment for deployment in everywhere if named(deployment)[1] == model]
            deployment = next((matches[0] for matches in (marked, same_name) if len(matches) == 1), None)
        return deployment

    def _pods_of(self, deployment: KubeObject) -> Selection:
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        return Selection(
            in_namespace_of(deployment, PODS), labels=",".join(f"{key}={value}" for key, value in labels.items())
        )


def in_namespace(access: Access, namespace: str) -> Selection:
    return Selection(Collection(access, namespace))


def in_namespace_of(resource: KubeObject, access: Access) -> Collection:
    """The objects of a kind in the namespace of another object."""
    return Collection(access, named(resource)[0])
