"""An approval applies only to the shown plan: on a whole platform, with changes by people in between."""

from pathlib import Path
from typing import Any

import pytest

from sandbox.git import Person
from sandbox.github_pulls import Pull, Refused
from sandbox.slack.history import USERGROUPS
from tests.operations.platform import SPEED, STOPPED, Platform, open_platform
from tests.operations.steps import bring_up, read_leases, replace_model, replicas

BIG = "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"
DEPLOYMENT = "serving/coder-chat/deployment.yaml"
FIM = "serving/coder-fim/deployment.yaml"
GROUP = "S0GPU"


async def branches(platform: Platform) -> list[str]:
    return [branch for branch in await platform.github.repo.heads() if branch.startswith("stoker/")]


@pytest.mark.parametrize("refused", ["POST /pulls", "GET /pulls/1/reviews", "/check-runs", "POST /issues/1/labels"])
@pytest.mark.parametrize("status", [403, 404])
async def test_a_refusal_by_github_half_way_leaves_nothing_behind(
    platform: Platform, refused: str, status: int
) -> None:
    """The request continues without the refused call, or Stoker closes the pull request and notifies the requester."""
    platform.github.refuses[refused] = Refused(status, "Resource not accessible by personal access token")
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    if refused == "POST /pulls":
        await platform.sees_end("Resource not accessible")
        assert platform.pulls == []
        assert await branches(platform) == []
    else:
        await platform.sees("Pull request #1")
        assert platform.pull().state == "open"
        assert len(await branches(platform)) == 1


async def test_a_pull_request_that_cannot_be_read_is_closed(platform: Platform) -> None:
    """GitHub opens the pull request, and then refuses a request that the card needs."""
    platform.github.refuses["GET /commits/"] = Refused(422, "No commit found for SHA")
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees_end("No commit found")
    assert [pull.state for pull in platform.pulls] == ["closed"]
    assert await branches(platform) == []


async def test_stoker_waits_for_github_half_way(platform: Platform) -> None:
    """Stoker finds the opened pull request again: there is one pull request and one card."""
    platform.github.refuses["/check-runs"] = Refused(502, "Bad Gateway")
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.until(lambda: platform.pulls)
    del platform.github.refuses["/check-runs"]
    await platform.sees("Pull request #1")
    assert len(platform.pulls) == 1


async def test_an_application_with_another_source_voids_the_approval(platform: Platform) -> None:
    """Somebody changes its directory after the card of `/gpu up`: nothing starts, and the new card shows the change."""
    await platform.say("dev", "/gpu up coder-chat")
    await platform.sees("Bring up coder-chat")

    def change_path(app: dict[str, dict[str, dict[str, str]]]) -> None:
        app["spec"]["source"]["path"] = "serving/coder-fim"

    platform.cluster.store.update("Application", "coder-chat", "argocd", change_path)
    await platform.click("lead", "Approve")
    card = await platform.sees("the Application coder-chat in the cluster")
    assert "so the approval is void" in card
    assert "deploys serving/coder-fim, not serving/coder-chat" in card
    assert replicas(platform, "coder-chat") == 0


