"""`/gpu status`: the holders of the GPU, the cost so far, and the requests that wait."""

from datetime import datetime, timedelta

from bot.clients.cluster import Cluster
from bot.clients.workload import GpuUser
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.domain.operations import BringUpOperation
from bot.domain.sessions import cost
from bot.errors import Unavailable
from bot.gpu.billing import draining, running_total
from bot.gpu.lease_marks import LeaseMarks
from bot.settings.config import Config
from bot.state.bills import Bills
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import View, actions, busy_line, code, lines, money
from bot.views.blocks import MESSAGE_BLOCKS, Block, context
from bot.views.gpu import free, requested_line
from bot.views.health import trouble_line
from bot.views.links import Links
from bot.views.next_steps import of_lease

_DRAINS = timedelta(days=2)
"""Sessions older than this cannot still have a draining node."""


@component
class GpuStatus:
    """`/gpu status`."""

    operations: Operations
    leases: Leases
    sessions: Sessions
    bills: Bills
    cluster: Cluster
    lease_marks: LeaseMarks
    config: Config
    clock: Clock

    async def read(self) -> View:
        """Return the status: for each session the holder, the start, the cost so far, the last use and the end, with the
        buttons to extend it and bring it down; then the requests that wait.

        Without Redis, it shows the state of the cluster.
        """
        users = await self.cluster.gpu_users()
        try:
            return await self._read(users)
        except Unavailable as error:
            if error.system != "Redis":
                raise
        text_lines = ["⚠️ Redis does not answer: nothing can be brought up until it does. The cluster shows:"]
        price, now = self.config.gpu.price(), self.clock()
        for user in users:
            lease = read_mark(user.mark, user.name)
            text_lines.append(
                md(
                    "🔥 {busy}\nCost so far about {usd}. `/gpu down {name}` ends it.",
                    busy=busy_line(lease, now),
                    usd=money(cost(now - lease.claimed, price)),
                    name=user.name,
                )
                if lease
                else md("🔥 {user} uses the GPU, which costs {price}/h.", user=code(str(user)), price=money(price))
            )
        return lines(md("\n").join(text_lines if users else [*text_lines, "Nothing uses the GPU."]))

    async def _read(self, users: tuple[GpuUser, ...]) -> View:
        strangers = await self.lease_marks.rebuild(users)
        now, text_lines, buttons = self.clock(), list[Mrkdwn](), list[Block]()
        leases = await self.leases.held()
        for lease in leases:
            text_lines.append(await self._session(lease, now))
            buttons.append(actions(*of_lease(lease), about=lease.model))
            if pages := Links.of(self.config, place=self.cluster.whereabouts.of).about(lease.model, lease.claimed):
                buttons.append(context(pages))
        text_lines += [self._stranger(user) for user in strangers]
        leased = {lease.model for lease in leases}
        text_lines = text_lines or [free(draining(await self.bills.since(now - _DRAINS), now), now)]
        waiting = [op for op in await self.operations.open(BringUpOperation) if op.request.model not in leased]
        text_lines += [requested_line(op) for op in waiting]
        view = lines(md("\n").join(text_lines))
        return View(text=view.text, blocks=[*view.blocks[: MESSAGE_BLOCKS - len(buttons)], *buttons])

    async def _session(self, lease: Lease, now: datetime) -> Mrkdwn:
        """Describe one session: the holder, the cost, the last use and the trouble."""
        line = md("🔥 {busy}", busy=busy_line(lease, now))
        session = await self.sessions.of(lease)
        health = await self.sessions.health(lease)
        usd, estimated = running_total(self.config.gpu, lease, await self.cluster.node_of(lease.model), now, health)
        line += md("\nCost so far {about}{usd}.", about="about " if estimated else "", usd=money(usd))
        if lease.ready and session:
            ago = show_duration(now - session.active)
            line += md(" Last active {ago} ago, {requests} requests.", ago=ago, requests=f"{session.requests:.0f}")
        if health and health.trouble:
            line += md("\n{trouble}", trouble=trouble_line(health.trouble))
        return line

    def _stranger(self, user: GpuUser) -> Mrkdwn:
        """Describe a workload that uses the GPU without a lease."""
        is_model = user.namespace == self.config.platform.namespace
        return md(
            "⚠️ {user} uses the GPU without a lease (started with kubectl?), which costs {price}/h.{end}",
            user=code(str(user)),
            price=money(self.config.gpu.price()),
            end=md(" `/gpu down {name}` ends it.", name=user.name) if is_model else "",
        )
