"""Argo CD's Applications are read, refreshed and synced once, even if connections fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from bot.clients.argocd import ArgoCD
from bot.clients.deployer import SyncFailed
from bot.clients.kube import Forbidden
from bot.errors import BotError, Unavailable
from tests.clients.kube import Object, Wire, application, connected, hurry, now, time_passes, wait_until


@pytest.fixture
async def argocd(wire: Wire) -> AsyncIterator[ArgoCD]:
    async with connected(wire) as client:
        yield ArgoCD(client, "argocd", "acme/platform")


def start(wire: Wire, name: str = "coder-chat") -> None:
    """Let Argo CD start the operation."""

    def change(app: Object) -> None:
        app["status"]["operationState"] = {"phase": "Running", "operation": app.pop("operation"), "startedAt": now()}

    wire.store.update("Application", name, "argocd", change)


def end(app: Object, phase: str = "Succeeded", message: str = "") -> None:
    """Let Argo CD end the operation."""
    state = app["status"]["operationState"]
    state |= {"phase": phase, "message": message, "finishedAt": now()}
    if phase == "Succeeded":
        app["status"]["sync"] = {"status": "Synced", "revision": state["operation"]["sync"]["revision"]}


def update(wire: Wire, phase: str = "Succeeded", message: str = "", name: str = "coder-chat") -> None:
    wire.store.update("Application", name, "argocd", lambda app: end(app, phase, message))


def stored(wire: Wire, name: str = "coder-chat") -> Object:
    live = wire.store.get("Application", name, "argocd")
    assert live
    return live


def running_state(revision: str) -> Object:
    return {"operationState": {"phase": "Running", "operation": {"sync": {"revision": revision}}, "startedAt": now()}}


async def wait_to_the_limit(wire: Wire, waiting: Awaitable[object]) -> object:
    """Let 30 seconds pass once the wait has read the Application, and return its result."""
    watches = wire.count_requests("GET", "watch=true")
    task = asyncio.ensure_future(waiting)
    await wait_until(lambda: wire.count_requests("GET", "watch=true") > watches)
    time_passes(30)
    return await task


async def until_requested(wire: Wire) -> None:
    await wait_until(lambda: "operation" in stored(wire) and wire.count_requests("GET", "watch=true"))


async def test_an_application_is_read_with_its_cost_gate_and_its_revisions(wire: Wire, argocd: ArgoCD) -> None:
    """Its sync policy and its commits are read from the Application itself."""
    wire.store.create(application())
    several = application("litellm", sync={"status": "Synced", "revisions": ["1.2.3", "abc"]})
    several["spec"] |= {
        "syncPolicy": {"automated": {}},
        "sources": [{"chart": "litellm"}, {"path": "platform/litellm"}],
    }
    wire.store.create(several)
    gated, auto = await argocd.list()
    assert (gated.name, gated.path) == ("coder-chat", "serving/coder-chat")
    assert (gated.automated, gated.sync) == (False, "OutOfSync")
    assert (auto.path, auto.automated, auto.revisions) == ("platform/litellm", True, ("1.2.3", "abc"))
    assert await argocd.get("nobody") is None


async def test_a_refresh_is_an_annotation(wire: Wire, argocd: ArgoCD) -> None:
    """Argo CD polls git as soon as the annotation exists."""
    wire.store.create(application())
    await argocd.refresh("coder-chat")
    assert stored(wire)["metadata"]["annotations"] == {"argocd.argoproj.io/refresh": "normal"}
    with pytest.raises(BotError, match="no Application nobody"):
        await argocd.refresh("nobody")


async def test_a_sync_is_requested_and_followed(wire: Wire, argocd: ArgoCD) -> None:
    """The operation contains the requester, the commit, and the Application's sync options, which Argo CD would omit."""
    wire.store.create(application())
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await until_requested(wire)
    assert stored(wire)["operation"] == {
        "initiatedBy": {"username": "@dev"},
        "sync": {"revision": "abc", "syncOptions": ["RespectIgnoreDifferences=true"]},
    }
    start(wire)
    update(wire)
    assert (await syncing).synced_at("abc")


async def test_a_sync_of_several_sources_leaves_the_chart_at_its_version(wire: Wire, argocd: ArgoCD) -> None:
    """Only the sources in git are synced to the commit."""
    app = application()
    app["spec"]["sources"] = [{"chart": "litellm", "targetRevision": "1.2.3"}, {"path": "x", "targetRevision": "main"}]
    wire.store.create(app)
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await until_requested(wire)
    assert stored(wire)["operation"]["sync"]["revisions"] == ["1.2.3", "abc"]
    start(wire)
    update(wire)
    await syncing


