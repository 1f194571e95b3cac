"""KubeAI, which starts and stops the pods of a `Model` itself, and starts the first pod when a request arrives.

It creates pods without a Deployment, so no object can carry a lease. Source: kubeai.org/concepts/autoscaling.
"""

from manifests.edit import find, line, value
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sources.operators import KUBEAI


class KubeAI:
    name = "KubeAI"

    def place(self, platform: Platform, pieces: Pieces) -> str:
        node, path = pieces.deployment.node, pieces.deployment.document.path
        is_own = value(node, "apiVersion").startswith(KUBEAI)
        return f"{path}:{line(find(node, 'spec', 'minReplicas') or node)}" if is_own else ""


SCALER = KubeAI()
