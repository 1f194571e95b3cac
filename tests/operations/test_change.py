"""From `/model add` and `/model swap` to a served model, and everything that can come between."""

from tests.operations.platform import Platform

MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"


async def test_an_endpoint_is_added(platform: Platform) -> None:
    """One pull request, one merge, one card."""
    await platform.say("dev", f"/model add coder-mini {MINI}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.click("lead", "Approve & roll out")
    await platform.sees("coder-mini is rolled out")
    assert platform.pull().merge_commit
    assert platform.object("Deployment", "coder-mini")
