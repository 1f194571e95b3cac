"""KServe's autoscalers: Knative, KEDA, and `spec.scaling` of an LLMInferenceService. Source: kserve.github.io/website/docs.

In other cases Stoker starts and stops the endpoint: KServe ignores the replicas of a Deployment with a
HorizontalPodAutoscaler, and takes the replicas of an LLMInferenceService from git.
"""

import re

from manifests.edit import find, line, value
from manifests.pieces import Pieces
from manifests.platform import Platform

_IN_KNATIVE = re.compile(
    r"""^[^#]*(?:defaultDeploymentMode["']?|^\s*deploymentMode)\s*:\s*["']?(?:Serverless|Knative)\b"""
)
"""A line of the ConfigMap `inferenceservice-config`, or of the values of KServe's chart."""
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
        is_own = value(node, "metadata", "annotations", f"{_PREFIX}deploymentMode")
        is_service = "InferenceService" in (pieces.form, pieces.candidate.operated_kind)
        return _knative_by_default(platform) if is_service and not is_own else ""


def _knative_by_default(platform: Platform) -> str:
    """The place in KServe's configuration that makes Knative the default, as `FILE:LINE`; "" if there is none."""
    for path in sorted(platform.grep("eploymentMode")):
        for number, text in enumerate((platform.read(path) or "").splitlines(), 1):
            if _IN_KNATIVE.search(text):
                return f"{path}:{number}"
    return ""


SCALER = KServe()
