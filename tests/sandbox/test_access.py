"""The sandbox's API server refuses requests that an account's Roles do not grant, with Kubernetes' messages."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox.access import Account
from sandbox.kubernetes import KubernetesAPI
from tests.clients.wire import client

Role = dict[str, Any]


def role(*rules: Role, namespace: str = "serving") -> Role:
    return {"metadata": {"name": "r"} | ({"namespace": namespace} if namespace else {}), "rules": list(rules)}


def rule(group: str, resource: str, *verbs: str, names: tuple[str, ...] = ()) -> Role:
    named = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} | named


ROLES = (
    role(
        rule("apps", "deployments", "get", "list"),
        rule("apps", "deployments/scale", "patch"),
        rule("", "secrets", "get", "list", names=("key",)),
    ),
    role(rule("", "nodes", "list"), rule("", "pods", "list"), namespace=""),
)
DEPLOYMENTS = "apis/apps/v1/namespaces/{}/deployments"


@pytest.fixture
async def api() -> AsyncIterator[KubernetesAPI]:
    async with KubernetesAPI() as api:
        for namespace in ("serving", "litellm"):
            labels = {"matchLabels": {"app": "a"}}
            metadata = {"name": "a", "namespace": namespace}
            api.store.create({"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 0, "selector": labels}})
        yield api


@pytest.fixture
def stoker(api: KubernetesAPI) -> tuple[Account, str]:
    return api.account("stoker", "stoker", ROLES)


async def ask(api: KubernetesAPI, token: str, method: str, path: str, body: object = None) -> httpx.Response:
    async with client(api.url) as http:
        return await http.request(method, f"/{path}", headers={"Authorization": f"Bearer {token}"}, json=body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", DEPLOYMENTS.format("serving") + "/a"),
        ("GET", DEPLOYMENTS.format("serving")),
        ("PATCH", DEPLOYMENTS.format("serving") + "/a/scale"),
        ("GET", "api/v1/nodes"),
        ("GET", "api/v1/pods"),
        # A right that is bound for the whole cluster applies in each namespace.
        ("GET", "api/v1/namespaces/litellm/pods"),
        ("GET", "api/v1/namespaces/serving/secrets?fieldSelector=metadata.name%3Dkey"),
        # Everybody may read the discovery and the version.
        ("GET", "version"),
        ("GET", "apis/apps/v1"),
    ],
)
async def test_a_request_that_a_role_grants_is_allowed(
    api: KubernetesAPI, stoker: tuple[Account, str], method: str, path: str
) -> None:
    """Verb, resource, subresource and namespace are compared."""
    answer = await ask(api, stoker[1], method, path, {"spec": {"replicas": 1}} if method == "PATCH" else None)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        (
            "GET",
            DEPLOYMENTS.format("litellm") + "/a",
            'deployments.apps "a" is forbidden: User "system:serviceaccount:stoker:stoker" cannot get resource'
            ' "deployments" in API group "apps" in the namespace "litellm"',
        ),
        ("GET", DEPLOYMENTS.format("serving") + "?watch=true", 'deployments.apps is forbidden: User "…" cannot watch'),
        ("PATCH", DEPLOYMENTS.format("serving") + "/a", 'deployments.apps "a" is forbidden: User "…" cannot patch'),
        (
            "GET",
            DEPLOYMENTS.format("serving") + "/a/scale",
            'deployments.apps "a" is forbidden: User "…" cannot get resource "deployments/scale" in API group "apps"',
        ),
        ("DELETE", DEPLOYMENTS.format("serving"), "cannot deletecollection"),
        ("POST", "api/v1/namespaces/serving/pods", 'pods is forbidden: User "…" cannot create resource "pods"'),
        (
            "GET",
            "api/v1/nodes/gpu-1",
            'nodes "gpu-1" is forbidden: User "…" cannot get resource "nodes" in API group ""',
        ),
        (
            "GET",
            "apis/apps/v1/deployments",
            'cannot list resource "deployments" in API group "apps" at the cluster scope',
        ),
        # `resourceNames` does not cover a list without a selector for the name.
        ("GET", "api/v1/namespaces/serving/secrets", 'secrets is forbidden: User "…" cannot list'),
        ("GET", "api/v1/namespaces/serving/secrets/other", 'secrets "other" is forbidden'),
    ],
)
async def test_a_request_that_no_role_grants_is_refused(
    api: KubernetesAPI, stoker: tuple[Account, str], method: str, path: str, message: str
) -> None:
    """The answer is a Status with code 403 and reason Forbidden."""
    account, token = stoker
    answer = await ask(api, token, method, path, {})
    status = answer.json()
    assert (answer.status_code, status["kind"], status["reason"], status["code"]) == (403, "Status", "Forbidden", 403)
    assert message.replace("…", account.user) in status["message"]
    assert account.refused


async def test_a_removed_right_is_refused(api: KubernetesAPI, stoker: tuple[Account, str]) -> None:
    """Only the removed right is missing afterwards."""
    account, token = stoker
    (scale,) = (grant for grant in account.granted if grant.resource == "deployments/scale")
    account.take(scale)
    path = DEPLOYMENTS.format("serving")
    assert (await ask(api, token, "PATCH", path + "/a/scale", {})).status_code == 403
    assert (await ask(api, token, "GET", path)).status_code == 200
    assert scale not in account.granted
    assert {str(grant) for grant in account.used} == {"list deployments.apps in serving"}


async def test_an_access_review_shows_the_rights_of_the_account(
    api: KubernetesAPI, stoker: tuple[Account, str]
) -> None:
    """An access review is not a use of the right."""
    account, token = stoker

    async def may(token: str, **attributes: str) -> bool:
        path = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = (await ask(api, token, "POST", path, {"spec": {"resourceAttributes": attributes}})).json()
        return bool(answer["status"]["allowed"])

    scale = {"verb": "patch", "group": "apps", "resource": "deployments", "subresource": "scale"}
    assert await may(token, **scale, namespace="serving")
    assert not await may(token, **scale, namespace="litellm")
    assert not await may(token, verb="delete", group="apps", resource="deployments", namespace="serving")
    assert await may(api.token, verb="delete", group="apps", resource="deployments", namespace="serving")
    assert account.used == set()


async def test_the_administrator_may_do_everything_and_a_stranger_nothing(api: KubernetesAPI) -> None:
    """An unknown token gets a 401."""
    path = DEPLOYMENTS.format("litellm") + "/a"
    assert (await ask(api, api.token, "GET", path)).status_code == 200
    assert (await ask(api, "guessed", "GET", path)).status_code == 401
