"""Swaps a running endpoint with a short downtime: the new weights are staged next to the old ones before the restart.

The order is: approval, growth of the volume if it is too small for both models, staging, merge, sync, restart. The
staging Job runs the script of the approved head, so it starts after the approval. It does not affect tenants and can be
cancelled until the merge.

Stoker grows the volume by changing the claim in the cluster to the size in the approved head. Argo CD shows the claim as
OutOfSync until the merge; it cannot revert the growth, because a claim cannot shrink.
"""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.clients.cluster import Cluster
from bot.clients.kube import KubeObject
from bot.clients.staging import CannotStage, Stager, Weights
from bot.clients.staging_job import staging_container
from bot.clients.volume import Growth
from bot.component import component
from bot.domain import phases
from bot.domain.operations import ChangeOperation
from bot.domain.outcomes import VolumeGrew
from bot.domain.requests import RevertChange, SwapModel
from bot.engine.run import Run
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.platform.staging import Staging
from bot.settings.config import Config
from bot.state.step_ledger import StepLedger
from bot.text.durations import show_duration
from bot.views import escape
from manifests.platform import Platform
from manifests.sizing import quantity_bytes

LOAD, DOWNLOAD = timedelta(minutes=5), timedelta(minutes=5)
"""Estimated times of a restart. After the restart, the card shows the measured time."""
_FIRST, _GROWS, _DOWNTIME, _NOT_STAGED = "First", "The volume grows", "Downtime", "Not staged before"
_GROWTH, _GROWTH_FAILED = "growth", "growth failed"


class Forecast(NamedTuple):
    """The expected course of the roll-out, for the card: whether weights are staged first, and rows with the downtime."""

    stages: bool
    rows: tuple[tuple[str, str], ...]


@component
class StagedSwap:
    """Stages the weights of a swap before the cut-over."""

    steps: StepLedger
    cluster: Cluster
    stager: Stager
    repository: Repository
    endpoints: Endpoints
    staging: Staging
    config: Config

    async def forecast(self, op: ChangeOperation, head: str) -> Forecast:
        """Return whether the weights at a commit can be staged before the cut-over, and the downtime. There are no rows
        for an endpoint that is down.
        """
        if not isinstance(op.request, SwapModel | RevertChange):
            return Forecast(False, ())
        workload = await self.cluster.workload(op.request.model)
        if workload is None or not workload.gpus or not workload.replicas:
            return Forecast(False, ())
        slow = f"about {show_duration(LOAD + DOWNLOAD)}: download and load"
        if not self.config.staging.enabled:
            return Forecast(False, ((_DOWNTIME, slow),))
        try:
            weights = await self._weights(op, head)
            if weights is None:
                return Forecast(False, ((_DOWNTIME, f"about {show_duration(LOAD)}: the weights do not change"),))
            grows = await self._grows(op, weights, head)
            await self.stager.volumes(weights.endpoint).place(weights.claim, weights.deployment, self.config.staging)
        except CannotStage as error:
            return Forecast(False, ((_DOWNTIME, slow), (_NOT_STAGED, error.message)))
        return Forecast(
            True,
            (
                (_FIRST, f"{weights.hf_id} is staged next to the old weights, while the old model serves"),
                *(((_GROWS, grows),) if grows else ()),
                (_DOWNTIME, f"about {show_duration(LOAD)}: load only, no download"),
            ),
        )

    async def _grows(self, op: ChangeOperation, weights: Weights, head: str) -> str:
        """Return the card's text about the growth of the volume; empty if it is large enough. Raises CannotStage if it
        cannot grow.
        """
        growth = await self._growth(weights, head)
        begun = await self.steps.result(op.id, _GROWTH, datetime) and not await self.steps.result(
            op.id, _GROWTH_FAILED, datetime
        )
        if begun and op.plan:
            return dict(op.plan.rows).get(_GROWS, "")  # the approval was given for this text
        if growth is None:
            return ""
        await self.stager.volumes(weights.endpoint).refuse_growth(growth)
        return (
            f"from {growth.current} to {growth.target}, before the merge and permanently: Argo CD shows the claim as OutOfSync until"
            " then"
        )

    async def _growth(self, weights: Weights, head: str) -> Growth | None:
        """Return the growth of the volume to the claim's size at a commit; None if it is large enough for both models."""
        size = next((e.pvc_size for e in await self.endpoints.all(head) if e.name == weights.endpoint), "")
        return await self.stager.volumes(weights.endpoint).growth(weights.claim, size)

    async def growth_left(self, op: ChangeOperation) -> VolumeGrew | None:
        """Return the growth of the volume if the change ends without a merge: Argo CD cannot sync a claim that is smaller
        in git than in the cluster.
        """
        if await self.steps.result(op.id, _GROWTH, datetime) is None:
            return None
        for endpoint in await self.endpoints.all(await self.repository.head()):
            if endpoint.name != op.request.model:
                continue
            size = await self.stager.volumes(endpoint.name).requested(endpoint.pvc_name)
            if size and endpoint.pvc_size and quantity_bytes(size) > quantity_bytes(endpoint.pvc_size):
                return VolumeGrew(claim=endpoint.pvc_name, before=endpoint.pvc_size, size=size)
        return None

    async def stage_first(self, run: Run[ChangeOperation], head: str) -> None:
        """Stage the weights of the approved head. Idempotent; a failure merges nothing."""
        try:
            weights = await self._weights(run.op, head)
            if weights:
                await self._grow(run, weights, head)
                await self.staging.fill(run, weights)
        except CannotStage as error:
            raise CannotStage(escape(error.message)) from error

    async def _grow(self, run: Run[ChangeOperation], weights: Weights, head: str) -> None:
        growth = await self._growth(weights, head)
        if growth:
            await run.first_reached(_GROWTH)  # recorded first, so that a restart continues the growth
            await run.enter(phases.GROW_VOLUME, f"from {growth.current} to {growth.target}")
            try:
                await run.cancellable(self.stager.volumes(weights.endpoint).grow(growth))
            except CannotStage:
                await run.first_reached(_GROWTH_FAILED)
                raise

    async def _weights(self, op: ChangeOperation, head: str) -> Weights | None:
        """Return the weights that the endpoint needs after the merge of `head`; None if they do not change."""
        model = op.request.model
        endpoint = next((candidate for candidate in await self.endpoints.all(head) if candidate.name == model), None)
        if endpoint is None:
            raise CannotStage(f"The pull request has no endpoint {model}.")
        serves, _ = await self.stager.weights(model)
        if serves.hf_id == endpoint.hf_id:
            return None
        tree = await self.repository.tree(head)
        document = await asyncio.to_thread(
            lambda: Platform(tree, self.config.platform).require(model).deployment.document
        )
        container = staging_container(_pod_spec(document.path, document.text), endpoint.hf_id)
        if container is None:
            raise CannotStage(f"No initContainer in {document.path} downloads {endpoint.hf_id}.")
        weights, _ = await self.stager.weights(model, endpoint.hf_id, container)
        return weights


def _pod_spec(path: str, text: str) -> KubeObject:
    """Return the pod template's spec of the first Deployment in a file; raises CannotStage."""
    try:
        deployments = [
            document
            for document in YAML(typ="safe").load_all(text)
            if document and document.get("kind") == "Deployment"
        ]
        spec: KubeObject = deployments[0]["spec"]["template"]["spec"]
    except (YAMLError, AttributeError, LookupError, TypeError) as error:
        raise CannotStage(f"{path} contains no readable Deployment.") from error
    return spec
