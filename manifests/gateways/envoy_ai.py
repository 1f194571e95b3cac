"""Envoy AI Gateway: an AIGatewayRoute selects a backend by a header with the model's name.

Source: aigateway.envoyproxy.io/docs/api (AIGatewayRoute).
"""

from manifests.edit import find, items, line, value
from manifests.gateways import Route
from manifests.objects import of_kind
from manifests.snapshot import Snapshot

_MODEL = "x-ai-eg-model"


class EnvoyAI:
    name = "Envoy AI Gateway"
    changes = False

    def routes(self, platform: Snapshot) -> tuple[Route, ...]:
        return tuple(
            Route(value(header, "value"), value(backend, "name"), route.document.path, line(find(header, "value")))
            for route in of_kind(platform, "AIGatewayRoute")
            for rule in items(find(route.node, "spec", "rules"))
            for match in items(find(rule, "matches"))
            for header in items(find(match, "headers"))
            if value(header, "name").lower() == _MODEL
            for backend in items(find(rule, "backendRefs"))
        )


GATEWAY = EnvoyAI()
