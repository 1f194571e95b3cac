"""Every system that scales a model instead of Stoker fulfils the same contract, and needs one example here."""

import pytest

from manifests.layout import Layout
from manifests.platform import Platform
from manifests.replicas import scaled_by
from manifests.scalers import Scaler, scalers
from manifests.tree import Files

POD = "{containers: [{name: engine, image: 'vllm/vllm-openai:v0.11.0', args: [--model=someone/Chat-3B]}]}"
DEPLOYMENT = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: chat}}\nspec: {{replicas: 0, template: {{spec: {POD}}}}}\n"
EXAMPLES = {
    "KEDA": {
        "apps/chat.yaml": DEPLOYMENT,
        "apps/scaler.yaml": "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: chat}\n"
        "spec: {scaleTargetRef: {name: chat}}\n",
    },
    "KubeAI": {
        "apps/chat.yaml": "apiVersion: kubeai.org/v1\nkind: Model\nmetadata: {name: chat}\n"
        "spec: {engine: VLLM, url: 'hf://someone/Chat-3B', resourceProfile: 'nvidia-gpu-l4:1', minReplicas: 1}\n",
    },
    "Knative": {
        "apps/chat.yaml": DEPLOYMENT.replace("apps/v1", "serving.knative.dev/v1"),
    },
    "KServe's autoscaler": {
        "apps/chat.yaml": "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n  name: chat\n"
        "  annotations: {serving.kserve.io/deploymentMode: Serverless}\n"
        f"spec: {{predictor: {POD}}}\n",
    },
}
"""For each scaler, a repository in which it scales the endpoint `chat`."""
ALL = [pytest.param(scaler, id=scaler.name) for scaler in scalers()]


def open_platform(scaler: Scaler) -> Platform:
    assert scaler.name in EXAMPLES, f"add a repository with {scaler.name} to EXAMPLES"
    return Platform(Files(EXAMPLES[scaler.name]), Layout())


@pytest.mark.parametrize("scaler", ALL)
def test_its_model_is_not_started_by_stoker(scaler: Scaler) -> None:
    """The reason of the refusal contains the scaler's name and its place in the repository."""
    platform = open_platform(scaler)
    place = scaler.place(platform, platform.require("chat"))
    assert place.partition(":")[0] in EXAMPLES[scaler.name]
    assert scaled_by(platform, "chat") == f"{scaler.name} ({place})"


@pytest.mark.parametrize("scaler", ALL)
def test_it_does_not_affect_other_models(scaler: Scaler) -> None:
    for other_scaler in scalers():
        platform = open_platform(other_scaler)
        assert bool(scaler.place(platform, platform.require("chat"))) == (other_scaler is scaler)
    alone = Platform(Files({"apps/chat.yaml": DEPLOYMENT}), Layout())
    assert scaler.place(alone, alone.require("chat")) == ""
    assert scaled_by(alone, "chat") == ""
