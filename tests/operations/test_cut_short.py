"""Work that repeatedly ends the process is set aside, and its costs are ended nevertheless."""

from pathlib import Path

import pytest

from bot.domain.operations import Operation
from bot.engine.lifecycle import task_key
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger
from bot.state.task_starts import STARTS, Start
from bot.text.mrkdwn import md
from tests.operations.platform import platform as opened
from tests.operations.steps import held, replicas


def died(op: Operation) -> Operation:
    return op.model_copy(update={"failure": md("The engine died.")})


@pytest.mark.parametrize("deaths", [1, 2])
async def test_an_undoing_that_ends_the_process_leaves_no_gpu_on(tmp_path: Path, redis_url: str, deaths: int) -> None:
    """After the second death the model goes to zero and the lease is released, without the rest of the rollback."""
    async with opened(tmp_path, redis_url) as it:
        it.faults.add("never-ready")
        await it.say("dev", "/gpu up coder-chat for 1h because demo")
        await it.click("lead", "Approve")
        await it.until(lambda: replicas(it, "coder-chat") == 1)
        lease = (await held(it))[0]
        await it.stop()
        op = await Operations(it.redis).update(lease.op, died)
        begun = f"{op.status} {await StepLedger(it.redis).finished(op.id)} {len(op.phases)}"
        await it.redis.hset(STARTS, task_key(op), Start(begun=begun, deaths=deaths - 1).model_dump_json())
        await it.start()

        short = deaths == 2
        await it.sees("scaled to zero without a receipt" if short else "coder-chat is down again")
        assert replicas(it, "coder-chat") == 0
        assert not await held(it)
        if short:
            assert "crashed 2 times" in await it.sees("🧹", "admin")


async def test_a_task_that_ends_the_process_is_set_aside(tmp_path: Path, redis_url: str) -> None:
    """For tasks that run once: the admins are notified, and other tasks continue."""
    async with opened(tmp_path, redis_url) as it:
        await it.say("dev", "/gpu up coder-chat for 1h because demo")
        await it.click("lead", "Approve")
        await it.sees("coder-chat is up and answers")
        lease = (await held(it))[0]
        await it.redis.hset(STARTS, f"settle_bill:{lease.fence}", Start(begun="", deaths=1).model_dump_json())
        await it.say("dev", "/gpu down")
        await it.sees("coder-chat is down and the GPU is free")
        assert f"settle_bill:{lease.fence}" in await it.sees("is set aside", "admin")
