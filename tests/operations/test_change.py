"""From `/model add`, `swap` and `remove` to a served model, with conflicts, failures and cancellations in between."""

import base64
from pathlib import Path
from typing import Any

import pytest

from bot.state.audit import AuditLog
from tests.clients.wire import client
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import push_change

MINI = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"


async def propose(platform: Platform, command: str, *, number: int = 1) -> None:
    await platform.say("dev", command)
    await platform.sees(f"Pull request #{number}")
    await platform.github.checks("success")
    await platform.sees("checks passed")


async def roll_out(platform: Platform, outcome: str, label: str = "Approve & roll out") -> str:
    await platform.click("lead", label)
    return await platform.sees(outcome)


async def bring_up(platform: Platform, model: str = "coder-chat") -> None:
    await platform.say("dev", f"/gpu up {model}")
    await platform.click("lead", "Approve")
    await platform.sees("all smoke tests passed")


async def gateway(platform: Platform, method: str, path: str, **arguments: Any) -> Any:
    """Send a request to LiteLLM as its administrator."""
    secret = platform.object("Secret", "litellm-secrets", "litellm")
    assert secret
    master = base64.b64decode(secret["data"]["PROXY_MASTER_KEY"]).decode()
    async with client(platform.serving.litellm_url) as http:
        answer = await http.request(method, path, headers={"Authorization": f"Bearer {master}"}, **arguments)
    answer.raise_for_status()
    return answer.json()


async def key_of_tenant(platform: Platform, name: str, models: list[str]) -> str:
    minted = await gateway(platform, "POST", "/key/generate", json={"key_alias": name, "models": models})
    return str(minted["key"])


async def models_of_key(platform: Platform, key: str) -> list[str]:
    key_info = await gateway(platform, "GET", "/key/info", params={"key": key})
    return list(key_info["info"]["models"])


async def aliases(platform: Platform) -> set[str]:
    return {model["id"] for model in (await gateway(platform, "GET", "/v1/models"))["data"]}


async def test_an_endpoint_is_added(platform: Platform) -> None:
    """There is one pull request, one merge and one card; the same request at the same time returns the same pull request."""
    await platform.say("dev", f"/model add coder-mini {MINI}")
    await platform.sees("Pull request #1")
    await platform.say("lead", f"/model add coder-mini {MINI}")
    await platform.sees("This is already open", user="lead")
    await platform.say("lead", "/model swap coder-mini x/y")
    await platform.sees("Unknown model", user="lead")
    await platform.github.checks("success")
    card = await roll_out(platform, "coder-mini is rolled out")
    merged = await platform.github.repo.message(platform.pull().merge_commit or "")
    assert merged.startswith("feat(serving): add coder-mini (Qwen2.5-Coder-3B-Instruct-AWQ) (#1)\n")
    assert "\nRequested-by: U0DEV\n" in merged
    assert "Requested in Slack by `dev` (`U0DEV`)" in platform.pull().body
    assert platform.object("Deployment", "coder-mini")
    assert len(platform.pulls) == 1
    assert "and is down." in card


async def set_group(platform: Platform, *, flag: str, listed: str) -> None:
    """Set the flags of the sample's group without members, in config.yaml and in the generated list."""
    config, groups = "environments/ai-dev/config.yaml", "clusters/ai-dev/groups.generated.yaml"
    files = await platform.github.files_at(await platform.github.main_commit(), config)
    if f"egress: {flag}" not in files[config]:
        opposite = "false" if flag == "true" else "true"
        await push_change(platform, "main", config, f"egress: {opposite}", f"egress: {flag}")
    old = "false" if listed == "true" else "true"
    entry = 'name: egress, layer: routing, enabled: "{}"'
    await push_change(platform, "main", groups, entry.format(old), entry.format(listed))


