"""Every gateway fulfils the same contract; a new gateway needs one example here: a file with a route to a model."""

import textwrap

import pytest

from manifests.gateways import Gateway, gateways
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.sizing import Machine
from manifests.survey import survey
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Files, ManifestError
from tests.manifests.test_recipes import facts

ENDPOINT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec:
  replicas: 0
  selector: {matchLabels: {app: chat}}
  template:
    metadata: {labels: {app: chat}}
    spec:
      containers:
        - name: engine
          image: vllm/vllm-openai:v0.11.0
          args: [--model=someone/Old-3B, --served-model-name=old-3b]
---
apiVersion: v1
kind: Service
metadata: {name: chat}
spec:
  selector: {app: chat}
  ports: [{port: 8000}]
"""
LITELLM = "model_list:\n" + textwrap.indent(
    "- model_name: chat\n  litellm_params:\n    model: openai/old-3b\n    api_base: http://chat.llm.svc:8000/v1\n", "  "
)
AI_ROUTE = """\
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: models}
spec:
  rules:
    - matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: old-3b}]}]
      backendRefs: [{name: chat}]
"""
HTTP_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  rules:
    - matches: [{path: {type: PathPrefix, value: /chat}}]
      backendRefs: [{name: chat, port: 8000}]
"""
EXAMPLES = {
    "LiteLLM": (LITELLM, "chat", 2),
    "Envoy AI Gateway": (AI_ROUTE, "old-3b", 6),
    "Gateway API": (HTTP_ROUTE, "", 7),
}
"""For each gateway, a file with a route to the endpoint, the alias in the route, and the line of the route."""
ALL = [pytest.param(gateway, id=gateway.name) for gateway in gateways()]


def open_platform(gateway: Gateway) -> Platform:
    assert gateway.name in EXAMPLES, f"add a route of {gateway.name} to EXAMPLES"
    return Platform(Files({"apps/chat.yaml": ENDPOINT, "gateway/routes.yaml": EXAMPLES[gateway.name][0]}), Layout())


@pytest.mark.parametrize("gateway", ALL)
def test_its_routes_are_found_with_file_and_line(gateway: Gateway) -> None:
    _, alias, line = EXAMPLES[gateway.name]
    ((name, target, path, at),) = gateway.routes(open_platform(gateway))
    assert (name, target, path, at) == (alias, "chat", "gateway/routes.yaml", line)


@pytest.mark.parametrize("gateway", ALL)
def test_a_repository_without_it_has_no_routes(gateway: Gateway) -> None:
    """The repository is empty, or has another gateway."""
    assert gateway.routes(Platform(Files({}), Layout())) == ()
    for other_gateway in gateways():
        assert bool(gateway.routes(open_platform(other_gateway))) == (other_gateway is gateway)


@pytest.mark.parametrize("gateway", ALL)
def test_a_change_of_a_name_follows_its_routes_or_is_refused(gateway: Gateway) -> None:
    """A change never breaks a route: it changes the route, or is refused with the route's place."""
    platform = open_platform(gateway)
    request = SwapRequest(name="chat", facts=facts("vLLM"), served_name="new-3b")
    names_it = "old-3b" in EXAMPLES[gateway.name][0]
    if gateway.changes or not names_it:
        changed = plan_swap(platform, request, Machine()).changes.files
        assert ("gateway/routes.yaml" in changed) == names_it
        assert "old-3b" not in (changed.get("gateway/routes.yaml") or "")
    else:
        with pytest.raises(ManifestError, match=r"gateway/routes\.yaml"):
            plan_swap(platform, request, Machine())


@pytest.mark.parametrize("gateway", ALL)
def test_stoker_init_reports_the_gateway(gateway: Gateway) -> None:
    """LiteLLM is reported with its files, and another gateway with its routes to endpoints."""
    surveyed = survey(open_platform(gateway))
    assert surveyed.gateways == (("gateway/routes.yaml",) if gateway.changes else ())
    assert [(name, route.path) for name, route in surveyed.routes] == (
        [] if gateway.changes else [(gateway.name, "gateway/routes.yaml")]
    )
