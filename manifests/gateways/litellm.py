"""LiteLLM as a gateway: its routes are the entries of its lists of models (`manifests.gateway`)."""

from manifests.edit import line, scalar
from manifests.gateway import model_list
from manifests.gateways import Route
from manifests.snapshot import Snapshot


class LiteLLM:
    name = "LiteLLM"
    changes = True

    def routes(self, platform: Snapshot) -> tuple[Route, ...]:
        return tuple(
            Route(entry.alias, entry.host[0], entry.document.path, line(scalar(entry.node, "model_name") or entry.node))
            for entry in model_list(platform)
        )


GATEWAY = LiteLLM()