async def test_an_endpoint_of_a_group_that_is_off_waits_for_the_generator(platform: Platform) -> None:
    """The flag is part of the pull request; the card shows the necessary step, and the roll-out continues after it."""
    await propose(platform, f"/model add coder-mini {MINI} group=egress")
    card = await platform.sees("Add coder-mini")
    assert "Run the generator of clusters/ai-dev/groups.generated.yaml" in card
    card = await roll_out(platform, "does not create coder-mini")
    assert "Run the generator of that file and merge its output" in card
    assert "continues automatically" in card
    assert platform.pull().merge_commit
    files = await platform.github.files_at(await platform.github.main_commit(), "environments/ai-dev/config.yaml")
    assert "egress: true" in files["environments/ai-dev/config.yaml"]
    await set_group(platform, flag="true", listed="true")
    card = await platform.sees("coder-mini is rolled out")
    assert "Run the generator" not in card
    assert platform.object("Application", "coder-mini", "argocd")
    await platform.say("lead", "/model check")
    await platform.sees("No problems found in the main branch", user="lead")


async def test_a_roll_out_that_waits_for_the_generator_can_be_cancelled(platform: Platform) -> None:
    """The card shows that the change is merged, and offers a revert, which removes everything, including the flag."""
    await propose(platform, f"/model add coder-mini {MINI} group=egress")
    await roll_out(platform, "does not create coder-mini")
    await platform.click("dev", "Cancel")
    assert "Cancelled by @dev" in await platform.sees("is merged; revert it to undo")
    await platform.click("dev", "Revert")
    await platform.sees("Pull request #2")
    await platform.github.checks("success")
    await roll_out(platform, "coder-mini is removed", "Approve deletion")
    before, after = platform.pull().base_sha, await platform.github.main_commit()
    assert await platform.github.repo.changes(before, after) == ()


async def test_waiting_for_the_generator_ends_at_the_limit(tmp_path: Path, redis_url: str) -> None:
    """The limit is that of a pull request without an approval; the card then names the missing step."""
    limits = {"approvals": {"pull_expire_after": "47h"}}
    async with open_platform(tmp_path, redis_url, settings=limits) as platform:
        await propose(platform, f"/model add coder-mini {MINI} group=egress")
        await roll_out(platform, "does not create coder-mini")
        await platform.restart("pull_expire_after: 47h", "pull_expire_after: 1s")
        card = await platform.sees("is merged; revert it to undo")
        assert "is still off in" in card
        assert "run the generator of that file, merge its output, then bring the endpoint up" in card


async def test_an_endpoint_is_removed(platform: Platform) -> None:
    """The Application, its Deployment, its volume and the alias are deleted."""
    await propose(platform, "/model remove coder-fim")
    card = await platform.sees("Remove coder-fim")
    assert "the volume coder-fim-model-cache" in card
    await roll_out(platform, "coder-fim is removed", "Approve deletion")
    assert platform.object("Deployment", "coder-fim") is None
    assert platform.object("PersistentVolumeClaim", "coder-fim-model-cache") is None
    assert platform.object("Application", "coder-fim", "argocd") is None
    assert "coder-fim" not in await aliases(platform)
    await platform.say("dev", "/model list")
    assert "coder-fim" not in await platform.sees("2 endpoints")


async def test_a_running_endpoint_is_not_removed(platform: Platform) -> None:
    """The request is refused; if the model came up after the request, the pull request is not merged."""
    await propose(platform, "/model remove coder-chat")
    await bring_up(platform)
    await platform.sees("@dev holds it")  # the card of the removal then has another plan
    await platform.click("lead", "Approve deletion")
    await platform.sees("bring it down first")
    assert platform.pull().merge_commit is None
    await platform.say("lead", "/model remove coder-chat")
    await platform.sees("is up, held by @dev. Bring it down first", user="lead")


async def test_a_running_endpoint_is_swapped_in_one_step(platform: Platform) -> None:
    """The card names the holder whose traffic stops; after the merge the model restarts and is smoke-tested."""
    await bring_up(platform)
    await propose(platform, f"/model swap coder-chat {BIG}")
    card = await platform.sees("until it is ready again")
    assert "@dev holds it" in card
    assert "Qwen2.5-Coder-7B-Instruct-AWQ → " in card
    card = await roll_out(platform, "now serves")
    assert "Qwen2.5-Coder-14B" in card
    deployment = platform.object("Deployment", "coder-chat")
    assert deployment
    assert BIG in str(deployment["spec"]["template"])
    assert deployment["spec"]["replicas"] == 1
    await platform.say("dev", "/gpu status")
    await platform.sees("coder-chat")


