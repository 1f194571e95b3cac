"""The bot's rights in the cluster are declared once, and no other request is sent."""

import re
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients.kube import Collection, Kube, Selection
from bot.clients.rights import ENGINE_KEY, GATEWAY_DEPLOYMENTS, PODS, Right, UndeclaredRight, chart, rights, roles
from bot.settings.config import Config
from tests.clients.kube import Wire, connected

ROOT = Path(__file__).parents[2]
MEASURING = Config.model_validate({"bench": {"image": f"registry.example/guidellm@sha256:{'5a' * 32}"}})


async def test_an_undeclared_request_is_not_sent() -> None:
    """It raises before anything is sent, and the error names the file for the declaration."""
    async with Wire() as wire, connected(wire) as api:
        kube = Kube(api)
        with pytest.raises(
            UndeclaredRight,
            match=r"patch deployments in the namespace that `litellm.namespace` names.*bot/clients/rights.py.*make docs",
        ):
            await kube.patch(Collection(GATEWAY_DEPLOYMENTS, "litellm"), "litellm", {})
        with pytest.raises(UndeclaredRight, match="get pods in"):
            await kube.get(Collection(PODS, "serving"), "coder-chat-1")
        with pytest.raises(UndeclaredRight, match="list secrets"):
            await kube.list(Selection(Collection(ENGINE_KEY, "serving")))
        with pytest.raises(UndeclaredRight, match="patch deployments/scale"):
            await kube.patch(Collection(GATEWAY_DEPLOYMENTS, "litellm"), "litellm", {}, subresource="scale")
        assert wire.requests == []


def test_only_one_module_sends_requests_to_kubernetes() -> None:
    """Only `bot.clients.kube` uses the library's client, so no request bypasses the declarations."""
    sending = re.compile(
        r"\b(param_serialize|call_api|CoreV1Api|AppsV1Api|BatchV1Api|CustomObjectsApi|DynamicClient)\b"
    )
    files = [path for package in ("bot", "commands") for path in (ROOT / package).rglob("*.py")]
    assert files
    assert {str(path.relative_to(ROOT)) for path in files if sending.search(path.read_text("utf-8"))} == {
        "bot/clients/kube.py"
    }
    assert hasattr(ApiClient, "param_serialize"), "the library's method has another name now: search for that one"


def test_the_charts_file_is_written_from_the_declarations() -> None:
    """The file is the output of `make docs`."""
    assert (ROOT / "helm/stoker/files/rights.yaml").read_text("utf-8") == chart()


def test_a_roll_out_may_wait_for_the_gateways_pods() -> None:
    """`/model add` and `swap` read LiteLLM's Deployment after the merge."""
    granted = rights(Config())
    for verb in ("get", "list", "watch"):
        assert Right(verb, "deployments", "apps", "litellm") in granted


def test_a_feature_that_is_off_needs_no_right() -> None:
    """Jobs are created only for benchmarks, and only with a configured image."""
    assert not any(right.resource == "jobs" for right in rights(Config()))
    assert {right.verb for right in rights(MEASURING) if right.resource == "jobs"} == {
        "list",
        "watch",
        "create",
        "delete",
    }


def test_the_printed_roles_grant_exactly_the_rights() -> None:
    """`stoker rights` is for installations without the chart."""
    granted = {
        (verb, resource, group, role["metadata"].get("namespace"), name)
        for role in roles(MEASURING)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted == {(r.verb, r.resource, r.group, r.namespace, r.name) for r in rights(MEASURING)}
