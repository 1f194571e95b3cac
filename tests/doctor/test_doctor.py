"""`stoker doctor` on installations with one wrong setting each: it names the fault and its fix."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bot.clients.cluster import Cluster
from bot.clients.redis import opened as redis_at
from bot.doctor import platform
from bot.settings.config import Config
from sandbox.world import Sandbox, opened
from tests.clients.kube import Wire, connected
from tests.doctor.altered import Change, altered
from tests.doctor.told import Told, faults
from tests.forked import start_stoker

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, forked: None) -> AsyncIterator[Sandbox]:
    """A correct installation with a running bot."""
    del forked
    directory = tmp_path_factory.mktemp("installation")
    async with opened(platform=None, speed=60, port=0, checks_pass_after=None, settings={}, directory=directory) as it:
        yield it


@pytest.fixture
def told(world: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Told":
    """The settings of the examined bot: the running one's environment and policy, to be changed."""
    for name in list(os.environ):
        if name.split("_")[0] in ("SLACK", "GITHUB", "GIT", "REDIS", "LITELLM", "HF", "STOKER", "KUBECONFIG"):
            monkeypatch.delenv(name)
    return Told(world, tmp_path, monkeypatch)


async def test_a_right_installation_has_nothing_wrong(told: Told) -> None:
    """Every system has a line, and every line is ok."""
    findings = await told.examined()
    assert faults(findings) == []
    systems = {finding.system for finding in findings}
    assert systems == {
        "machine", "Slack", "clock", "people", "GitHub", "git", "contract",
        "Kubernetes", "Argo CD", "LiteLLM", "Redis", "Hugging Face", "links",
    }  # fmt: skip