async def test_a_synced_application_is_not_synced_again(wire: Wire, argocd: ArgoCD) -> None:
    """If a step is repeated after a crash, it finds its work done."""
    wire.store.create(application(sync={"status": "Synced", "revision": "abc"}))
    assert (await argocd.sync("coder-chat", "abc", actor="@dev", timeout=30)).sync == "Synced"
    assert wire.count_requests("PATCH", "") == 0


async def test_a_running_sync_is_awaited_and_not_requested_twice(wire: Wire, argocd: ArgoCD) -> None:
    """A bot that was killed while waiting continues to wait."""
    wire.store.create(application(**running_state("abc")))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    update(wire)
    assert (await syncing).phase == "Succeeded"
    assert wire.count_requests("PATCH", "") == 0


async def test_another_sync_is_awaited_first(wire: Wire, argocd: ArgoCD) -> None:
    """Two operations at the same time would overwrite each other, so Stoker's starts after the other has ended or failed."""
    wire.store.create(application(**running_state("other")))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    assert "operation" not in stored(wire)
    update(wire, "Failed", "not ours")
    await wait_until(lambda: "operation" in stored(wire))
    start(wire)
    update(wire)
    assert (await syncing).operation_revision == "abc"


async def test_a_failed_sync_has_argo_cds_message(wire: Wire, argocd: ArgoCD) -> None:
    """The message about a sync window or a bad manifest is shown. An earlier failure is not attributed to this sync."""
    earlier = {"phase": "Failed", "operation": {"sync": {"revision": "abc"}}, "message": "long ago", "startedAt": now()}
    wire.store.create(application(operationState=earlier))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await until_requested(wire)
    start(wire)
    update(wire, "Failed", "blocked by sync window")
    with pytest.raises(SyncFailed, match="coder-chat to abc: blocked by sync window"):
        await syncing


def set_automated(
    wire: Wire,
    sync: str,
    revisions: list[str],
    phase: str,
    tried: list[str],
    message: str = "",
    more: Object | None = None,
) -> None:
    """Store LiteLLM's Application, which has two sources, in this state."""
    state = {"phase": phase, "operation": {}, "syncResult": {"revisions": tried}, "message": message}
    app = application("litellm", sync={"status": sync, "revisions": revisions}, operationState=state)
    app["spec"] |= {"syncPolicy": {"automated": {}}, "sources": [{"chart": "litellm"}, {"path": "platform/litellm"}]}
    app["status"] |= more or {}
    if wire.store.get("Application", "litellm", "argocd"):
        wire.store.update("Application", "litellm", "argocd", lambda live: live.update(status=app["status"]))
    else:
        wire.store.create(app)


async def later_than_abc(revision: str) -> bool:
    return revision in ("abc", "def")


async def test_an_automated_sync_is_awaited(wire: Wire, argocd: ArgoCD) -> None:
    """An old failure is ignored, and a later commit that includes the expected one is accepted."""
    messages: list[str] = []

    async def on_message(message: str) -> None:
        messages.append(message)

    set_automated(wire, "Synced", ["1.2.3", "old"], "Failed", ["1.2.3", "old"], "long ago")
    waiting = asyncio.create_task(
        argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=30, on_message=on_message)
    )
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    set_automated(
        wire, "OutOfSync", ["1.2.3", "abc"], "Running", ["1.2.3", "abc"], "waiting for healthy state of litellm"
    )
    await wait_until(lambda: messages)
    set_automated(wire, "Synced", ["1.2.3", "def"], "Succeeded", ["1.2.3", "def"])
    assert (await waiting).revisions == ("1.2.3", "def")
    assert messages == ["waiting for healthy state of litellm"]


async def test_an_automated_sync_that_failed_is_reported_immediately(wire: Wire, argocd: ArgoCD) -> None:
    """Argo CD does not retry a commit, so the message is reported immediately."""
    set_automated(wire, "OutOfSync", ["1.2.3", "abc"], "Failed", ["1.2.3", "abc"], "the namespace is frozen")
    with pytest.raises(SyncFailed, match="could not sync litellm to abc: the namespace is frozen"):
        await argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=30)


