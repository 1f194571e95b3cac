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
from tests.doctor.installation import Installation, faults
from tests.forked import start_stoker

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, forked: None) -> AsyncIterator[Sandbox]:
    """A correct installation with a running bot."""
    del forked
    directory = tmp_path_factory.mktemp("installation")
    async with opened(
        platform=None, speed=60, port=0, checks_pass_after=None, settings={}, directory=directory
    ) as sandbox:
        yield sandbox


@pytest.fixture
def installation(world: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The environment and the policy of the running bot, which a test may change."""
    for name in list(os.environ):
        if name.split("_")[0] in ("SLACK", "GITHUB", "GIT", "REDIS", "LITELLM", "HF", "STOKER", "KUBECONFIG"):
            monkeypatch.delenv(name)
    return Installation(world, tmp_path, monkeypatch)


async def test_a_correct_installation_has_no_faults(installation: Installation) -> None:
    """Every system has a line, and every line is ok."""
    findings = await installation.examine()
    assert faults(findings) == []
    systems = {finding.system for finding in findings}
    assert systems == {
        "machine", "Slack", "clock", "people", "GitHub", "git", "contract",
        "Kubernetes", "Argo CD", "LiteLLM", "Redis", "Hugging Face", "links",
    }  # fmt: skip


SETTINGS: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("bot token", {"SLACK_BOT_TOKEN": "xoxb-other"}, {}, "Slack: the bot token is not accepted (invalid_auth)"),
    ("app token", {"SLACK_APP_TOKEN": "xapp-other"}, {}, "Slack: the app-level token cannot open a Socket Mode connection"),
    ("channel", {}, {"slack.channel": "C0NOWHERE"}, "Slack: the bot cannot see a channel C0NOWHERE"),
    ("nobody approves", {}, {"roles.approvers": []}, "people: nobody may approve"),
    ("quorum", {}, {"approvals.quorum": 3}, "people: approvals.quorum is 3, but the number of approvers is only 2"),
    ("one approver", {}, {"roles.approvers": ["U0LEAD"]}, "people: approvals.quorum and the number of approvers are both 1, so an"),
    ("user group", {}, {"roles.admins": ["S0NOBODY"]}, "people: roles.admins contains the user group S0NOBODY"),
    ("GitHub token", {"GITHUB_TOKEN": "ghp_other"}, {}, "GitHub: GitHub does not accept the token (401)"),
    ("repository", {"GITHUB_REPOSITORY": "acme/other"}, {}, "GitHub: GitHub refused GET /repos/acme/other"),
    ("branch", {}, {"platform.branch": "trunk"}, "GitHub: acme/llm-platform has no branch trunk"),
    ("git remote", {"GIT_REMOTE_URL": "http://127.0.0.1:9/acme/other.git"}, {}, "git: "),
    ("layout", {}, {"platform.serving_dir": "models"}, "contract: the repository has no models → Set platform.serving_dir"),
    ("template", {}, {"platform.template": "coder-best"}, "contract: there is no endpoint coder-best"),
    ("kubeconfig", {"KUBECONFIG": "/nowhere"}, {}, "Kubernetes: KUBECONFIG is /nowhere"),
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


@pytest.mark.parametrize(
    ("environment", "policy", "expected"), [row[1:] for row in SETTINGS], ids=[r[0] for r in SETTINGS]
)
async def test_a_wrong_setting_is_named(
    installation: Installation, environment: dict[str, str], policy: dict[str, Any], expected: str
) -> None:
    """One setting is wrong: its system reports it, and all other systems are still examined."""
    installation.environment |= environment
    for key, value in policy.items():
        installation.set(key, value)
    findings = await installation.examine()
    assert any(expected in fault for fault in faults(findings)), faults(findings)
    assert {"Slack", "GitHub", "git", "Kubernetes", "Redis", "Hugging Face"} <= {finding.system for finding in findings}


def _lacks_scope(_: Any, headers: dict[str, str]) -> None:
    headers["x-oauth-scopes"] = headers["x-oauth-scopes"].replace("im:write", "im:read")


def _clock_behind(_: Any, headers: dict[str, str]) -> None:
    headers["date"] = format_datetime(datetime.now(UTC) - timedelta(minutes=4), usegmt=True)


def _not_a_member(answer: Any, _: dict[str, str]) -> None:
    answer["channel"]["is_member"] = False


def _archived(answer: Any, _: dict[str, str]) -> None:
    answer["channel"]["is_archived"] = True


SLACK: list[tuple[str, str, Change, str]] = [
    ("scope", "auth.test", _lacks_scope, "Slack: the app lacks the scopes im:write"),
    ("clock", "auth.test", _clock_behind, "s ahead of Slack's"),
    ("not invited", "conversations.info", _not_a_member, "→ Type `/invite @stoker`"),
    ("archived", "conversations.info", _archived, "is archived"),
]


@pytest.mark.parametrize(("method", "change", "expected"), [row[1:] for row in SLACK], ids=[row[0] for row in SLACK])
async def test_problems_in_slack_are_named(
    installation: Installation, method: str, change: Change, expected: str
) -> None:
    """Problems in Slack's answers about the app and the channel are reported."""
    base = installation.environment["SLACK_API_URL"]
    async with altered(base.removesuffix("/api/"), f"/{method}", change) as url:
        installation.environment["SLACK_API_URL"] = f"{url}/api/"
        assert any(expected in fault for fault in faults(await installation.examine()))


def _guest(answer: Any, _: dict[str, str]) -> None:
    answer["user"]["is_restricted"] = True


def _deactivated(answer: Any, _: dict[str, str]) -> None:
    answer["user"]["deleted"] = True


def _unknown(answer: Any, _: dict[str, str]) -> None:
    answer.clear()
    answer |= {"ok": False, "error": "user_not_found"}


def _no_users_read(answer: Any, _: dict[str, str]) -> None:
    answer.clear()
    answer |= {"ok": False, "error": "missing_scope", "needed": "users:read"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_guest, "people: U0LEAD in roles.approvers has no effect: Stoker does not accept requests from guests"),
        (_deactivated, "people: U0LEAD in roles.approvers has no effect: Slack has no active account"),
        (_unknown, "people: U0LEAD in roles.approvers has no effect: Slack has no active account"),
        (
            _no_users_read,
            "(the scope users:read is missing), so it refuses everybody → Update the app's manifest",
        ),
    ],
)
async def test_an_approver_without_effect_is_named(installation: Installation, change: Change, expected: str) -> None:
    """A person whom Stoker refuses is not an approver, even if the settings list them."""
    base = installation.environment["SLACK_API_URL"]
    async with altered(base.removesuffix("/api/"), "/users.info", change) as url:
        installation.environment["SLACK_API_URL"] = f"{url}/api/"
        reported = faults(await installation.examine())
        assert any(expected in fault for fault in reported), reported
        if change is not _no_users_read:
            assert any("nobody may approve" in fault for fault in reported)