async def test_an_approval_is_void_when_the_endpoint_came_up_meanwhile(tmp_path: Path, redis_url: str) -> None:
    """The approvers could not know that it is in use."""
    async with open_platform(tmp_path, redis_url, settings={"github": {"poll_every": "1h"}}) as platform:
        await propose(platform, f"/model swap coder-chat {BIG}")
        await platform.sees("Approve & roll out")
        await platform.cluster.scale("coder-chat", 1)
        await platform.click("lead", "Approve & roll out")
        await platform.sees("so the approval is void")
        assert platform.pull().merge_commit is None


async def test_a_failed_smoke_test_offers_the_revert(platform: Platform) -> None:
    """One click opens the pull request that reverts the swap; the answer to a second click is a link to it."""
    await bring_up(platform)
    await propose(platform, f"/model swap coder-chat {BIG}")
    platform.faults.add("smoke-fails")
    await platform.click("lead", "Approve & roll out")
    await platform.sees("revert it to undo")
    platform.faults.discard("smoke-fails")
    await platform.click("dev", "Revert")
    await platform.sees("Pull request #2")
    await platform.click("dev", "Revert")
    await platform.sees("This is already open")
    assert len(platform.pulls) == 2
    changed = await platform.github.repo.changes(platform.pull(2).base_sha, platform.pull(2).head_sha)
    assert {change.path for change in changed} == {
        change.path
        for change in await platform.github.repo.changes(platform.pull(1).base_sha, platform.pull(1).head_sha)
    }
    await platform.github.checks("success")
    await roll_out(platform, "now serves Qwen/Qwen2.5-Coder-7B-Instruct-AWQ")


