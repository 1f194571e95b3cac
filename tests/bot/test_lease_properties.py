"""The lease under combined faults: races, crashes, zombies, clock jumps, restarts, flushes and failovers of a real server.

The test drives the real `Leases` and the real `Cluster` in the order in which the operations call them; hypothesis
decides which process continues, and between which two calls something fails.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bot.clients.cluster import Cluster, StaleFence
from bot.clients.redis import opened
from bot.domain.leases import Lease
from bot.domain.marks import read_mark
from bot.state.leases import GpuBusy, GpuQueued, LeaseMoved, Leases
from sandbox.process import Redis as Server
from tests.clients.kube import Wire, connected, deployment

T = TypeVar("T")
MODELS = ("a", "b", "c")
START = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass
class Worker:
    """The process of an operation, with its current step and the lease that it assumes it holds."""

    op: str
    model: str
    lease: Lease | None = None
    step: str = "asked"


class LeaseMachine(RuleBasedStateMachine):
    """Each step of a bring-up is a rule, so that other rules can run between two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.now = START
        self.workers: list[Worker] = []
        self.zombies: list[Worker] = []
        self.queue: list[str] = []
        self.fences: list[int] = []
        self.count = 0
        self.slots = 1
        self.before: dict[bytes, bytes] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(slots=st.integers(1, 2))
    def start_servers(self, slots: int) -> None:
        self.slots = slots

        async def open_all() -> None:
            directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
            self.server = await self.stack.enter_async_context(Server(directory))
            self.redis = await self.stack.enter_async_context(opened(self.server.url))
            self.api = await self.stack.enter_async_context(Wire())
            self.cluster = Cluster(await self.stack.enter_async_context(connected(self.api)), "serving")
            for model in MODELS:
                self.api.store.create(deployment(model))
            self.leases = Leases(self.redis, slots)

        self.run(open_all())

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    # -------------------------------------------------------------------------------------------- the steps of a bring-up

    @rule(model=st.sampled_from(MODELS), patient=st.booleans())
    def ask(self, model: str, patient: bool) -> None:
        """Somebody requests a model; if the GPU is taken, the request may queue."""
        self.count += 1
        worker = Worker(f"op{self.count}", model)
        if not self.run(self._claim(worker)) and patient:
            self.run(self.leases.join(worker.op))
            self.queue.append(worker.op)
            self.workers.append(worker)

    @precondition(lambda self: any(w.step == "asked" for w in self.workers))
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        """A queued request tries to claim; it succeeds only if there are enough slots for all requests ahead."""
        worker = data.draw(st.sampled_from([w for w in self.workers if w.step == "asked"]))
        queued = [op.decode() for op in self.run(self._members())]
        ahead = queued.index(worker.op) if worker.op in queued else len(queued)
        again = worker.op in {lease.op for lease in self.run(self.leases.held())}  # its own lease from before the crash
        if self.run(self._claim(worker)):
            assert again or ahead < self.slots
            self.queue = [op for op in self.queue if op != worker.op]

    @precondition(lambda self: any(w.step in ("claimed", "checked", "scaled") for w in self.workers))
    @rule(data=st.data())
    def take_next_step(self, data: st.DataObject) -> None:
        """The next step of a bring-up: check, scale, check again."""
        worker = data.draw(st.sampled_from([w for w in self.workers if w.step in ("claimed", "checked", "scaled")]))
        self.run(self._next_step(worker))

    @precondition(lambda self: any(w.step == "up" for w in self.workers))
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """Keep the model: in Redis, and on the Deployment."""
        worker = data.draw(st.sampled_from([w for w in self.workers if w.step == "up"]))

        async def keep() -> None:
            assert worker.lease
            await self._remember()
            renewed = await self.leases.change(
                worker.lease, lambda current: current.model_copy(update={"keeps": current.keeps + 1})
            )
            if renewed:
                await self.cluster.mark(renewed.model, renewed.mark, renewed.fence)

        self.run(keep())

    @precondition(lambda self: any(w.lease for w in self.workers))
    @rule(data=st.data())
    def down(self, data: st.DataObject) -> None:
        """End a session, or an attempt."""
        worker = data.draw(st.sampled_from([w for w in self.workers if w.lease]))
        self.run(self._back_off(worker))

    @precondition(lambda self: any(w.step == "up" for w in self.workers))
    @rule(data=st.data(), model=st.sampled_from(MODELS))
    def replace(self, data: st.DataObject, model: str) -> None:
        """The slot changes hands in one step; then the old model goes down under the new fence."""
        old = data.draw(st.sampled_from([w for w in self.workers if w.step == "up"]))
        if model == old.model or any(w.model == model and w.lease for w in self.workers):
            return
        self.count += 1
        worker = Worker(f"op{self.count}", model)

        async def swap() -> None:
            assert old.lease
            await self._remember()
            try:
                floor = await self.cluster.highest_fence()
                worker.lease = await self.leases.replace(old.lease, self._new_lease(worker), floor=floor)
            except LeaseMoved:
                return
            self._record_fence(worker.lease)
            worker.step = "claimed"
            self.workers.append(worker)
            self.workers.remove(old)
            self.zombies.append(old)
            await self.cluster.scale(old.model, 0, lease=None, fence=worker.lease.fence)

        self.run(swap())

    # -------------------------------------------------------------------------------------------------- what can go wrong

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The process stops and its task is delivered again from its first line. The old process may still run."""
        worker = data.draw(st.sampled_from(self.workers))
        self.zombies.append(Worker(worker.op, worker.model, worker.lease, worker.step))
        if worker.step != "up":
            worker.step, worker.lease = "asked", None

    @precondition(lambda self: any(z.lease for z in self.zombies))
    @rule(data=st.data(), action=st.sampled_from(("up", "down", "mark", "release")))
    def zombie(self, data: st.DataObject, action: str) -> None:
        """A worker that was believed dead continues, but changes nothing with its old fence."""
        zombie = data.draw(st.sampled_from([z for z in self.zombies if z.lease]))
        assert zombie.lease
        current = next((w.lease for w in self.workers if w.model == zombie.model and w.lease), None)
        if current and current.fence == zombie.lease.fence:
            return  # a repetition of the same lease, not a conflict
        self.run(self._act_as_zombie(zombie.model, zombie.lease, action, current))

    @rule(hours=st.integers(-48, 48))
    def clock_jumps(self, hours: int) -> None:
        """A jump of the clock ends no lease."""
        self.now += timedelta(hours=hours)

    @rule()
    def redis_restarts(self) -> None:
        """Every write was on disk."""

        async def restart() -> None:
            await self.server.stop()
            await self.server.start()

        self.run(restart())

    @rule()
    def redis_is_flushed(self) -> None:
        async def flush() -> None:
            await self.redis.flushall()

        self.run(flush())
        self.queue = []
        self.before = {}

    @precondition(lambda self: self.before)
    @rule()
    def failover(self) -> None:
        """The replica that takes over has missed the last write."""

        async def lose() -> None:
            await self.redis.flushall()
            for key, dumped in self.before.items():
                await self.redis.restore(key, 0, dumped)
            self.queue = [op.decode() for op in await self._members()]
            await asyncio.sleep(0.002)  # a failover takes at least this long

        self.run(lose())
        self.before = {}

    @rule()
    def reconcile(self) -> None:
        """Simulate the reconciliation: rebuild leases from annotations, and close those without a model or an operation."""

        async def look() -> None:
            await self._rebuild()
            up = {user.name for user in await self.cluster.gpu_users()}
            busy = {w.op for w in self.workers}
            for lease in await self.leases.held():
                if lease.model not in up and lease.op not in busy:
                    await self.leases.release(lease)

        self.run(look())

    # ---------------------------------------------------------------------------------------------------------- invariants

    @invariant()
    def never_two_holders(self) -> None:
        """Neither the leases in Redis nor the models on the GPU exceed the number of slots."""
        if not hasattr(self, "leases"):
            return
        assert len(self.run(self.leases.held())) <= self.slots
        running = {d["metadata"]["name"] for d in self.api.store.find("Deployment") if d["spec"]["replicas"]}
        assert len([w for w in self.workers if w.step == "up" and w.model in running]) <= self.slots

    @invariant()
    def fences_only_grow(self) -> None:
        assert self.fences == sorted(set(self.fences))

    # ------------------------------------------------------------------------------------------------------- the protocol

    def _new_lease(self, worker: Worker) -> Lease:
        hold = timedelta(hours=2)
        return Lease(model=worker.model, op=worker.op, holder="U1", fence=0, hold=hold, claimed=self.now)

    def _record_fence(self, lease: Lease) -> None:
        if lease.fence not in self.fences:
            self.fences.append(lease.fence)

    async def _claim(self, worker: Worker) -> bool:
        await self._rebuild()
        await self._remember()
        try:
            worker.lease = await self.leases.claim(self._new_lease(worker), floor=await self.cluster.highest_fence())
        except (GpuBusy, GpuQueued):
            return False
        self._record_fence(worker.lease)
        worker.step = "claimed"
        if worker not in self.workers:
            self.workers.append(worker)
        return True

    async def _next_step(self, worker: Worker) -> None:
        assert worker.lease
        try:
            match worker.step:
                case "claimed":
                    is_taken = await self._is_taken(worker)
                    worker.step = "checked"
                case "checked":
                    is_taken = False
                    await self.cluster.scale(worker.model, 1, lease=worker.lease.mark, fence=worker.lease.fence)
                    worker.step = "scaled"
                case _:
                    is_taken = await self._is_taken(worker)
                    worker.step = "up"
        except StaleFence:
            is_taken = True
        if is_taken:
            await self._back_off(worker)

    async def _is_taken(self, worker: Worker) -> bool:
        await self._rebuild()
        models = {lease.model for lease in await self.leases.held()} | {u.name for u in await self.cluster.gpu_users()}
        return len(models - {worker.model}) >= self.slots

    async def _back_off(self, worker: Worker) -> None:
        assert worker.lease
        with contextlib.suppress(StaleFence):
            await self.cluster.scale(worker.model, 0, lease=None, fence=worker.lease.fence)
        await self._remember()
        await self.leases.release(worker.lease)
        self.workers.remove(worker)
        self.zombies.append(worker)

    async def _rebuild(self) -> None:
        leased = {lease.model for lease in await self.leases.held()}
        for user in await self.cluster.gpu_users():
            lost = read_mark(user.mark, user.name)
            if user.name not in leased and lost:
                with contextlib.suppress(GpuBusy):
                    await self.leases.restore(lost)

    async def _act_as_zombie(self, model: str, lease: Lease, action: str, current: Lease | None) -> None:
        before = self.api.store.get("Deployment", model, "serving")
        leases_before = await self.leases.held()
        with contextlib.suppress(StaleFence):
            match action:
                case "up":
                    await self.cluster.scale(model, 1, lease=lease.mark, fence=lease.fence)
                case "down":
                    await self.cluster.scale(model, 0, lease=None, fence=lease.fence)
                case "mark":
                    await self.cluster.mark(model, lease.mark, lease.fence)
                case _:
                    await self.leases.release(lease)
        after = self.api.store.get("Deployment", model, "serving")
        marked = read_mark(((before or {})["metadata"].get("annotations") or {}).get("stoker.dev/lease"), model)
        if current and marked and marked.fence == current.fence:
            assert after == before
        if current:
            assert [lease for lease in leases_before if lease.fence == current.fence] == [
                lease for lease in await self.leases.held() if lease.fence == current.fence
            ]
        elif after != before:  # a process that has lost its lease undoes the bring-up at its second check
            await self.cluster.scale(model, 0, lease=None)

    async def _members(self) -> list[bytes]:
        members: Any = await self.redis.zrange("{stoker}:queue", 0, -1)
        return list(members)

    async def _remember(self) -> None:
        """Keep the data that a replica has if it misses the next write."""
        keys: Any = await self.redis.keys("*")
        self.before = {key: dumped for key in keys if (dumped := await self.redis.dump(key))}


LeaseMachine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(
        Phase.generate,
    ),  # each run starts a server: shrinking would take many minutes, and the steps are printed anyway
)
TestLeases = pytest.mark.timeout(600)(LeaseMachine.TestCase)