def _private(answer: Any, _: dict[str, str]) -> None:
    answer["channel"]["is_private"] = True


def _for_private(_: Any, headers: dict[str, str]) -> None:
    headers["x-oauth-scopes"] = headers["x-oauth-scopes"].replace("channels:", "groups:")


async def test_a_private_channel_needs_the_scopes_of_private_channels(installation: Installation) -> None:
    """The id does not show that a channel is private, so the doctor asks Slack; an app made with --private-channel passes."""
    base = installation.environment["SLACK_API_URL"].removesuffix("/api/")
    async with altered(base, "/conversations.info", _private) as url:
        installation.environment["SLACK_API_URL"] = f"{url}/api/"
        (fault,) = faults(await installation.examine())
        assert (
            "lacks the scopes groups:history, groups:read → Update the app's manifest with the output of `stoker manifest --private"
            in fault
        )
        async with altered(url, "/auth.test", _for_private) as proxy_url:
            installation.environment["SLACK_API_URL"] = f"{proxy_url}/api/"
            assert faults(await installation.examine()) == []


def _read_only(answer: Any, _: dict[str, str]) -> None:
    answer["permissions"]["push"] = False


def _unprotected(answer: Any, _: dict[str, str]) -> None:
    answer["protected"] = False


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        ("/repos/acme/llm-platform", _read_only, "GitHub: the token may not write to acme/llm-platform"),
        ("/branches/main", _unprotected, "GitHub: main is not protected"),
    ],
)
async def test_problems_in_github_are_named(
    installation: Installation, path: str, change: Change, expected: str
) -> None:
    """Missing permissions of the token and a missing protection of the branch are reported."""
    async with altered(installation.environment["GITHUB_API_URL"], path, change) as url:
        installation.environment["GITHUB_API_URL"] = url
        assert any(expected in fault for fault in faults(await installation.examine()))