SETTINGS: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("bot token", {"SLACK_BOT_TOKEN": "xoxb-other"}, {}, "Slack: the bot token is not accepted (invalid_auth)"),
    ("app token", {"SLACK_APP_TOKEN": "xapp-other"}, {}, "Slack: the app-level token opens no Socket Mode connection"),
    ("channel", {}, {"slack.channel": "C0NOWHERE"}, "Slack: there is no channel C0NOWHERE"),
    ("nobody approves", {}, {"roles.approvers": []}, "people: nobody may approve"),
    ("quorum", {}, {"approvals.quorum": 3}, "people: approvals.quorum is 3, and there are 2 approvers"),
    ("one approver", {}, {"roles.approvers": ["U0LEAD"]}, "people: 1 may approve and 1 must, so no approver's own"),
    ("user group", {}, {"roles.admins": ["S0NOBODY"]}, "people: roles.admins names the user group S0NOBODY"),
    ("GitHub token", {"GITHUB_TOKEN": "ghp_other"}, {}, "GitHub: GitHub does not accept the token (401)"),
    ("repository", {"GITHUB_REPOSITORY": "acme/other"}, {}, "GitHub: GitHub refused GET /repos/acme/other"),
    ("branch", {}, {"platform.branch": "trunk"}, "GitHub: acme/llm-platform has no branch trunk"),
    ("git remote", {"GIT_REMOTE_URL": "http://127.0.0.1:9/acme/other.git"}, {}, "git: "),
    ("layout", {}, {"platform.serving_dir": "models"}, "contract: the repository has no models → Set platform.serving_dir"),
    ("template", {}, {"platform.template": "coder-best"}, "contract: there is no endpoint coder-best"),
    ("kubeconfig", {"KUBECONFIG": "/nowhere"}, {}, "Kubernetes: KUBECONFIG names /nowhere"),
    ("vLLM's Secret", {}, {"vllm.api_key": {"namespace": "serving", "name": "no", "field": "key"}}, "vLLM's key cannot be read"),
    ("benchmarks", {}, {"vllm.api_key": {"namespace": "litellm", "name": "litellm-secrets", "field": "PROXY_MASTER_KEY"}},
     "a benchmark runs in namespace serving and cannot use vLLM's key from litellm"),
    ("nodes for staging", {}, {"staging.node_selector": {"pool": "none"}}, "with pool=none in zone us-central1-a takes a staging Job"),
    ("LiteLLM's Application", {}, {"litellm.application": "gateway"}, "Argo CD: there is no Application gateway"),
    ("LiteLLM's address", {"LITELLM_URL": "http://127.0.0.1:9"}, {}, "LiteLLM: LiteLLM does not answer"),
    ("Redis' address", {"REDIS_URL": "redis://127.0.0.1:9/0"}, {}, "Redis: Redis does not answer"),
    ("Hugging Face's token", {"HF_TOKEN": "hf_other"}, {}, "Hugging Face: Hugging Face does not accept HF_TOKEN"),
    ("Hugging Face's address", {"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, "Hugging Face: Hugging Face does not answer"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "policy", "said"), [row[1:] for row in SETTINGS], ids=[r[0] for r in SETTINGS])
async def test_a_wrong_setting_is_named(
    told: Told, environment: dict[str, str], policy: dict[str, Any], said: str
) -> None:
    """One setting is wrong: its system reports it, and all other systems are still examined."""
    told.environment |= environment
    for key, value in policy.items():
        told.put(key, value)
    findings = await told.examined()
    assert any(said in fault for fault in faults(findings)), faults(findings)
    assert {"Slack", "GitHub", "git", "Kubernetes", "Redis", "Hugging Face"} <= {finding.system for finding in findings}


def _lacks_scope(_: Any, headers: dict[str, str]) -> None:
    headers["x-oauth-scopes"] = headers["x-oauth-scopes"].replace("im:write", "im:read")


def _late(_: Any, headers: dict[str, str]) -> None:
    headers["date"] = format_datetime(datetime.now(UTC) - timedelta(minutes=4), usegmt=True)


def _outside(said: Any, _: dict[str, str]) -> None:
    said["channel"]["is_member"] = False


def _archived(said: Any, _: dict[str, str]) -> None:
    said["channel"]["is_archived"] = True


SLACK: list[tuple[str, str, Change, str]] = [
    ("scope", "auth.test", _lacks_scope, "Slack: the app lacks the scopes im:write"),
    ("clock", "auth.test", _late, "s ahead of Slack's"),
    ("not invited", "conversations.info", _outside, "→ Type `/invite @stoker`"),
    ("archived", "conversations.info", _archived, "is archived"),
]


@pytest.mark.parametrize(("method", "change", "said"), [row[1:] for row in SLACK], ids=[row[0] for row in SLACK])
async def test_slacks_side_is_examined(told: Told, method: str, change: Change, said: str) -> None:
    """Slack's answers about the app and the channel."""
    base = told.environment["SLACK_API_URL"]
    async with altered(base.removesuffix("/api/"), f"/{method}", change) as url:
        told.environment["SLACK_API_URL"] = f"{url}/api/"
        assert any(said in fault for fault in faults(await told.examined()))


def _guest(said: Any, _: dict[str, str]) -> None:
    said["user"]["is_restricted"] = True


def _deactivated(said: Any, _: dict[str, str]) -> None:
    said["user"]["deleted"] = True


def _unknown(said: Any, _: dict[str, str]) -> None:
    said.clear()
    said |= {"ok": False, "error": "user_not_found"}


def _no_users_read(said: Any, _: dict[str, str]) -> None:
    said.clear()
    said |= {"ok": False, "error": "missing_scope", "needed": "users:read"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_guest, "people: U0LEAD in roles.approvers has no effect: Stoker does not accept requests from guests"),
        (_deactivated, "people: U0LEAD in roles.approvers has no effect: Slack has no active account"),
        (_unknown, "people: U0LEAD in roles.approvers has no effect: Slack has no active account"),
        (
            _no_users_read,
            "(the scope users:read is missing), so it refuses everybody → The app's manifest must be updated",
        ),
    ],
)
async def test_who_does_not_count_is_told(told: Told, change: Change, said: str) -> None:
    """A person whom Stoker refuses is not an approver, even if the settings list them."""
    base = told.environment["SLACK_API_URL"]
    async with altered(base.removesuffix("/api/"), "/users.info", change) as url:
        told.environment["SLACK_API_URL"] = f"{url}/api/"
        found = faults(await told.examined())
        assert any(said in fault for fault in found), found
        if change is not _no_users_read:
            assert any("nobody may approve" in fault for fault in found)


def _private(said: Any, _: dict[str, str]) -> None:
    said["channel"]["is_private"] = True


