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
            Route(each.alias, each.host[0], each.document.path, line(scalar(each.node, "model_name") or each.node))
            for each in model_list(platform)
        )


GATEWAY = LiteLLM()