async def test_a_missing_comparison_ends_at_the_deadline(wire: Wire, argocd: ArgoCD) -> None:
    """Argo CD has not polled the commit; the message contains the last observed state."""
    set_automated(wire, "OutOfSync", ["1.2.3", "old"], "Succeeded", ["1.2.3", "old"])
    waiting = argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=30)
    with pytest.raises(SyncFailed, match=r"did not sync litellm automatically.*OutOfSync"):
        await wait_to_the_limit(wire, waiting)


async def test_an_automated_sync_that_does_not_begin_is_requested(wire: Wire, argocd: ArgoCD) -> None:
    """If a sync window forbids the sync, Argo CD only logs that; a requested sync reports the reason."""
    set_automated(wire, "OutOfSync", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "old"])
    never_starts = argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=600)
    waiting = asyncio.create_task(never_starts)
    await hurry(lambda: "operation" in stored(wire, "litellm"))
    start(wire, "litellm")
    wire.store.update(
        "Application", "litellm", "argocd", lambda app: app["status"]["operationState"].update(message=BLOCKED)
    )
    await wait_until(lambda: stored(wire, "litellm")["status"]["operationState"]["phase"] == "Terminating")
    update(wire, "Failed", "Operation terminated", "litellm")
    with pytest.raises(SyncFailed, match="sync window of Argo CD forbids syncing litellm now"):
        await waiting


DRIFTED: Object = {"resources": [{"kind": "Deployment", "name": "litellm", "status": "OutOfSync"}]}


async def test_an_application_that_stays_out_of_sync_counts_after_its_sync(wire: Wire, argocd: ArgoCD) -> None:
    """An autoscaler or a webhook changes applied objects; the sync succeeded, and everything is healthy."""
    set_automated(wire, "OutOfSync", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "abc"], "successfully synced", DRIFTED)
    drifts = argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=600)
    waiting = asyncio.create_task(drifts)
    await hurry(waiting.done)
    result = await waiting
    assert "reports OutOfSync (Deployment/litellm) after a successful sync" in result.drift
    assert not wire.count_requests("PATCH", "litellm")


async def test_an_application_that_is_unhealthy_and_out_of_sync_does_not_count(wire: Wire, argocd: ArgoCD) -> None:
    """The sync succeeded, but the applied objects are not healthy."""
    degraded = DRIFTED | {"health": {"status": "Degraded"}}
    set_automated(wire, "OutOfSync", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "abc"], more=degraded)
    waiting = argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=30)
    with pytest.raises(SyncFailed, match=r"did not sync litellm automatically within 30 s \(OutOfSync, Degraded"):
        await wait_to_the_limit(wire, waiting)


UNCOMPARED: Object = {
    "conditions": [{"type": "ComparisonError", "message": "Failed to load target state: no such chart"}]
}


async def test_a_comparison_error_that_persists_is_reported(wire: Wire, argocd: ArgoCD) -> None:
    """Argo CD is refreshed first, because its status may be older than the fix."""
    set_automated(wire, "Unknown", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "old"], more=UNCOMPARED)
    waiting = asyncio.create_task(
        argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=600)
    )
    await hurry(waiting.done)
    with pytest.raises(SyncFailed, match="cannot compare litellm with git: Failed to load target state: no such chart"):
        await waiting
    assert "argocd.argoproj.io/refresh" in stored(wire, "litellm")["metadata"]["annotations"]


async def test_a_temporary_comparison_error_is_ignored(wire: Wire, argocd: ArgoCD) -> None:
    """Its repo server was restarted."""
    set_automated(wire, "Unknown", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "old"], more=UNCOMPARED)
    waiting = asyncio.create_task(
        argocd.wait_synced("litellm", "abc", actor="@dev", includes=later_than_abc, timeout=60)
    )
    await wait_until(lambda: wire.count_requests("PATCH", "litellm"))
    set_automated(wire, "Synced", ["1.2.3", "abc"], "Succeeded", ["1.2.3", "abc"])
    assert (await waiting).drift == ""


async def test_a_gated_application_that_stays_out_of_sync_is_synced_once(wire: Wire, argocd: ArgoCD) -> None:
    """Its operation succeeded at the commit, so the step is done, with a note."""
    wire.store.create(application())
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=60))
    await until_requested(wire)
    start(wire)

    def drifts(app: Object) -> None:
        end(app)
        app["status"]["sync"]["status"] = "OutOfSync"

    wire.store.update("Application", "coder-chat", "argocd", drifts)
    assert "reports OutOfSync" in (await syncing).drift
    assert wire.count_requests("PATCH", "coder-chat") == 1


