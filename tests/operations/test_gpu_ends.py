"""Complicated ends of a session: the holder has left, a model does not restart, a click is late."""

import asyncio
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from docket import ExponentialRetry

from bot.domain import phases
from bot.domain.kinds import Kind
from bot.domain.leases import Lease
from bot.domain.operations import BringDownOperation, BringUpOperation, ExtendOperation, ReleaseOperation, Status, Vote
from bot.domain.outcomes import BroughtDown, Started
from bot.domain.plans import ExtendPlan, ReleasePlan
from bot.domain.requests import BringUp, Extend, Release
from bot.domain.sessions import Bill, Node
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle, NotAllowed
from bot.engine.run import CancelRequested
from bot.errors import BotError, Unavailable
from bot.gpu.billing import BillSettlement
from bot.gpu.stopping import down_request, end_of_session
from bot.services import Services
from bot.settings.config import Config, Roles
from bot.tasks import Advancing
from bot.views import card
from bot.views.outcomes import outcome_text
from bot.views.receipt import receipt
from bot.wiring import Wiring
from bot.workflows import Workflows
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace
from tests.operations.platform import SPEED, STOPPED, Platform, open_platform
from tests.operations.steps import LEASES, bring_up, push_change, queue_for_gpu, read_leases, replace_model, replicas

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]

HOUR = timedelta(hours=1)
DEPLOYMENT = "serving/coder-chat/deployment.yaml"


async def bills(platform: Platform) -> list[Bill]:
    """The bills of all sessions, in the order of their claims."""
    bills = [Bill.model_validate_json(text) for text in await platform.redis.hvals("{stoker}:bills")]
    return sorted(bills, key=lambda bill: bill.fence)


