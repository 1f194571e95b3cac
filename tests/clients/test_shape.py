"""Objects of other owners in the cluster, in every form that an API server accepts."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.kube import Collection, Kube, Selection
from bot.clients.rights import PODS
from bot.clients.shape import shaped
from bot.errors import Unavailable
from tests.clients.kube import Object, Wire, application, connected, deployment

ODD_SPECS: list[object] = [
    None,
    [],
    {},
    {"replicas": None, "selector": None, "template": None},
    {"replicas": "two", "selector": {}, "template": {"spec": {}}},
    {"replicas": 1, "selector": {}, "template": {"metadata": [], "spec": {"containers": None}}},
    {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [None, 1, {"image": "x"}, {"name": "a"}]}}},
    {
        "replicas": 1,
        "selector": {},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "a",
                        "image": None,
                        "args": None,
                        "command": "sleep",
                        "env": {"A": "b"},
                        "ports": [{}],
                        "resources": {"limits": None},
                    }
                ]
            }
        },
    },
]


def odd_objects() -> list[Object]:
    meta: Object = {"namespace": "serving", "annotations": None, "labels": ["x"], "ownerReferences": [{"uid": "1"}]}
    objects: list[Object] = []
    for number, spec in enumerate(ODD_SPECS):
        objects.append({"kind": "Deployment", "metadata": meta | {"name": f"odd-{number}"}, "spec": spec, "status": []})
        pod = spec["template"] if isinstance(spec, dict) and "template" in spec else spec
        pod = pod["spec"] if isinstance(pod, dict) and "spec" in pod else pod
        status: object = {"conditions": None, "containerStatuses": [{}]} if number % 2 else None
        objects.append({"kind": "Pod", "metadata": meta | {"name": f"odd-{number}"}, "spec": pod, "status": status})
    objects.append({"kind": "Service", "metadata": {"name": "odd", "namespace": "serving"}, "spec": {"ports": None}})
    selects: Object = {"selector": {"app.kubernetes.io/name": "portless"}, "ports": []}
    objects.append({"kind": "Service", "metadata": {"name": "portless", "namespace": "serving"}, "spec": selects})
    return objects


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exit_stack:
        yield exit_stack


async def test_odd_objects_of_others_are_ignored(wire: Wire, stack: AsyncExitStack) -> None:
    wire.store.create(deployment(replicas=1))
    wire.store.create(deployment("portless", replicas=1))
    for odd in odd_objects():
        wire.store_unchanged(odd)
    cluster = Cluster(await stack.enter_async_context(connected(wire)), "serving")

    assert (await cluster.workloads())["coder-chat"].gpus == 1
    assert {workload.name for workload in await cluster.gpu_workloads()} == {"coder-chat", "portless"}
    assert {user.name for user in await cluster.gpu_users()} == {"coder-chat", "portless"}
    assert await cluster.highest_fence() == 0
    assert (await cluster.survey()).invalid_fences == {}
    for number in range(len(ODD_SPECS)):
        assert await cluster.workload(f"odd-{number}") is not None
        await cluster.condition(f"odd-{number}")
        await cluster.node_of(f"odd-{number}")
    await cluster.scale("coder-chat", 0, lease=None, fence=1)
    assert (await cluster.workload("coder-chat")).replicas == 0  # type: ignore[union-attr]


ODD_APPLICATIONS: list[Object] = [
    {"spec": {}},
    {"spec": None, "status": None},
    {"spec": {"source": None, "sources": None, "destination": None, "syncPolicy": None}},
    {"spec": {"source": [], "sources": {}, "syncPolicy": {"automated": None, "syncOptions": None}}},
    {"spec": {"sources": [None, 1, {"path": 3, "repoURL": None}], "syncPolicy": {"automated": True}}},
    {"status": {"sync": None, "health": None, "conditions": None, "resources": None, "operationState": None}},
    {"status": {"sync": [], "health": "Healthy", "conditions": [None, {}], "resources": [None], "operationState": []}},
    {"status": {"sync": {"revisions": [None, 2]}, "operationState": {"phase": 1, "operation": None, "syncResult": []}}},
    {"status": {"operationState": {"phase": "Running", "message": None, "operation": {"initiatedBy": None}}}},
    {"operation": None},
    {"operation": {"sync": None, "initiatedBy": []}},
]


@pytest.mark.parametrize("odd", ODD_APPLICATIONS, ids=json.dumps)
async def test_applications_in_any_shape_are_read(wire: Wire, stack: AsyncExitStack, odd: Object) -> None:
    wire.store.create(application())
    wire.store_unchanged({"kind": "Application", "metadata": {"name": "odd", "namespace": "argocd"}} | odd)
    argocd = ArgoCD(await stack.enter_async_context(connected(wire)), "argocd", "acme/platform")

    assert {listed.name for listed in await argocd.list()} == {"coder-chat", "odd"}
    odd_application = await argocd.get("odd")
    assert odd_application is not None
    assert not odd_application.paths
    assert not odd_application.automated
    assert not await argocd.terminate("odd", "c0ffee", "somebody")


@pytest.mark.parametrize(
    ("quantity", "gpus"), [("1", 1), (2, 2), ("1e3", 1000), ("1k", 1000), ("500m", 1), ("0", 0), (None, 0), ("many", 0)]
)
async def test_a_number_of_gpus_is_a_quantity(wire: Wire, stack: AsyncExitStack, quantity: object, gpus: int) -> None:
    asks = deployment(replicas=1)
    asks["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": quantity}
    wire.store_unchanged(asks)
    cluster = Cluster(await stack.enter_async_context(connected(wire)), "serving")

    assert [workload.gpus for workload in await cluster.gpu_workloads()] == ([gpus] if gpus else [])


async def test_the_pods_of_a_large_cluster_are_read_in_pages(wire: Wire, stack: AsyncExitStack) -> None:
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    for number in range(1201):
        container = {"name": "a"} | ({"resources": limits} if number in (700, 1200) else {})
        spec = {"containers": [container]}
        pod = {"kind": "Pod", "metadata": {"name": f"p-{number:04}", "namespace": "jobs"}, "spec": spec}
        wire.store_unchanged(pod)
    over = {"kind": "Pod", "metadata": {"name": "over", "namespace": "jobs"}, "status": {"phase": "Succeeded"}}
    wire.store_unchanged(over)
    cluster = Cluster(await stack.enter_async_context(connected(wire)), "serving")

    assert [user.name for user in await cluster.gpu_users()] == ["p-0700", "p-1200"]
    assert wire.count_requests("GET", "/api/v1/pods?") == 3


async def test_every_page_is_followed(wire: Wire, stack: AsyncExitStack) -> None:
    for number in range(501):
        wire.store.create({"kind": "Pod", "metadata": {"name": f"p-{number:04}", "namespace": "serving"}, "spec": {}})
    kube = Kube(await stack.enter_async_context(connected(wire)))

    async def check(pods: dict[tuple[str, str], Object]) -> int | None:
        if len(pods) > 501:
            return len(pods)
        if not created:
            created.append(wire.store.create(late))
        return None

    created: list[Object] = []
    late = {"kind": "Pod", "metadata": {"name": "late", "namespace": "serving"}, "spec": {}}
    assert await kube.follow(Selection(Collection(PODS, "serving")), check=check) == 502


async def test_a_list_that_expires_between_its_pages_is_unavailable(stack: AsyncExitStack) -> None:
    first = {"metadata": {"resourceVersion": "1", "continue": "next"}, "items": []}

    class Forgetful(Wire):
        async def _collection(self, request: web.Request) -> web.StreamResponse:
            if "continue" in request.query:
                return web.json_response({"kind": "Status", "code": 410, "message": "token is too old"}, status=410)
            return web.json_response(first)

    forgetful = await stack.enter_async_context(Forgetful())
    kube = Kube(await stack.enter_async_context(connected(forgetful)))
    with pytest.raises(Unavailable, match="expired before it was read"):
        await kube.list(Selection(Collection(PODS, "serving")))


def test_a_well_formed_object_is_not_changed() -> None:
    for resource, manifest in (("deployments", deployment(replicas=1)), ("applications", application())):
        assert shaped(resource, json.loads(json.dumps(manifest))) == manifest


@pytest.mark.parametrize("nothing", [None, [], "x", {}, {"metadata": {}}, {"metadata": {"name": None}}])
def test_an_object_without_a_name_is_ignored(nothing: object) -> None:
    assert shaped("pods", nothing) is None