async def test_a_sync_whose_hook_hangs_is_terminated(wire: Wire, argocd: ArgoCD) -> None:
    """Otherwise it would continue after its approval is void, and block the next one."""
    wire.store.create(application())
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=60))
    await until_requested(wire)
    start(wire)
    hook = "waiting for completion of hook batch/Job/migrate"
    wire.store.update(
        "Application", "coder-chat", "argocd", lambda app: app["status"]["operationState"].update(message=hook)
    )
    time_passes(60)
    await wait_until(lambda: stored(wire)["status"]["operationState"]["phase"] == "Terminating")
    update(wire, "Failed", "Operation terminated")
    with pytest.raises(SyncFailed, match=f"in 60 s .*{hook}.*Stoker terminated the sync"):
        await syncing


async def test_a_sync_that_has_not_started_is_withdrawn(wire: Wire, argocd: ArgoCD) -> None:
    """A controller that restarts later finds no operation with a void approval."""
    wire.store.create(application())
    with pytest.raises(SyncFailed, match="Stoker terminated the sync"):
        await wait_to_the_limit(wire, argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    assert stored(wire).get("operation") is None


async def test_the_message_explains_how_to_end_somebody_elses_sync(wire: Wire, argocd: ArgoCD) -> None:
    """Stoker does not terminate another person's hanging sync."""
    foreign = running_state("other")
    foreign["operationState"]["operation"]["initiatedBy"] = {"username": "admin"}
    wire.store.create(application(**foreign))
    with pytest.raises(SyncFailed, match="A sync by admin is still running; `argocd app terminate-op coder-chat` ends"):
        await wait_to_the_limit(wire, argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    assert stored(wire)["status"]["operationState"]["phase"] == "Running"


async def test_an_operation_in_termination_is_not_mistaken_for_the_new_one(wire: Wire, argocd: ArgoCD) -> None:
    """The same commit is requested again after the old operation has ended."""
    old = running_state("abc")
    old["operationState"] |= {"phase": "Terminating"}
    wire.store.create(application(**old))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    update(wire, "Failed", "Operation terminated")
    await wait_until(lambda: "operation" in stored(wire))
    start(wire)
    update(wire)
    assert (await syncing).synced_at("abc")


def several(*sources: Object) -> Object:
    app = application()
    app["spec"]["sources"] = [{"targetRevision": "v1.2.3", **source} for source in sources]
    return app


@pytest.mark.parametrize(
    "platform",
    ["https://github.com/acme/platform.git", "git@github.com:Acme/platform", "https://mirror/acme/platform/"],
)
async def test_each_git_source_gets_its_own_revision(wire: Wire, argocd: ArgoCD, platform: str) -> None:
    """The chart comes from another repository by its tag, and the values come from the platform repo at the commit."""
    chart, oci = (
        {"repoURL": "https://github.com/acme/charts.git", "path": "vllm"},
        {"repoURL": "oci://ghcr.io/acme/base"},
    )
    wire.store.create(several(chart, oci, {"repoURL": platform, "ref": "values"}))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await until_requested(wire)
    assert stored(wire)["operation"]["sync"]["revisions"] == ["v1.2.3", "v1.2.3", "abc"]
    start(wire)
    update(wire)
    await syncing


async def test_git_sources_that_are_all_foreign_are_refused(wire: Wire, argocd: ArgoCD) -> None:
    """Otherwise the commit would be requested from a repository that does not have it."""
    wire.store.create(several({"repoURL": "https://github.com/a/b"}, {"repoURL": "https://github.com/c/d"}))
    with pytest.raises(SyncFailed, match=r"is the platform repo acme/platform .*Set GITHUB_REPOSITORY"):
        await argocd.sync("coder-chat", "abc", actor="@dev", timeout=30)
    assert "operation" not in stored(wire)


BLOCKED = "Sync operation blocked by sync window"


async def test_a_sync_window_is_reported_immediately_and_the_sync_is_terminated(wire: Wire, argocd: ArgoCD) -> None:
    """Otherwise Argo CD would start it when the window opens, long after the approval."""
    wire.store.create(application())
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=60))
    await until_requested(wire)
    start(wire)
    wire.store.update(
        "Application", "coder-chat", "argocd", lambda app: app["status"]["operationState"].update(message=BLOCKED)
    )
    await wait_until(lambda: stored(wire)["status"]["operationState"]["phase"] == "Terminating")
    update(wire, "Failed", "Operation terminated")
    with pytest.raises(SyncFailed, match="sync window of Argo CD forbids syncing coder-chat now"):
        await syncing