GRANTED = {"contents": "write", "pull_requests": "write", "issues": "write", "checks": "read", "statuses": "read"}


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        (GRANTED | {"metadata": "read"}, []),
        (GRANTED | {"checks": "write"}, []),
        (GRANTED | {"contents": "read"}, ["wrong GitHub: the App's installation lacks contents: write"]),
        ({"metadata": "read", "contents": "write"}, ["lacks pull_requests: write, issues: write, checks: read, statu"]),
    ],
    ids=["as documented", "more than needed", "reads only", "half"],
)
async def test_a_github_app_is_examined_by_its_own_permissions(
    installation: Installation, granted: dict[str, str], expected: list[str]
) -> None:
    """The repository returns `push: false` to every App; the permissions come with its token."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"token": installation.environment.pop("GITHUB_TOKEN"), "expires_at": ends, "permissions": granted}
    installation.environment |= {
        "GITHUB_APP_ID": "42",
        "GITHUB_APP_INSTALLATION_ID": "7",
        "GITHUB_APP_PRIVATE_KEY": pem,
    }
    own_answers = {"/app/installations/7/access_tokens": token}
    async with altered(
        installation.environment["GITHUB_API_URL"], "/repos/acme/llm-platform", _read_only, own_answers
    ) as url:
        installation.environment["GITHUB_API_URL"] = url
        reported = faults(await installation.examine())
    assert len(reported) == len(expected), reported
    assert all(text in fault for text, fault in zip(expected, reported, strict=True)), reported


async def test_each_missing_right_is_named(installation: Installation) -> None:
    """Every verb is checked in the cluster, and a refused one is named with its namespace."""

    def refuse(answer: Any, _: dict[str, str]) -> None:
        attributes = answer["spec"]["resourceAttributes"]
        answer["status"]["allowed"] = (attributes.get("subresource"), attributes["verb"]) != ("scale", "patch")

    async with altered(installation.cluster, "/selfsubjectaccessreviews", refuse) as url:
        installation.set_cluster(url)
        assert (
            "wrong Kubernetes: the bot may not patch deployments/scale.apps in namespace serving → Add this right"
            in "".join(faults(await installation.examine()))
        )


async def test_an_unreachable_cluster_is_named_once(installation: Installation) -> None:
    """Systems that depend on the cluster are not reported again: Argo CD, and LiteLLM, whose key is in the cluster."""
    installation.set_cluster("http://127.0.0.1:9")
    (fault,) = faults(await installation.examine())
    assert fault.startswith("wrong Kubernetes: Kubernetes does not answer")
    assert "at the address in KUBECONFIG" in fault


async def test_a_model_that_cannot_be_measured_is_named(installation: Installation) -> None:
    """A benchmark reads the tokenizer from the weights' claim, so there has to be one."""

    def uncached(answer: Any, _: dict[str, str]) -> None:
        for container in answer["spec"]["template"]["spec"]["containers"]:
            container["env"] = [variable for variable in container["env"] if variable["name"] != "HF_HOME"]

    async with altered(installation.cluster, "/deployments/coder-chat", uncached) as url:
        installation.set_cluster(url)
        reported = "".join(faults(await installation.examine()))
        assert "HF_HOME of the Deployment of coder-chat is not on a volume claim" in reported
        assert "Set HF_HOME to the path" in reported