def _for_private(_: Any, headers: dict[str, str]) -> None:
    headers["x-oauth-scopes"] = headers["x-oauth-scopes"].replace("channels:", "groups:")


async def test_a_private_channel_needs_the_scopes_of_private_channels(told: Told) -> None:
    """Private channels have ids like public ones, so the doctor queries Slack; an app made with --private-channel passes."""
    base = told.environment["SLACK_API_URL"].removesuffix("/api/")
    async with altered(base, "/conversations.info", _private) as url:
        told.environment["SLACK_API_URL"] = f"{url}/api/"
        (said,) = faults(await told.examined())
        assert (
            "lacks the scopes groups:history, groups:read → Update the app with what `stoker manifest --private" in said
        )
        async with altered(url, "/auth.test", _for_private) as both:
            told.environment["SLACK_API_URL"] = f"{both}/api/"
            assert faults(await told.examined()) == []


def _read_only(said: Any, _: dict[str, str]) -> None:
    said["permissions"]["push"] = False


def _unprotected(said: Any, _: dict[str, str]) -> None:
    said["protected"] = False


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/repos/acme/llm-platform", _read_only, "GitHub: the token may not write to acme/llm-platform"),
        ("/branches/main", _unprotected, "GitHub: main is not protected"),
    ],
)
async def test_githubs_side_is_examined(told: Told, path: str, change: Change, said: str) -> None:
    """The token's permissions, and the branch's protection."""
    async with altered(told.environment["GITHUB_API_URL"], path, change) as url:
        told.environment["GITHUB_API_URL"] = url
        assert any(said in fault for fault in faults(await told.examined()))


GRANTED = {"contents": "write", "pull_requests": "write", "issues": "write", "checks": "read", "statuses": "read"}


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        (GRANTED | {"metadata": "read"}, []),
        (GRANTED | {"checks": "write"}, []),
        (GRANTED | {"contents": "read"}, ["wrong GitHub: the App's installation lacks contents: write"]),
        ({"metadata": "read", "contents": "write"}, ["lacks pull_requests: write, issues: write, checks: read, statu"]),
    ],
    ids=["as documented", "more than needed", "reads only", "half"],
)
async def test_a_github_app_is_examined_by_its_own_permissions(
    told: Told, granted: dict[str, str], said: list[str]
) -> None:
    """The repository returns `push: false` to every App; the permissions come with its token."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"token": told.environment.pop("GITHUB_TOKEN"), "expires_at": ends, "permissions": granted}
    told.environment |= {"GITHUB_APP_ID": "42", "GITHUB_APP_INSTALLATION_ID": "7", "GITHUB_APP_PRIVATE_KEY": pem}
    own = {"/app/installations/7/access_tokens": given}
    async with altered(told.environment["GITHUB_API_URL"], "/repos/acme/llm-platform", _read_only, own) as url:
        told.environment["GITHUB_API_URL"] = url
        found = faults(await told.examined())
    assert len(found) == len(said), found
    assert all(text in fault for text, fault in zip(said, found, strict=True)), found


async def test_each_lacking_right_is_named(told: Told) -> None:
    """Every verb is checked in the cluster, and a refused one is named with its namespace."""

    def refuse(said: Any, _: dict[str, str]) -> None:
        asked = said["spec"]["resourceAttributes"]
        said["status"]["allowed"] = (asked.get("subresource"), asked["verb"]) != ("scale", "patch")

    async with altered(told.cluster, "/selfsubjectaccessreviews", refuse) as url:
        told.kubeconfig(url)
        assert (
            "wrong Kubernetes: the bot may not patch deployments/scale.apps in namespace serving → Add that right"
            in "".join(faults(await told.examined()))
        )


async def test_a_cluster_that_is_away_is_named_once(told: Told) -> None:
    """Systems that depend on the cluster are not reported again: Argo CD, and LiteLLM, whose key is in the cluster."""
    told.kubeconfig("http://127.0.0.1:9")
    (fault,) = faults(await told.examined())
    assert fault.startswith("wrong Kubernetes: Kubernetes does not answer")
    assert "where KUBECONFIG says" in fault


async def test_a_model_that_cannot_be_measured_is_named(told: Told) -> None:
    """A benchmark reads the tokenizer from the weights' claim, so there has to be one."""

    def uncached(said: Any, _: dict[str, str]) -> None:
        for container in said["spec"]["template"]["spec"]["containers"]:
            container["env"] = [each for each in container["env"] if each["name"] != "HF_HOME"]

    async with altered(told.cluster, "/deployments/coder-chat", uncached) as url:
        told.kubeconfig(url)
        found = "".join(faults(await told.examined()))
        assert "HF_HOME of the Deployment of coder-chat is not on a volume claim" in found
        assert "Set HF_HOME to the path" in found


