"""The chart's rights on a real Kubernetes API server: they are sufficient for the bot's work, and grant nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio.client import ApiClient

from bot.clients.argocd import ArgoCD
from bot.clients.boot import BootPhase
from bot.clients.cluster import Cluster
from bot.clients.job import Jobs, Load
from bot.clients.kube import Collection, Forbidden, Kube
from bot.clients.rights import APPLICATIONS, MASTER_KEY, MODELS, Right, rights
from bot.clients.whereabouts import Whereabouts
from bot.errors import BotError
from bot.settings.config import Config
from tests.clients.kube import application, caching, condition, deployment, now, pod, service
from tests.helm.api_server import ApiServer, api_server, assets
from tests.helm.chart import FULL, MEASURING, MINIMAL, Object, of_kind, render

BINARIES = assets()
pytestmark = [
    pytest.mark.skipif(BINARIES is None, reason="KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]
pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")

CONFIG = Config.model_validate(MEASURING["config"])
NAMESPACES = ("stoker", "serving", "argocd", "litellm", "elsewhere")
ROLES = ("Role", "ClusterRole")
POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiServer]:
    """A server with the account and rights of the release, a model, an Application and the two Secrets."""
    assert BINARIES
    async with api_server(BINARIES, tmp_path_factory.mktemp("kubernetes")) as api:
        for name in NAMESPACES:
            await api.namespace(name)
        await api.create(_definition())
        for manifest in _release():
            await api.create(manifest)
        await api.create({"apiVersion": "apps/v1"} | _complete(deployment()))
        await api.create({"apiVersion": "v1"} | service())
        for ref in (CONFIG.vllm.api_key, CONFIG.litellm.master_key):
            await api.create(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": ref.name, "namespace": ref.namespace},
                    "stringData": {ref.field: "sk-1"},
                }
            )
        await _until_served(api)
        yield api


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bot(server: ApiServer) -> AsyncIterator[ApiClient]:
    """A client with the bot's own token."""
    async with server.account("stoker", "stoker") as client:
        yield client


async def test_the_bot_can_do_its_work(bot: ApiClient) -> None:
    """Each kind of request that an operation makes is allowed, and has its effect."""
    cluster, argocd = Cluster(bot, "serving"), ArgoCD(bot, "argocd", "acme/llm-platform")
    await cluster.scale("coder-chat", 1, lease="op-1/7")
    up = await cluster.workload("coder-chat")
    assert up
    assert (up.replicas, up.lease, up.service) == (1, "op-1/7", "coder-chat-svc")
    assert [w.name for w in await cluster.gpu_workloads()] == ["coder-chat"]
    assert (await cluster.secret(MASTER_KEY, CONFIG.litellm.master_key)).get_secret_value()
    await argocd.refresh("coder-chat")
    assert [app.name for app in await argocd.list()] == ["coder-chat"]
    await cluster.scale("coder-chat", 0, lease=None)
    await cluster.wait_gone("coder-chat", timeout=30)


async def test_the_server_accepts_the_job_of_a_benchmark(server: ApiServer, bot: ApiClient) -> None:
    """It is created once and deleted once, and its manifest passes the server's validation."""
    jobs = Jobs(bot, Whereabouts("serving"))
    await server.create({"apiVersion": "apps/v1"} | caching(_complete(deployment("measured"))))
    load = Load(model="measured", target="http://m:8000", served_name="m", tokenizer="acme/m", chat=True)
    for _ in range(2):
        await jobs.start("0123456789", load, CONFIG.bench, CONFIG.vllm.api_key)
    assert await jobs.delete("0123456789")
    assert not await jobs.delete("0123456789")