async def test_the_approvals_are_counted_again_when_it_starts(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vote of a former approver does not count: the request asks again, in the same card."""
    monkeypatch.setitem(USERGROUPS, GROUP, ("U0LEAD", "U0ADMIN"))
    settings = {"approvals": {"quorum": 2}, "roles": {"approvers": [GROUP], "admins": ["U0ADMIN"]}}
    async with open_platform(tmp_path, redis_url, settings=settings) as platform:
        await platform.say("dev", "/gpu up coder-chat")
        await platform.click("lead", "Approve")
        await platform.sees("Approved by @lead")
        monkeypatch.setitem(USERGROUPS, GROUP, ("U0ADMIN",))
        await platform.click("admin", "Approve")
        card = await platform.sees("may no longer approve")
        assert "1 of 2 approvals are still valid" in card
        assert "Approved by @admin" in card
        assert replicas(platform, "coder-chat") == 0


@pytest.mark.parametrize(
    ("command", "requester", "voter"),
    [("/gpu extend 9h", "dev", "admin"), ("/gpu release because the demo is now", "admin", "dev")],
)
async def test_the_approvals_of_a_lease_are_counted_again(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, command: str, requester: str, voter: str
) -> None:
    """The vote of an approver who left the group does not count for an extension above the limit or a broken lease."""
    voters = ("U0LEAD", f"U0{voter.upper()}")
    monkeypatch.setitem(USERGROUPS, GROUP, voters)
    settings = {"approvals": {"quorum": 1}, "roles": {"approvers": [GROUP], "admins": ["U0ADMIN"]}}
    async with open_platform(tmp_path, redis_url, settings=settings) as platform:
        await bring_up(platform)
        ends = [lease.ends for lease in await read_leases(platform)]
        await platform.restart("quorum: 1", "quorum: 2")
        await platform.say(requester, command)
        await platform.click("lead", "Approve")
        await platform.sees("Approved by @lead", requester)
        monkeypatch.setitem(USERGROUPS, GROUP, voters[1:])
        await platform.click(voter, "Approve")
        card = await platform.sees("may no longer approve", requester)
        assert "1 of 2 approvals are still valid" in card
        assert f"Approved by @{voter}" in card
        assert replicas(platform, "coder-chat") == 1
        assert [lease.ends for lease in await read_leases(platform)] == ends
        assert not [text for text in platform.visible("dev") if "breaks your lease" in text]


async def test_a_merge_of_unapproved_commits_needs_a_new_approval(platform: Platform) -> None:
    """Somebody pushes and merges on GitHub: an approval of the earlier head does not cover the sync."""
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.sees("Approve & roll out")
    await platform.github.push(DEPLOYMENT, "v0.32.1@sha256:5f0c", "v0.32.0@sha256:4f0c")
    await platform.github.merge()
    await platform.click("lead", "Approve")
    await platform.sees("coder-chat is rolled out")
    deployment = platform.object("Deployment", "coder-chat")
    assert deployment
    assert "v0.32.1@sha256:5f0c" in str(deployment)


async def test_a_change_of_main_during_the_merge_syncs_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub's merge checks only the head: Stoker compares the merged content with the approved one, and asks again."""
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.sees("Approve & roll out")
    github, merge = platform.github, platform.github._merge

    async def merge_after_a_commit(pull: Pull, **options: Any) -> str:
        text = (await github.files_at(await github.main_commit(), DEPLOYMENT))[DEPLOYMENT]
        text = text.replace("v0.32.0@sha256:4f0c", "v0.32.1@sha256:5f0c")
        pull.base_sha = await github.repo.commit_file("main", DEPLOYMENT, text, author=Person("o", "o@example.com"))
        return await merge(pull, **options)

    monkeypatch.setattr(github, "_merge", merge_after_a_commit)
    await platform.click("lead", "Approve & roll out")
    card = await platform.sees("does not deploy what was approved")
    assert DEPLOYMENT in card
    deployment = platform.object("Deployment", "coder-chat")
    assert "v0.32.1" not in str(deployment)
    assert BIG not in str(deployment)
    await platform.click("lead", "Approve")
    await platform.sees("coder-chat is rolled out")


async def test_a_merge_into_another_branch_rolls_nothing_out(platform: Platform) -> None:
    """The request ends, and its text names the branch."""
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.github.retarget("release")
    await platform.github.merge()
    await platform.sees("into release. Nothing was rolled out")
    assert platform.github.merged_to() == "release"


async def test_a_draft_cannot_be_approved(platform: Platform) -> None:
    """The card of a pull request that somebody converted to a draft has no button to approve, and also reports auto-merge."""
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    platform.pull().draft, platform.pull().auto_merge_by = True, "octocat"
    await platform.github.checks("success")
    card = await platform.sees("no longer a draft")
    assert "octocat turned on auto-merge" in card
    assert "[Approve & roll out]" not in card


async def test_a_button_of_an_earlier_version_is_answered_with_the_plan(platform: Platform) -> None:
    """Its value has no hash of a plan: an approval is refused, and the card is shown again; a denial counts."""
    await platform.say("dev", f"/model swap coder-chat {BIG}")
    await platform.sees("Pull request #1")
    await platform.github.checks("success")
    await platform.sees("Approve & roll out")
    for control in controls(platform, "Approve & roll out", "Deny"):
        control["value"] = control["value"].partition(".")[0]
    await platform.click("lead", "Approve & roll out")
    assert "Pull request #1 at" in await platform.sees(
        "The plan has changed: look again. Nothing was decided", user="lead"
    )
    assert platform.pull().merge_commit is None
    await platform.click("lead", "Deny")
    await platform.sees("Nothing was rolled out")
    assert platform.pull().state == "closed"


def controls(platform: Platform, *labels: str) -> list[dict[str, str]]:
    """The buttons with these labels, as stored by Slack."""
    blocks = [block for message in platform.workspace._history.messages.values() for block in message.blocks]
    buttons = [button for block in blocks for button in block.get("elements", ()) if button.get("type") == "button"]
    return [button for button in buttons if button["text"]["text"] in labels]


async def test_a_replacement_whose_files_change_is_undone(platform: Platform) -> None:
    """After the old model is down, main changes the new model's files: it does not start, and the old model is restored."""
    await bring_up(platform)
    platform.cluster.set_speed(STOPPED)  # the holder's pod ends after main has changed
    await replace_model(platform)
    await platform.sees("bringing down coder-chat …")
    await platform.github.change_main(FIM, "v0.32.1@sha256:5f0c", "v0.32.0@sha256:4f0c")
    platform.cluster.set_speed(SPEED)
    await platform.sees("coder-chat is restored")
    card = await platform.sees_end("The deployed content of coder-fim changed after the approval")
    assert "coder-fim is down again" in card
    assert [lease.model for lease in await read_leases(platform)] == ["coder-chat"]
    assert (replicas(platform, "coder-chat"), replicas(platform, "coder-fim")) == (1, 0)