async def test_a_gateway_without_a_database_is_named(told: Told) -> None:
    """Virtual keys and budgets need one, so the smoke tests would fail."""

    def disconnect(said: Any, _: dict[str, str]) -> None:
        said["db"] = "Not connected"

    async with altered(told.environment["LITELLM_URL"], "/health/readiness", disconnect) as url:
        told.environment["LITELLM_URL"] = url
        assert any("LiteLLM: it has no database" in fault for fault in faults(await told.examined()))


async def test_an_open_cost_gate_is_named(told: Told, world: Sandbox) -> None:
    """The Application of a GPU model that syncs automatically in the cluster, independent of the repository."""
    store = world.cluster.api.store

    def automate(found: dict[str, Any]) -> None:
        found["spec"]["syncPolicy"]["automated"] = {}

    def undo(found: dict[str, Any]) -> None:
        found["spec"]["syncPolicy"].pop("automated", None)

    store.update("Application", "coder-chat", "argocd", automate)
    try:
        assert any("coder-chat uses a GPU and syncs automatically" in fault for fault in faults(await told.examined()))
    finally:
        store.update("Application", "coder-chat", "argocd", undo)


@pytest.mark.parametrize(
    ("option", "bad", "good", "said"),
    [
        (
            "maxmemory-policy",
            "allkeys-lru",
            "noeviction",
            "Redis: when its memory is full it evicts keys (allkeys-lru)",
        ),
        ("appendonly", "no", "yes", "Redis: it keeps no append-only file"),
    ],
)
async def test_a_forgetful_redis_is_named(
    told: Told, world: Sandbox, option: str, bad: str, good: str, said: str
) -> None:
    """A server that may lose or evict a lease is not safe."""
    async with redis_at(world.redis.url) as redis:
        await redis.config_set(option, bad)
        try:
            assert any(said in fault for fault in faults(await told.examined()))
        finally:
            await redis.config_set(option, good)


async def test_a_broken_contract_is_named_with_file_and_line(told: Told, world: Sandbox, tmp_path: Path) -> None:
    """The findings of `stoker model check` on the main branch are in the diagnosis."""
    del world
    told.environment["GIT_REMOTE_URL"] = str(await _with_a_stale_selector(told, tmp_path))
    found = [fault for fault in faults(await told.examined()) if "contract" in fault]
    assert any("serving/coder-chat/service.yaml:" in fault for fault in found), found


async def _with_a_stale_selector(told: Told, directory: Path) -> Path:
    """A clone of the platform's repository with a Service that selects no pod."""
    import base64

    token = base64.b64encode(f"x-access-token:{told.environment['GITHUB_TOKEN']}".encode()).decode()
    clone = directory / "clone"
    await _git(
        "-c",
        f"http.extraHeader=Authorization: Basic {token}",
        "clone",
        "-q",
        told.environment["GIT_REMOTE_URL"],
        str(clone),
    )
    service = clone / "serving/coder-chat/service.yaml"
    text = service.read_text(encoding="utf-8")
    head, selector, tail = text.partition("selector:")
    service.write_text(head + selector + tail.replace("coder-chat", "coder-old", 1), encoding="utf-8")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    await _git("-C", str(clone), *author, "commit", "-qam", "a stale selector")
    return clone


