"""KEDA: a ScaledObject, or an HTTPScaledObject of its add-on. Source: keda.sh/docs/latest/reference/scaledobject-spec."""

from manifests.edit import find, line, value
from manifests.objects import objects
from manifests.pieces import Pieces
from manifests.platform import Platform

_KINDS = ("ScaledObject", "HTTPScaledObject")


class Keda:
    name = "KEDA"

    def place(self, platform: Platform, pieces: Pieces) -> str:
        names = {value(pieces.deployment.node, "metadata", "name"), pieces.workload} - {""}
        for path in platform.grep(*(f"kind: {kind}" for kind in _KINDS)):
            for kind, located in objects(platform, path):
                if kind in _KINDS and value(located.node, "spec", "scaleTargetRef", "name") in names:
                    return f"{path}:{line(find(located.node, 'spec', 'scaleTargetRef', 'name'))}"
        return ""


SCALER = Keda()