async def test_the_sync_after_a_manual_merge_needs_an_approval(platform: Platform) -> None:
    """The bot detects the merge, and merges nothing itself."""
    await platform.say("dev", f"/model add coder-mini {MINI}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.github.merge()
    await platform.sees("merged by octocat")
    await platform.click("lead", "Approve")
    await platform.sees("coder-mini is rolled out")


async def test_a_cancelled_change_leaves_nothing(platform: Platform) -> None:
    """The pull request is closed and its branch deleted."""
    await propose(platform, f"/model add coder-mini {MINI}")
    await platform.click("dev", "Cancel")
    await platform.sees("is closed and its branch deleted")
    assert platform.pull().state == "closed"
    assert [branch for branch in await platform.github.repo.heads() if branch.startswith("stoker/")] == []


async def test_a_change_that_is_closed_on_github_ends(platform: Platform) -> None:
    """The card shows who closed it."""
    await propose(platform, f"/model add coder-mini {MINI}")
    await platform.github.close()
    await platform.sees("was closed on GitHub by octocat")


async def test_failing_checks_remove_the_button(platform: Platform) -> None:
    """The card names the check that failed."""
    await platform.say("dev", f"/model add coder-mini {MINI}")
    await platform.sees("Pull request #1")
    await platform.github.checks("failure")
    card = await platform.sees("checks failed: ci")
    assert "Approve & roll out" not in card


async def test_new_commits_void_the_approvals(tmp_path: Path, redis_url: str) -> None:
    """With two required approvals, the first one is void after a new commit."""
    async with open_platform(tmp_path, redis_url, settings={"approvals": {"quorum": 2}}) as platform:
        await propose(platform, f"/model add coder-mini {MINI}")
        await platform.click("lead", "Approve & roll out")
        await platform.sees("Approved by @lead")
        await push_change(platform, platform.pull().head_ref, "serving/coder-mini/pvc.yaml", "Gi", "Gi # roomy")
        await platform.sees("new commits; earlier approvals are void")
        await platform.github.checks("success")
        await platform.click("admin", "Approve & roll out")
        card = await platform.sees("Approved by @admin")
        assert "Approved by @lead" not in card
        assert platform.pull().merge_commit is None


async def test_a_pull_request_of_too_many_files_is_refused(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stoker does not read it, so it cannot be approved, and the card shows the reason."""
    await propose(platform, f"/model add coder-mini {MINI}")
    monkeypatch.setattr("bot.platform.pull_request_plan._FILES", 3)
    await push_change(platform, platform.pull().head_ref, "serving/coder-mini/pvc.yaml", "Gi", "Gi # roomy")
    card = await platform.sees("files; Stoker reads at most 3")
    assert "Approve & roll out" not in card


async def test_an_approval_is_void_when_the_endpoints_files_changed(platform: Platform) -> None:
    """Somebody merged another model between the card and the click, so other content than the approved would run."""
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Awaiting approval")
    await push_change(
        platform, "main", "serving/coder-chat/deployment.yaml", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", MINI
    )
    await platform.click("lead", "Approve")
    card = await platform.sees("so the approval is void. Please approve the new plan")
    assert MINI in card
    assert (platform.object("Deployment", "coder-chat") or {})["spec"]["replicas"] == 0


async def test_a_conflict_is_resolved_by_making_the_change_again(platform: Platform) -> None:
    """Another change of the same lines was merged: the pull request is made again on top of it."""
    await propose(platform, f"/model swap coder-chat {BIG}")
    first = platform.pull().head_sha
    await push_change(
        platform, "main", "serving/coder-chat/deployment.yaml", "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", MINI
    )
    await platform.sees("made again on top of it")
    assert platform.pull().head_sha != first
    assert len(platform.pulls) == 1
    await platform.github.checks("success")
    await roll_out(platform, "coder-chat is rolled out")
    text = await platform.github.files_at(await platform.github.main_commit(), "serving/coder-chat/deployment.yaml")
    assert BIG in text["serving/coder-chat/deployment.yaml"]


async def test_a_change_that_no_longer_fits_main_is_void(platform: Platform) -> None:
    """Somebody else took the alias; git does not detect a conflict."""
    await propose(platform, f"/model add coder-mini {MINI}")
    values = "platform/litellm/values.yaml"
    text = (await platform.github.files_at(await platform.github.main_commit(), values))[values]
    first = text[text.index("    - model_name: ") :].splitlines()[0]
    entry = "\n".join(
        [
            "    - model_name: coder-mini",
            "      litellm_params:",
            "        model: openai/other",
            "        api_base: http://other.serving.svc.cluster.local:8000/v1",
            "        input_cost_per_token: 0.0000005",
            "        output_cost_per_token: 0.0000005",
        ]
    )
    await push_change(platform, "main", values, first, f"{entry}\n{first}")
    card = await platform.sees("⛔")
    assert "platform/litellm/values.yaml:" in card
    assert "Approve & roll out" not in card
    assert platform.pull().merge_commit is None


async def test_the_merge_waits_until_github_answers(platform: Platform) -> None:
    """The merge is retried, and happens once, even if GitHub was merging something else at the same time."""
    await propose(platform, f"/model add coder-mini {MINI}")
    await platform.sees("checks passed")
    platform.github.collisions = 1
    platform.faults.add("github-down")
    await platform.click("lead", "Approve & roll out")
    await platform.sees("Approved by @lead")
    platform.faults.discard("github-down")
    await platform.sees("coder-mini is rolled out")


async def test_keys_get_access_to_a_new_alias(platform: Platform) -> None:
    """The keys are listed below the card without secrets, and an approver chooses some; other people may not choose."""
    alice = await key_of_tenant(platform, "alice", ["coder-chat"])
    bob = await key_of_tenant(platform, "bob", ["coder-chat"])
    everything = await key_of_tenant(platform, "ops", [])
    await propose(platform, f"/model add coder-mini {MINI}")
    await roll_out(platform, "coder-mini is rolled out")
    message = await platform.sees("2 virtual keys cannot call coder-mini yet")
    assert "alice" in message
    assert "ops" not in message
    await platform.click("dev", "Choose keys")
    await platform.sees("Only approvers and admins")
    await platform.click("lead", "Choose keys")
    await platform.sees("Budgets and all other settings of a key stay the same", user="lead")
    await platform.fill("lead", "Virtual keys", "alice")
    await platform.submit("lead")
    await platform.sees("alice may call coder-mini now")
    assert await models_of_key(platform, alice) == ["coder-chat", "coder-mini"]
    assert await models_of_key(platform, bob) == ["coder-chat"]
    assert await models_of_key(platform, everything) == []
    visible = "\n".join(platform.visible("lead"))
    assert all(secret not in visible and secret[-4:] not in visible for secret in (alice, bob, everything))
    logged = [entry async for entry in AuditLog(platform.redis).entries()]
    assert [(e["who"], e["why"]) for e in logged if e["event"] == "key let in"] == [
        ("U0LEAD", "alice may call coder-mini")
    ]
    assert [e["who"] for e in logged if (e["event"], e["what"]) == ("refused", "key let in")] == ["U0DEV"]


async def test_up_tests_the_roll_out_and_brings_the_model_down(platform: Platform) -> None:
    """One approval covers the GPU part; the model goes down automatically, and the card shows the cost."""
    await platform.say("dev", f"/model swap coder-chat {BIG} up")
    card = await platform.sees("brought up, tested, back to zero: about $")
    assert "Pull request #1" in card
    await platform.github.checks("success")
    await roll_out(platform, "is being brought up")
    await platform.sees("all smoke tests passed")
    await platform.sees("is down and the GPU is free")
    deployment = platform.object("Deployment", "coder-chat")
    assert deployment
    assert deployment["spec"]["replicas"] == 0


async def test_a_check_with_the_wrong_settings_infers_the_layout(tmp_path: Path, redis_url: str) -> None:
    """Without endpoints everything would pass, so the check infers the layout from the files, and names the settings."""
    async with open_platform(tmp_path, redis_url, settings={"platform": {"serving_dir": "models"}}) as platform:
        await platform.say("dev", "/model check")
        message = await platform.sees("No problems found in the main branch")
        assert "read with platform.serving_dir: serving" in message
        await push_change(platform, "main", "serving/coder-chat/deployment.yaml", "  replicas: 0", "  replicas: 1")
        await platform.say("lead", "/model check")
        assert "serving/coder-chat/deployment.yaml:" in await platform.sees("1 problem", user="lead")


async def test_up_after_a_roll_out_waits_for_a_gpu_in_use(platform: Platform) -> None:
    """The approval of the roll-out covers the bring-up, also while it waits; the holder of the GPU is not displaced."""
    await bring_up(platform, "coder-fim")
    await platform.say("lead", f"/model swap coder-chat {BIG} up")
    await platform.sees("brought up, tested, back to zero: about $")
    await platform.github.checks("success")
    await platform.sees("checks passed")
    await platform.click("admin", "Approve & roll out")
    await platform.sees("is being brought up")
    assert "Approved by @admin" in await platform.sees("The GPU is taken: coder-fim is held by @dev")
    await platform.click("lead", "Queue")
    await platform.sees("In the queue, next")
    await platform.say("dev", "/gpu down coder-fim")
    await platform.click("lead", "Take it")
    await platform.sees("coder-chat is up and answers")
    await platform.sees("coder-chat is down and the GPU is free")
    cards = [text for text in platform.visible("lead") if "Bring up coder-chat" in text]
    assert len(cards) == 1
    assert "Approved by @admin" in cards[0]


async def test_the_list_shows_states_and_prices(platform: Platform) -> None:
    """`show`, `check` and `smoke` have the details, and their links exist."""
    await platform.say("dev", "/model smoke coder-chat")
    await platform.sees("coder-chat is down, so there is nothing to test")
    await bring_up(platform)
    await platform.say("dev", "/model smoke coder-chat")
    await platform.sees("coder-chat answers; all smoke tests passed")
    await platform.sees("as the last good run")
    await platform.say("dev", "/model list")
    message = await platform.sees("3 endpoints")
    assert "held by @dev" in message
    assert "$0.50 in, $1.50 out" in message
    assert "smoke tests passed" in message
    await platform.say("dev", "/model show coder-chat")
    assert "all files agree" in await platform.sees("Alias for tenants")
    await platform.say("dev", "/model check")
    await platform.sees("No problems found in the main branch")
    old, new = "--served-model-name=qwen2.5-coder-7b-instruct", "--served-model-name=another"
    await push_change(platform, "main", "serving/coder-chat/deployment.yaml", old, new)
    await platform.say("lead", "/model check coder-chat")
    await platform.sees("problem", user="lead")
    await platform.say("lead", "/model list")
    await platform.sees("drifted: the cluster has qwen2.5-coder-7b-instruct", user="lead")
