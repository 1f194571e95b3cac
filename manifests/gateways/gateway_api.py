"""Kubernetes' Gateway API: an HTTPRoute selects a Service by host and path, independently of the model's name.

Source: gateway-api.sigs.k8s.io/api-types/httproute.
"""

from manifests.edit import find, items, line, value
from manifests.gateways import Route
from manifests.objects import of_kind
from manifests.snapshot import Snapshot


class GatewayAPI:
    name = "Gateway API"
    changes = False

    def routes(self, platform: Snapshot) -> tuple[Route, ...]:
        return tuple(
            Route("", value(backend, "name"), route.document.path, line(find(backend, "name")))
            for route in of_kind(platform, "HTTPRoute")
            for rule in items(find(route.node, "spec", "rules"))
            for backend in items(find(rule, "backendRefs"))
        )


GATEWAY = GatewayAPI()
