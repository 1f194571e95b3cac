"""`/gpu down`: brings models down, after a confirmation if another person holds one of them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from bot.clients.cluster import Cluster
from bot.clock import Clock
from bot.component import component
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError, Unavailable
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.stopping import Stopping, down_request
from bot.policy import must_notify
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code
from bot.views.modals import Ending, down_form
from commands.parsing import Misunderstood, is_time
from commands.replies import card_reference

log = structlog.get_logger(__name__)


@component
class BringingDown:
    """`/gpu down`, also from a button or a form."""

    slack: Slack
    cluster: Cluster
    lease_marks: LeaseMarks
    lifecycle: Lifecycle
    stopping: Stopping
    config: Config
    clock: Clock

    async def ask_down(
        self, names: tuple[str, ...], reason: str, command: Mapping[str, Any], *, form: bool = True
    ) -> Mrkdwn | None:
        """Bring models down. Another person's session needs a confirmation with a reason for its holder, but no approval.

        If no form can be shown, the reason in the command is the confirmation. Without Redis, no confirmation is required,
        because a bring-down must always work.
        """
        actor, trigger = command["user_id"], command["trigger_id"]
        if times := [name for name in names[1:] if is_time(name)]:
            raise Misunderstood(
                md(
                    "{words} is not a model, and a bring-down takes effect immediately: use {command}, or wait until the lease ends.",
                    words=code(" ".join(times)),
                    command=code(" ".join(["/gpu down", *(name for name in names if name not in times)])),
                )
            )
        try:
            leases = [lease for lease in await self.lease_marks.held() if not names or lease.model in names]
        except Unavailable:
            leases = []
        foreign_leases = [lease for lease in leases if must_notify(lease.holder, actor)]
        if foreign_leases and form:
            models = names or tuple(lease.model for lease in leases)
            sessions = {lease.model: lease.op for lease in foreign_leases}
            ending = Ending(models=models, sessions=sessions, asked_in=command.get("channel_id") or "")
            try:
                await self.slack.open_form(trigger, down_form(ending, foreign_leases, reason))
            except (BotError, Unavailable) as error:
                log.warning("confirmation not shown", actor=actor, error=str(error))
            else:
                return None
        if foreign_leases and not reason:
            lease = foreign_leases[0]
            raise Misunderstood(
                md(
                    "{model} is held by {holder}. To bring it down, give a reason: {command}.",
                    model=code(lease.model),
                    holder=person(lease.holder),
                    command=code(f"/gpu down {lease.model} because …"),
                )
            )
        answer = await self.down(names, actor, trigger, reason)
        return answer or card_reference(command.get("channel_id"), self.config.slack.channel)

    async def down(self, names: tuple[str, ...], actor: str, delivery: str, reason: str = "") -> Mrkdwn | None:
        """Bring models down; without a name, the models that hold a lease. Returns None after the request, or the result if
        Redis is down, because the models are then brought down directly.
        """
        try:
            if not names:
                names = tuple(lease.model for lease in await self.lease_marks.held())
                if not names:
                    if up := await _up(self.cluster, self.config.platform.namespace):
                        commands = [
                            md("{model} ({command} ends it)", model=code(name), command=code(f"/gpu down {name}"))
                            for name in up
                        ]
                        return md("Nobody holds the GPU, but it is in use by {models}.", models=md(", ").join(commands))
                    return md("Nothing is up: nobody holds the GPU.")
            for name in names:
                request = down_request(name, actor, self.config.slack.channel, self.clock(), reason)
                await self.lifecycle.request(request, f"{delivery}:{name}")
            return None
        except Unavailable as error:
            if error.system != "Redis":
                raise
        names = names or await _up(self.cluster, self.config.platform.namespace)
        if not names:
            home = code(self.config.platform.namespace)
            return md("Redis does not answer. Nothing uses the GPU in namespace {home}.", home=home)
        return md("\n").join(await asyncio.gather(*(self._down_without_redis(name) for name in names)))

    async def _down_without_redis(self, name: str) -> Mrkdwn:
        """Bring one model down, and return the result. An error is part of the result, so that the other results are
        shown.
        """
        try:
            return await self.stopping.bring_down_without_redis(name)
        except (BotError, Unavailable) as error:
            return md("❌ {model}: {error}", model=code(name), error=error)


async def _up(cluster: Cluster, namespace: str) -> tuple[str, ...]:
    """Return the names of the models in the namespace that use a GPU, according to the cluster."""
    users = await cluster.gpu_users()
    return tuple(user.name for user in users if (user.kind, user.namespace) == ("Deployment", namespace))
