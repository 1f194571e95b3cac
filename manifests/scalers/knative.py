"""Knative Serving, which scales a Service to zero and back. Source: knative.dev/docs/serving/autoscaling."""

from manifests.edit import value
from manifests.pieces import Pieces
from manifests.platform import Platform


class Knative:
    name = "Knative"

    def place(self, platform: Platform, pieces: Pieces) -> str:
        is_own = value(pieces.deployment.node, "apiVersion").startswith("serving.knative.dev/")
        return pieces.deployment.document.path if is_own else ""


SCALER = Knative()
