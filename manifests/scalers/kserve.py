"""KServe's controller, which owns the Deployments of its services. Source: kserve.github.io/website/docs."""

from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.sources import kserve


class KServe:
    name = "KServe's controller"

    def place(self, platform: Platform, pieces: Pieces) -> str:
        return pieces.deployment.document.path if pieces.form in kserve.SOURCE.kinds else ""


SCALER = KServe()