async def test_a_holder_who_has_left_does_not_block_others(platform: Platform) -> None:
    """No direct message reaches the holder; their session can still be replaced, restored and broken."""
    await bring_up(platform)
    platform.workspace.deactivate("dev")
    platform.faults.add("smoke-fails")
    await replace_model(platform)
    await platform.sees("coder-chat is restored: @dev holds the GPU again")
    await platform.sees("Failed", "lead")
    old, new = (await bills(platform))[:2]
    (restored,) = await read_leases(platform)
    assert restored.claimed >= new.down >= old.down, "a minute is on two receipts"
    assert restored.ready
    assert restored.ends
    assert restored.ends - restored.ready == restored.hold < timedelta(hours=4), (
        "the remaining time, from the moment when it is ready again"
    )
    await platform.say("admin", "/gpu release because they have left")
    await platform.sees("Breaks the lease on coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("is down and the GPU is free")
    assert await read_leases(platform) == []


async def test_an_offer_to_a_person_who_has_left_is_on_the_card(platform: Platform) -> None:
    """No direct message reaches the person; the offer is made and ends like any other offer."""
    await bring_up(platform)
    await queue_for_gpu(platform)
    platform.workspace.deactivate("lead")
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("It is your turn")


async def test_a_denial_during_an_offer_is_reported(platform: Platform) -> None:
    """The text does not claim that the requester failed to answer."""
    await bring_up(platform)
    await queue_for_gpu(platform)
    await platform.say("dev", "/gpu down coder-chat")
    await platform.sees("it is your turn: press", "lead")
    await platform.click("admin", "Deny")
    message = await platform.sees("no offer to take", "lead")
    assert "This request is denied" in message
    assert not [text for text in platform.visible("lead") if "Nobody answered" in text]


async def test_both_models_stay_down(platform: Platform) -> None:
    """The GPU is free then, everybody is notified of the reason, and the receipt includes the cost of the second
    attempt.
    """
    await bring_up(platform)
    platform.faults.add("crash")
    await replace_model(platform)
    message = await platform.sees("could not be restored either", "lead")
    assert message.count("keeps crashing") == 2
    assert await read_leases(platform) == []
    assert (replicas(platform, "coder-chat"), replicas(platform, "coder-fim")) == (0, 0)
    assert [bill.model for bill in await bills(platform)] == ["coder-chat", "coder-fim", "coder-chat"]


async def test_the_card_of_a_replaced_boot_names_the_replacement(tmp_path: Path, redis_url: str) -> None:
    """The text claims neither a failure nor an unknown person who scaled it down."""
    async with open_platform(tmp_path, redis_url, speed=500, settings={"gpu": {"boot_limit": "300s"}}) as platform:
        platform.faults.add("never-ready")
        await platform.say("dev", "/gpu up coder-chat")
        await platform.click("lead", "Approve")
        await platform.sees("loading …")
        await replace_model(platform)
        await platform.sees("Replaced by coder-fim, as @lead requested")
        platform.faults.discard("never-ready")
        await platform.sees("coder-fim is up and answers")
        assert not [text for text in platform.visible() if "scaled to zero, or deleted" in text]


async def test_down_finds_a_session_that_redis_has_lost(tmp_path: Path, redis_url: str) -> None:
    """The cluster still has the session's holder: the answer does not wait for the next comparison, and there is a receipt."""
    async with open_platform(tmp_path, redis_url, settings={"lease": {"reconcile_every": "10m"}}) as platform:
        await bring_up(platform)
        await platform.redis.delete(LEASES)
        await platform.say("dev", "/gpu down")
        message = await platform.sees("is down and the GPU is free")
        assert "Held by @dev" in message


async def test_a_commit_that_argo_cd_has_not_seen_is_synced(platform: Platform) -> None:
    """Argo CD reports Synced until it polls git again; the running model is the approved one."""
    platform.cluster.set_speed(STOPPED)
    await push_change(platform, "main", DEPLOYMENT, "--max-model-len=16384", "--max-model-len=8192")
    await platform.say("dev", "/gpu up coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("syncing …")
    platform.cluster.set_speed(SPEED)
    await platform.sees("all smoke tests passed")
    assert "--max-model-len=8192" in str(platform.object("Deployment", "coder-chat"))


@pytest.fixture
async def running_op(svc: Services) -> BringUpOperation:
    """A bring-up whose smoke tests run."""
    now = svc.clock()
    request = BringUp(model="coder-chat", actor="U0DEV", channel="C0GPUOPS", at=now, reason="demo")
    op = BringUpOperation(id="op", request=request, status=Status.RUNNING, updated=now)
    return await svc.operations.create(op.with_phase(phases.SMOKE_TESTS, now))


async def test_a_cancellation_just_before_the_end_counts(svc: Services, running_op: BringUpOperation) -> None:
    """The answer to the click confirms the cancellation, so the bring-up must not succeed."""
    await Wiring(svc).of(Decisions).cancel(running_op.id, "U0DEV")
    with pytest.raises(CancelRequested):
        await Wiring(svc).of(Lifecycle).run(running_op).finish(Started(holder="U0DEV"))
    assert (await svc.operations.load(running_op.id)).status is Status.RUNNING


async def test_an_obstacle_to_the_rollback_is_on_the_card(svc: Services, running_op: BringUpOperation) -> None:
    """The rollback is retried until it succeeds, and the card shows what people may have to do."""
    await svc.operations.update(running_op.id, lambda op: op.model_copy(update={"failure": "It crashed."}))
    await Wiring(svc).of(Lifecycle).run(running_op).enter(phases.UNDO_BRING_UP)
    async with Wiring(svc).of(Lifecycle).handling_errors(running_op.id, ExponentialRetry()):
        raise BotError("`coder-chat` is scaled down, but its pod is still there.")
    message = card(await svc.operations.load(running_op.id), svc.clock())
    assert "its pod is still there" in str(message.blocks)


async def test_a_task_that_is_delivered_again_waits_for_its_first_run(
    svc: Services, running_op: BringUpOperation
) -> None:
    """docket repeats the delivery after the process has stalled for seconds; two simultaneous runs would make each other fail."""
    async with svc.operations.turn(running_op.id):
        again = asyncio.create_task(Wiring(svc).of(Advancing).advance(running_op.id, key="an earlier task"))
        await asyncio.wait({again}, timeout=0.3)
        assert not again.done()
    await again


async def test_work_that_another_bot_has_taken_over_does_not_fail(svc: Services, running_op: BringUpOperation) -> None:
    """This process was paused, and still has an earlier state of the operation."""
    async with Wiring(svc).of(Lifecycle).handling_errors(running_op.id, ExponentialRetry()):
        running_op.moved(Status.RUNNING, svc.clock())
    op = await svc.operations.load(running_op.id)
    assert (op.status, op.failure) == (Status.RUNNING, "")


@pytest.mark.parametrize(("status", "again"), [(Status.REQUESTED, False), (Status.RUNNING, True)])
async def test_a_boot_is_retried_for_longer_than_a_question(
    svc: Services, running_op: BringUpOperation, status: Status, again: bool
) -> None:
    """A minute without the API server must not fail a boot of ten minutes; a simple question is answered within half a
    minute.
    """
    await svc.operations.update(running_op.id, lambda op: op.model_copy(update={"status": status}))
    retry = ExponentialRetry(attempts=12)
    retry.attempt = 6
    with pytest.raises(Unavailable) if again else nullcontext():
        async with Wiring(svc).of(Lifecycle).handling_errors(running_op.id, retry):
            raise Unavailable("Kubernetes")
    assert (await svc.operations.load(running_op.id)).status is (Status.RUNNING if again else Status.REFUSED)


async def test_the_audit_log_has_person_and_reason(svc: Services, running_op: BringUpOperation) -> None:
    """The log contains the person who decided and the reason of the decision."""
    open_to_all = Config(roles=Roles(approvers=("U0LEAD",), admins=("U0ADMIN",)), slack=svc.config.slack)
    svc = replace(svc, config=open_to_all, roles=replace(svc.roles, config=open_to_all))
    await svc.operations.update(running_op.id, lambda op: op.model_copy(update={"status": Status.AWAITING}))
    await Wiring(svc).of(Decisions).vote(running_op.id, "U0ADMIN", approve=True, reason="customer waits", override=True)
    await Wiring(svc).of(Decisions).cancel(running_op.id, "U0LEAD")
    entries = [(e["event"], e["who"], e["why"]) async for e in svc.audit.entries()]
    assert entries[1:] == [("overridden", "U0ADMIN", "customer waits"), ("cancelled", "U0LEAD", "demo")]


@pytest.mark.parametrize("worded", [False, True], ids=["a value", "the text of an earlier version"])
async def test_a_killed_bot_corrects_the_estimated_receipt(
    svc: Services, running_op: BringUpOperation, worded: bool
) -> None:
    """The bot was killed after it had stored the bill, and before it corrected the message."""
    now = svc.clock()
    node = Node(name="gpu", since=now - HOUR)
    bill = Bill(
        fence=1, op=running_op.id, model="coder-chat", holder="U0DEV", claimed=now - HOUR, ready=now - HOUR, down=now,
        node=node, drain=HOUR / 6, price_per_hour=0.85,
    )  # fmt: skip
    end = {"outcome": receipt(bill)} if worded else {"result": BroughtDown(bill=bill)}
    op = await Wiring(svc).of(Lifecycle).run(running_op).update(lambda op: op.model_copy(update=end))
    assert "(an estimate)" in outcome_text(op)
    await svc.bills.keep(bill.model_copy(update={"gone": now}))
    await Wiring(svc).of(BillSettlement).settle_bill(bill.fence)
    assert "estimate" not in outcome_text(await svc.operations.load(running_op.id))


async def test_breaking_a_lease_again_after_a_crash_does_not_affect_the_next_holder(
    svc: Services, running_op: BringUpOperation
) -> None:
    """The bot was killed before it reported the end; the next bring-up of the same model belongs to another person."""
    now = svc.clock()
    lease = Lease(model="coder-chat", op="earlier", holder="U0DEV", fence=1, hold=HOUR, claimed=now)
    request = Release(model="coder-chat", actor="U0ADMIN", channel="C0GPUOPS", at=now)
    plan = ReleasePlan(commit="", lease=lease)
    broken = ReleaseOperation(id="broken", request=request, status=Status.RUNNING, updated=now, plan=plan)
    await svc.operations.create(broken)
    with suppress(Unavailable):  # there is no cluster here
        await Wiring(svc).of(Workflows).table()[Kind.GPU_RELEASE].execute(Wiring(svc).of(Lifecycle).run(broken))
    assert not (await svc.operations.load(running_op.id)).cancelled_by


async def test_a_second_bring_down_is_refused(svc: Services) -> None:
    """Two people press at the same time: there is one receipt, and no message that nobody held the GPU."""
    now = svc.clock()
    requests = [down_request("coder-chat", user, "C0GPUOPS", now, "") for user in ("U0DEV", "U0LEAD")]
    first, second = (BringDownOperation(id=request.actor, request=request, updated=now) for request in requests)
    await svc.operations.create(first.moved(Status.RUNNING, now))
    with pytest.raises(NotAllowed, match="is already going down, as <@U0DEV> requested"):
        await (
            Wiring(svc)
            .of(Workflows)
            .table()[Kind.GPU_DOWN]
            .execute(Wiring(svc).of(Lifecycle).run(await svc.operations.create(second)))
        )


async def test_the_bot_ends_only_the_session_that_it_found(svc: Services, running_op: BringUpOperation) -> None:
    """It found a model at zero whose lease was just released; in the meantime somebody else has brought the model up."""
    now = svc.clock()
    lease = Lease(model="coder-chat", op=running_op.id, holder="U0DEV", fence=0, hold=HOUR, claimed=now)
    ended = await svc.leases.claim(lease)
    await svc.leases.release(ended)
    await svc.leases.claim(lease.model_copy(update={"op": "next"}))
    request = end_of_session(ended, "it was down already", svc.config.slack.channel, now)
    for status in (Status.REQUESTED, Status.RUNNING):
        op = await svc.operations.create(BringDownOperation(id=status, request=request, status=status, updated=now))
        with pytest.raises(BotError, match="has ended, so nothing was done"):
            await Wiring(svc).of(Workflows).table()[Kind.GPU_DOWN].execute(Wiring(svc).of(Lifecycle).run(op))


async def test_an_extension_ends_at_the_approved_time(svc: Services, running_op: BringUpOperation) -> None:
    """The lease ends at the time on the card, even if somebody else has extended it in the meantime."""
    config = Config(roles=Roles(approvers=("U0LEAD",)), slack=svc.config.slack)
    svc = replace(svc, config=config, roles=replace(svc.roles, config=config))
    now = svc.clock()
    lease = Lease(model="coder-chat", op=running_op.id, holder="U0DEV", fence=0, hold=HOUR, claimed=now)
    planned = await svc.leases.change(await svc.leases.claim(lease), lambda lease: lease.started(now))
    assert planned
    assert planned.ends
    request = Extend(model="coder-chat", actor="U0DEV", channel="C0GPUOPS", at=now, hold=9 * HOUR)
    plan = ExtendPlan(commit="", lease=planned, estimate_usd=7.65)
    votes = (Vote(by="U0LEAD", at=now, approve=True),)
    op = await svc.operations.create(
        ExtendOperation(id="longer", request=request, status=Status.APPROVED, updated=now, plan=plan, votes=votes)
    )
    await svc.leases.change(planned, lambda lease: lease.model_copy(update={"ends": now + 2 * HOUR}))
    await Wiring(svc).of(Workflows).table()[Kind.GPU_EXTEND].execute(Wiring(svc).of(Lifecycle).run(op))
    (lease,) = await svc.leases.held()
    assert lease.ends == now + 10 * HOUR
