"""KServe's autoscalers: Knative, KEDA, and the one of an LLMInferenceService. Source: kserve.github.io/website/docs.

Otherwise Stoker switches a service: KServe ignores the replicas of a Deployment with a HorizontalPodAutoscaler, and
takes those of an LLMInferenceService from git.
"""

from manifests.edit import find, line, value
from manifests.pieces import Pieces
from manifests.platform import Platform

_PREFIX = "serving.kserve.io/"
_BY_OTHERS = (("deploymentMode", ("Serverless", "Knative", "ModelMesh")), ("autoscalerClass", ("keda", "kpa")))


class KServe:
    name = "KServe's autoscaler"

    def place(self, platform: Platform, pieces: Pieces) -> str:
        node, path = pieces.deployment.node, pieces.deployment.document.path
        if pieces.form == "LLMInferenceService" and (scaling := find(node, "spec", "scaling")) is not None:
            return f"{path}:{line(scaling)}"
        for key, values in _BY_OTHERS if pieces.form == "InferenceService" else ():
            place = find(node, "metadata", "annotations", f"{_PREFIX}{key}")
            if value(node, "metadata", "annotations", f"{_PREFIX}{key}") in values and place is not None:
                return f"{path}:{line(place)}"
        return ""


SCALER = KServe()