async def test_a_gateway_without_a_database_is_named(installation: Installation) -> None:
    """Virtual keys and budgets need a database, so the smoke tests would fail."""

    def disconnect(answer: Any, _: dict[str, str]) -> None:
        answer["db"] = "Not connected"

    async with altered(installation.environment["LITELLM_URL"], "/health/readiness", disconnect) as url:
        installation.environment["LITELLM_URL"] = url
        assert any("LiteLLM: it has no database" in fault for fault in faults(await installation.examine()))


async def test_an_open_cost_gate_is_named(installation: Installation, world: Sandbox) -> None:
    """The Application of a GPU model syncs automatically in the cluster, independent of the repository."""
    store = world.cluster.api.store

    def automate(application: dict[str, Any]) -> None:
        application["spec"]["syncPolicy"]["automated"] = {}

    def undo(application: dict[str, Any]) -> None:
        application["spec"]["syncPolicy"].pop("automated", None)

    store.update("Application", "coder-chat", "argocd", automate)
    try:
        assert any(
            "coder-chat uses a GPU and syncs automatically" in fault for fault in faults(await installation.examine())
        )
    finally:
        store.update("Application", "coder-chat", "argocd", undo)


@pytest.mark.parametrize(
    ("option", "bad", "good", "expected"),
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
async def test_a_redis_that_can_lose_data_is_named(
    installation: Installation, world: Sandbox, option: str, bad: str, good: str, expected: str
) -> None:
    """A server that may lose or evict a lease is not safe."""
    async with redis_at(world.redis.url) as redis:
        await redis.config_set(option, bad)
        try:
            assert any(expected in fault for fault in faults(await installation.examine()))
        finally:
            await redis.config_set(option, good)


async def test_a_broken_contract_is_named_with_file_and_line(
    installation: Installation, world: Sandbox, tmp_path: Path
) -> None:
    """The findings of `stoker model check` on the main branch are in the diagnosis."""
    del world
    installation.environment["GIT_REMOTE_URL"] = str(await _clone_with_a_stale_selector(installation, tmp_path))
    reported = [fault for fault in faults(await installation.examine()) if "contract" in fault]
    assert any("serving/coder-chat/service.yaml:" in fault for fault in reported), reported


async def _clone_with_a_stale_selector(installation: Installation, directory: Path) -> Path:
    """A clone of the platform's repository with a Service that selects no pod."""
    import base64

    token = base64.b64encode(f"x-access-token:{installation.environment['GITHUB_TOKEN']}".encode()).decode()
    clone = directory / "clone"
    await _git(
        "-c",
        f"http.extraHeader=Authorization: Basic {token}",
        "clone",
        "-q",
        installation.environment["GIT_REMOTE_URL"],
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


async def _doctor(environment: dict[str, str], directory: Path, *arguments: str) -> tuple[int, str, str]:
    process = await start_stoker("doctor", *arguments, environment=environment, directory=directory)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_machine_without_git_is_named(installation: Installation, tmp_path: Path) -> None:
    """The command itself needs no git, so it can report that git is missing."""
    code, out, _ = await _doctor(installation.environment_with_policy() | {"PATH": str(tmp_path)}, tmp_path)
    assert code == 1
    assert "git is not on PATH" in out


async def test_the_exit_code_and_the_output_show_the_verdict(installation: Installation, tmp_path: Path) -> None:
    """The exit code is 0 without problems, 1 with problems, and 2 for a missing setting; the output is JSON or lines for people."""
    code, out, _ = await _doctor(installation.environment_with_policy(), tmp_path, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    installation.set("roles.approvers", [])
    code, out, _ = await _doctor(installation.environment_with_policy(), tmp_path)
    assert code == 1
    assert "WRONG    people" in out
    assert "→ Add users or user groups to roles.approvers." in out
    without = {k: v for k, v in installation.environment_with_policy().items() if k != "SLACK_BOT_TOKEN"}
    code, _, err = await _doctor(without, tmp_path)
    assert (code, err) == (2, "stoker: SLACK_BOT_TOKEN is not set\n")


async def test_an_admin_gets_the_same_diagnosis_in_slack(world: Sandbox) -> None:
    """`/gpu doctor` answers only admins, and refers other people to an admin."""
    since = world.now()
    await world.command("admin", "/gpu doctor")
    await world.command("dev", "/gpu doctor")
    async with asyncio.timeout(200):
        while not any("checks passed" in revision.text for revision in world.visible("admin", since)):
            await asyncio.sleep(0.1)
        while not any("Only admins" in revision.text for revision in world.visible("dev", since)):
            await asyncio.sleep(0.1)
    assert not any("checks passed" in revision.text for revision in world.visible("dev", since))


async def test_unknown_scopes_are_a_warning(installation: Installation) -> None:
    """If the header is missing, because a proxy strips it, the app may still have the scopes."""

    def strip(_: Any, headers: dict[str, str]) -> None:
        headers.pop("x-oauth-scopes")

    async with altered(installation.environment["SLACK_API_URL"].removesuffix("/api/"), "/auth.test", strip) as url:
        installation.environment["SLACK_API_URL"] = f"{url}/api/"
        reported = faults(await installation.examine())
    assert len(reported) == 1, reported
    assert "warning Slack: the app's scopes could not be checked" in reported[0]


async def test_unknown_permissions_are_a_warning(installation: Installation) -> None:
    """The answer about the repository has no `permissions`."""

    def strip(answer: Any, _: dict[str, str]) -> None:
        answer.pop("permissions")

    async with altered(installation.environment["GITHUB_API_URL"], "/repos/acme/llm-platform", strip) as url:
        installation.environment["GITHUB_API_URL"] = url
        reported = faults(await installation.examine())
    assert len(reported) == 1, reported
    assert "warning GitHub: whether the token may write to acme/llm-platform could not be checked" in reported[0]


async def test_unknown_rights_are_a_warning(installation: Installation) -> None:
    """An access review without an answer is neither allowed nor denied."""

    def strip(answer: Any, _: dict[str, str]) -> None:
        answer.pop("status")

    async with altered(installation.cluster, "/selfsubjectaccessreviews", strip) as url:
        installation.set_cluster(url)
        reported = faults(await installation.examine())
    assert len(reported) == 1, reported
    assert "rights that the bot uses could not be checked: Kubernetes does not return" in reported[0]


async def test_a_refused_access_review_is_a_warning() -> None:
    """If the account may not ask (a cluster without system:basic-user), the Secrets are still checked."""
    async with Wire() as wire, connected(wire) as api:
        wire.forbidden = "/selfsubjectaccessreviews"
        findings = [finding async for finding in platform.cluster(Config(), Cluster(api, "serving"))]
    assert "could not be checked: Stoker's role may not create selfsubjectaccessreviews" in findings[0].message
    assert findings[0].verdict == "warning"
    assert len(findings) == 3


async def test_a_gateway_with_an_unknown_database_is_a_warning(installation: Installation) -> None:
    """The gateway is an older LiteLLM, or a proxy in front of it answers."""

    def silence(answer: Any, _: dict[str, str]) -> None:
        answer.pop("db")

    async with altered(installation.environment["LITELLM_URL"], "/health/readiness", silence) as url:
        installation.environment["LITELLM_URL"] = url
        assert any(
            "LiteLLM: whether it has a database could not be checked" in f for f in faults(await installation.examine())
        )