async def _git(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("git", *arguments)
    assert await process.wait() == 0


async def _stoker(environment: dict[str, str], directory: Path, *arguments: str) -> tuple[int, str, str]:
    process = await start_stoker("doctor", *arguments, environment=environment, directory=directory)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_machine_without_git_is_named(told: Told, tmp_path: Path) -> None:
    """The command itself needs no git, so it can report that git is missing."""
    code, out, _ = await _stoker(told.written() | {"PATH": str(tmp_path)}, tmp_path)
    assert code == 1
    assert "git is not on PATH" in out


async def test_the_command_ends_with_its_verdict(told: Told, tmp_path: Path) -> None:
    """Exit code 0 and JSON for machines; exit code 1 and lines for people for problems; exit code 2 for a setting."""
    code, out, _ = await _stoker(told.written(), tmp_path, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    told.put("roles.approvers", [])
    code, out, _ = await _stoker(told.written(), tmp_path)
    assert code == 1
    assert "WRONG    people" in out
    assert "→ Add users or user groups to roles.approvers." in out
    without = {k: v for k, v in told.written().items() if k != "SLACK_BOT_TOKEN"}
    code, _, err = await _stoker(without, tmp_path)
    assert (code, err) == (2, "stoker: SLACK_BOT_TOKEN is not set\n")


async def test_an_admin_is_told_the_same_in_slack(world: Sandbox) -> None:
    """`/gpu doctor` answers only admins, and refers others to one."""
    since = world.now()
    await world.command("admin", "/gpu doctor")
    await world.command("dev", "/gpu doctor")
    async with asyncio.timeout(200):
        while not any("checks passed" in seen.text for seen in world.visible("admin", since)):
            await asyncio.sleep(0.1)
        while not any("Only admins" in seen.text for seen in world.visible("dev", since)):
            await asyncio.sleep(0.1)
    assert not any("checks passed" in seen.text for seen in world.visible("dev", since))


async def test_scopes_that_slack_does_not_name_could_not_be_checked(told: Told) -> None:
    """An answer without the header (a proxy strips it) is not an app without scopes."""

    def strip(_: Any, headers: dict[str, str]) -> None:
        headers.pop("x-oauth-scopes")

    async with altered(told.environment["SLACK_API_URL"].removesuffix("/api/"), "/auth.test", strip) as url:
        told.environment["SLACK_API_URL"] = f"{url}/api/"
        found = faults(await told.examined())
    assert len(found) == 1, found
    assert "warning Slack: the app's scopes could not be checked" in found[0]


async def test_permissions_that_github_does_not_name_could_not_be_checked(told: Told) -> None:
    """A repository without `permissions` in its answer."""

    def strip(said: Any, _: dict[str, str]) -> None:
        said.pop("permissions")

    async with altered(told.environment["GITHUB_API_URL"], "/repos/acme/llm-platform", strip) as url:
        told.environment["GITHUB_API_URL"] = url
        found = faults(await told.examined())
    assert len(found) == 1, found
    assert "warning GitHub: whether the token may write to acme/llm-platform could not be checked" in found[0]


async def test_rights_that_kubernetes_does_not_tell_could_not_be_checked(told: Told) -> None:
    """An access review without an answer is neither allowed nor denied."""

    def strip(said: Any, _: dict[str, str]) -> None:
        said.pop("status")

    async with altered(told.cluster, "/selfsubjectaccessreviews", strip) as url:
        told.kubeconfig(url)
        found = faults(await told.examined())
    assert len(found) == 1, found
    assert "rights in use could not be checked: Kubernetes does not return" in found[0]


async def test_a_review_that_is_refused_is_no_lacking_right() -> None:
    """If the account may not ask (a cluster without system:basic-user), the Secrets are still checked."""
    async with Wire() as wire, connected(wire) as api:
        wire.forbidden = "/selfsubjectaccessreviews"
        found = [each async for each in platform.cluster(Config(), Cluster(api, "serving"))]
    assert "could not be checked: Stoker's role may not create selfsubjectaccessreviews" in found[0].said
    assert found[0].verdict == "warning"
    assert len(found) == 3


async def test_a_gateway_that_does_not_tell_of_its_database(told: Told) -> None:
    """An older LiteLLM, or a proxy in front of it that answers instead."""

    def silence(said: Any, _: dict[str, str]) -> None:
        said.pop("db")

    async with altered(told.environment["LITELLM_URL"], "/health/readiness", silence) as url:
        told.environment["LITELLM_URL"] = url
        assert any(
            "LiteLLM: whether it has a database could not be checked" in f for f in faults(await told.examined())
        )
