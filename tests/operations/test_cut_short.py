"""Work that repeatedly ends the process is set aside, but the GPU that it uses is still turned off."""

from pathlib import Path

import pytest

from bot.domain.operations import Operation
from bot.engine.lifecycle import task_key
from bot.state.operations import Operations
from bot.state.step_ledger import StepLedger
from bot.state.task_starts import STARTS, Start
from bot.text.mrkdwn import md
from tests.operations.platform import open_platform
from tests.operations.steps import read_leases, replicas


def with_failure(op: Operation) -> Operation:
    return op.model_copy(update={"failure": md("The engine died.")})


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_rollback_that_ends_the_process_leaves_no_gpu_on(tmp_path: Path, redis_url: str, deaths: int) -> None:
    """After the second death the model goes to zero and the lease is released, without the rest of the rollback."""
    async with open_platform(tmp_path, redis_url) as platform:
        platform.faults.add("never-ready")
        await platform.say("dev", "/gpu up coder-chat for 1h because demo")
        await platform.click("lead", "Approve")
        await platform.until(lambda: replicas(platform, "coder-chat") == 1)
        lease = (await read_leases(platform))[0]
        await platform.stop()
        op = await Operations(platform.redis).update(lease.op, with_failure)
        begun = f"{op.status} {await StepLedger(platform.redis).finished(op.id)} {len(op.phases)}"
        await platform.redis.hset(STARTS, task_key(op), Start(begun=begun, deaths=deaths - 1).model_dump_json())
        await platform.start()

        cut_short = deaths == 2
        await platform.sees("scaled to zero without a receipt" if cut_short else "coder-chat is down again")
        assert replicas(platform, "coder-chat") == 0
        assert not await read_leases(platform)
        if cut_short:
            assert "crashed 2 times" in await platform.sees("🧹", "admin")


async def test_a_task_that_ends_the_process_is_set_aside(tmp_path: Path, redis_url: str) -> None:
    """The task runs only once: the admins are notified, and other tasks continue."""
    async with open_platform(tmp_path, redis_url) as platform:
        await platform.say("dev", "/gpu up coder-chat for 1h because demo")
        await platform.click("lead", "Approve")
        await platform.sees("coder-chat is up and answers")
        lease = (await read_leases(platform))[0]
        await platform.redis.hset(STARTS, f"settle_bill:{lease.fence}", Start(begun="", deaths=1).model_dump_json())
        await platform.say("dev", "/gpu down")
        await platform.sees("coder-chat is down and the GPU is free")
        assert f"settle_bill:{lease.fence}" in await platform.sees("is set aside", "admin")