async def test_a_blocked_sync_of_somebody_else_is_not_ended(wire: Wire, argocd: ArgoCD) -> None:
    """It blocks until the window opens, so Stoker does not wait for it."""
    foreign = running_state("other")
    foreign["operationState"]["message"] = BLOCKED
    wire.store.create(application(**foreign))
    with pytest.raises(SyncFailed, match="sync window"):
        await argocd.sync("coder-chat", "abc", actor="@dev", timeout=60)
    assert stored(wire)["status"]["operationState"]["phase"] == "Running"


async def test_a_sync_that_does_not_start_ends_at_the_deadline(wire: Wire, argocd: ArgoCD) -> None:
    """Argo CD's controller may be down; the message contains the last observed state."""
    wire.store.create(application())
    with pytest.raises(SyncFailed, match=r"did not finish syncing coder-chat.*OutOfSync"):
        await wait_to_the_limit(wire, argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))


async def test_a_watch_survives_410_gone(wire: Wire, argocd: ArgoCD) -> None:
    """Changes during the loss of the history are found by listing again."""
    wire.store.create(application(**running_state("abc")))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    wire.overtake("Application", "coder-chat", "argocd", end)
    assert (await syncing).phase == "Succeeded"


async def test_a_watch_survives_a_dropped_connection(wire: Wire, argocd: ArgoCD) -> None:
    """The wait continues on a new connection."""
    wire.store.create(application(**running_state("abc")))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    wire.cut()
    await wait_until(lambda: wire.count_requests("GET", "watch=true") == 2)
    update(wire)
    assert (await syncing).phase == "Succeeded"


async def test_a_wait_survives_errors_of_the_server(wire: Wire, argocd: ArgoCD) -> None:
    """Control planes are upgraded; that must not end an operation."""
    wire.store.create(application(**running_state("abc")))
    syncing = asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=60))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    wire.unwell = 2
    wire.cut()
    update(wire)
    assert (await syncing).phase == "Succeeded"
    assert wire.unwell == 0


async def test_a_missing_right_to_watch_is_named(wire: Wire, argocd: ArgoCD) -> None:
    """Listing works without the right to watch, so only this test shows the difference."""
    wire.store.create(application(**running_state("abc")))
    wire.forbidden = "watch=true"
    with pytest.raises(Forbidden, match="may not watch applications in namespace argocd"):
        await argocd.sync("coder-chat", "abc", actor="@dev", timeout=30)


async def test_two_simultaneous_requests_start_one_sync(wire: Wire, argocd: ArgoCD) -> None:
    """The second patch is refused as a conflict, and the client finds the operation of the first."""
    wire.store.create(application())
    before = wire.store.version
    syncs = [asyncio.create_task(argocd.sync("coder-chat", "abc", actor="@dev", timeout=30)) for _ in range(2)]
    await wait_until(lambda: wire.count_requests("GET", "watch=true") == 2)
    assert wire.store.version == before + 1
    start(wire)
    update(wire)
    assert {app.phase for app in await asyncio.gather(*syncs)} == {"Succeeded"}


async def test_an_application_is_waited_for_until_it_exists(wire: Wire, argocd: ArgoCD) -> None:
    """An ApplicationSet creates a new endpoint's Application some time after the merge."""

    def always(_: Any) -> bool:
        return True

    waiting = asyncio.create_task(argocd.wait_for("coder-chat", timeout=30, until=always))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    wire.store.create(application())
    assert (await waiting).name == "coder-chat"
    with pytest.raises(SyncFailed, match="it does not exist"):
        await wait_to_the_limit(wire, argocd.wait_for("nobody", timeout=30, until=always))


async def test_a_missing_right_is_named(wire: Wire, argocd: ArgoCD) -> None:
    """The error names the right to add."""
    wire.forbidden = "/applications"
    with pytest.raises(Forbidden, match="may not list applications in namespace argocd"):
        await argocd.list()


async def test_a_stopped_server_is_unavailable(wire: Wire, argocd: ArgoCD) -> None:
    """The operation is then retried."""
    await wire.__aexit__(None, None, None)
    with pytest.raises(Unavailable, match="Kubernetes does not answer"):
        await argocd.get("coder-chat")