async def test_a_boot_is_followed_to_its_end(server: ApiServer, bot: ApiClient) -> None:
    """The server's watches are real. The test creates the pod, reports it ready and deletes it, as controllers do."""
    cluster, chat_pod = Cluster(bot, "serving"), _named(pod())
    phase_keys: list[str] = []

    async def hear(phases: tuple[BootPhase, ...]) -> None:
        phase_keys.append(phases[-1].phase.key)

    await cluster.scale("coder-chat", 1, lease="op-2/8")
    booting = asyncio.create_task(cluster.wait_ready("coder-chat", timeout=60, progress=hear))
    await server.create(chat_pod)
    await _until(lambda: phase_keys == ["waiting for a node"])
    await server.report(chat_pod, {"conditions": [condition("PodScheduled")]})
    await _until(lambda: len(phase_keys) > 1)
    running = {"name": "vllm", "image": "v", "imageID": "v", "restartCount": 0, "ready": True}
    state = {"running": {"startedAt": now()}}
    await server.report(
        chat_pod,
        {
            "phase": "Running",
            "conditions": [condition("PodScheduled"), condition("Ready")],
            "containerStatuses": [running | {"state": state}],
        },
    )
    phases = await booting
    assert phases[0].phase.key == "waiting for a node"
    assert [boot_phase.phase.key for boot_phase in phases[:1]] == phase_keys[:1]
    await cluster.scale("coder-chat", 0, lease=None)
    ending = asyncio.create_task(cluster.wait_gone("coder-chat", timeout=60))
    await server.delete(chat_pod)
    await ending


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=["minimal", "full"])
async def test_the_server_accepts_each_object_of_the_chart(server: ApiServer, values: Object) -> None:
    """The server's schemas contain every field. Objects for a newer server or with external definitions are skipped."""
    elsewhere = set()
    for manifest in render(values):
        if await server.serves(manifest["apiVersion"]):
            await server.dry_run(manifest)
        else:
            elsewhere.add(manifest["apiVersion"])
    assert elsewhere <= {"external-secrets.io/v1", "monitoring.coreos.com/v1", "policy/v1"}


async def test_the_server_refuses_a_field_that_it_does_not_know(server: ApiServer) -> None:
    """This shows that the server validated everything that it accepted."""
    (account,) = of_kind(render(MINIMAL), "Service")[:1]
    with pytest.raises(AssertionError, match="field not declared in schema"):
        await server.dry_run(account | {"spec": account["spec"] | {"colour": "red"}})


async def test_the_policy_denies_changes_that_the_role_allows(bot: ApiClient) -> None:
    """RBAC lets the account patch Deployments and Applications; the policy (Kubernetes 1.30) restricts the fields."""
    kube = Kube(bot)
    deployments, applications = Collection(MODELS, "serving"), Collection(APPLICATIONS, "argocd")

    async def denied(collection: Collection, change: Object) -> str:
        try:
            await kube.patch(collection, "coder-chat", change)
        except BotError as error:
            return error.message
        return ""

    async with asyncio.timeout(30):  # a server needs a moment to apply a new policy
        for number in count():
            if await denied(deployments, {"metadata": {"labels": {"attempt": str(number)}}}):
                break
            await asyncio.sleep(0.5)
    for collection, change, message in (
        (deployments, {"spec": {"template": {"spec": {"serviceAccountName": "x"}}}}, "the replicas and nothing else"),
        (deployments, {"metadata": {"labels": {"x": "y"}}}, "annotations and nothing else"),
        (deployments, {"metadata": {"annotations": {"x": "y"}}}, "stoker.dev/*"),
        (applications, {"spec": {"project": "other"}}, "nothing of its spec"),
        (applications, {"operation": {"sync": {"manifests": ["kind: Pod"]}}}, "not for other sources or manifests"),
    ):
        assert message in await denied(collection, change)
    assert await denied(deployments, {"metadata": {"annotations": {"stoker.dev/note": "x"}}}) == ""


async def test_the_bot_lacks_no_right(bot: ApiClient) -> None:
    """The check at the bot's start and the doctor find every right."""
    assert await Cluster(bot, "serving").lacking(rights(CONFIG)) == ()


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_the_bot_has_no_other_right(bot: ApiClient, namespace: str) -> None:
    """The server's own list of the account's rights contains only the rights that the bot uses and those that everybody has."""
    request = await bot.param_serialize(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        header_params={"Accept": "application/json", "Content-Type": "application/json"},
        body={"spec": {"namespace": namespace}},
        auth_settings=["BearerToken"],
    )
    response = (await bot.call_api(*request)).response
    async with response:
        review = await response.json()
    granted = {
        Right(verb, resource, group, None, name)
        for rule in review["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
        if not resource.startswith("selfsubject")
    }
    expected = {
        Right(r.verb, r.resource, r.group, None, r.name) for r in rights(CONFIG) if r.namespace in (namespace, None)
    }
    assert granted == expected


@pytest.mark.parametrize("right", rights(CONFIG), ids=str)
async def test_each_removed_right_is_named(server: ApiServer, bot: ApiClient, right: Right) -> None:
    """The check reports the right that was removed, so no right is unused."""
    # A permission to list in all namespaces includes each namespace.
    everywhere = {(r.verb, r.resource) for r in rights(CONFIG) if r.namespace is None}
    covered = right.namespace is not None and (right.verb, right.resource) in everywhere
    async with without(server, right):
        await until_lacking(bot, () if covered else (right,))
    await until_lacking(bot, ())


async def test_a_refusal_names_the_right_to_add(server: ApiServer, bot: ApiClient) -> None:
    """The server's 403 becomes a sentence with verb, resource and namespace."""
    right = Right("patch", "deployments/scale", "apps", "serving")
    async with without(server, right):
        await until_lacking(bot, (right,))
        with pytest.raises(Forbidden, match="may not patch deployments/scale in namespace serving"):
            await Cluster(bot, "serving").scale("coder-chat", 1, lease=None)
    await until_lacking(bot, ())


@asynccontextmanager
async def without(server: ApiServer, right: Right) -> AsyncIterator[None]:
    """The release's roles without one right, until the end of the block."""
    whole = [role for role in _roles() if role["metadata"].get("namespace") == right.namespace]
    for role in whole:
        await server.replace(role | {"rules": list(_without(role["rules"], right))})
    try:
        yield
    finally:
        for role in whole:
            await server.replace(role)


async def until_lacking(bot: ApiClient, expected: tuple[Right, ...]) -> None:
    """Wait until exactly these rights are missing: the server's authorizer notices a changed role after a moment."""
    lacking: tuple[Right, ...] = ()
    try:
        async with asyncio.timeout(30):
            while (lacking := await Cluster(bot, "serving").lacking(rights(CONFIG))) != expected:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"lacking {list(map(str, lacking))}, not {list(map(str, expected))}") from None


def _roles() -> list[Object]:
    return [role for role in _release() if role["kind"] in ROLES]


def _release() -> list[Object]:
    objects = render(MEASURING)
    kinds = ("ServiceAccount", *ROLES, "RoleBinding", "ClusterRoleBinding", *POLICY)
    return [manifest for kind in kinds for manifest in of_kind(objects, kind)]


def _without(rules: list[Object], right: Right) -> list[Object]:
    """Return the same rules without `right`."""
    left = []
    for rule in rules:
        for resource in rule["resources"]:
            same = resource == right.resource and rule.get("resourceNames", [""]) == [right.name]
            verbs = [verb for verb in rule["verbs"] if not (same and verb == right.verb)]
            if verbs:
                left.append(rule | {"resources": [resource], "verbs": verbs})
    return left


async def _until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not predicate():
            await asyncio.sleep(0.05)


def _named(manifest: Object) -> Object:
    """Return a pod as its ReplicaSet creates it, with an image and without a status."""
    (container,) = manifest["spec"]["containers"]
    spec = manifest["spec"] | {"containers": [container | {"image": "vllm/vllm-openai:v0"}]}
    return {"apiVersion": "v1"} | {key: value for key, value in manifest.items() if key != "status"} | {"spec": spec}


def _complete(manifest: Object) -> Object:
    """Add the fields that a real server requires and the sandbox does not."""
    container = {"image": "vllm/vllm-openai:v0"} | manifest["spec"]["template"]["spec"]["containers"][0]
    manifest["spec"]["template"]["spec"]["containers"] = [container]
    return manifest


def _definition() -> Object:
    """The minimal CustomResourceDefinition of Argo CD for storing Applications."""
    schema: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "applications.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "scope": "Namespaced",
            "names": {"kind": "Application", "plural": "applications", "singular": "application"},
            "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def _until_served(server: ApiServer) -> None:
    """Wait until the server serves Applications, shortly after their definition is created."""
    manifest = {"apiVersion": "argoproj.io/v1alpha1"} | application()
    async with asyncio.timeout(60):
        while True:
            try:
                await server.create(manifest)
                return
            except (AssertionError, ValueError):
                await asyncio.sleep(0.2)
