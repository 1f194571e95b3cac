"""Planted faults: each is named with its file and its line, and a sound repository with nothing."""

import pytest

from manifests.contract import Layout, check
from manifests.tree import Files, ManifestError

DEPLOYMENT = "serving/coder-chat/deployment.yaml"
SERVICE = "serving/coder-chat/service.yaml"
PVC = "serving/coder-chat/pvc.yaml"
APPLICATION = "clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml"
VALUES = "platform/litellm/values.yaml"
WAIT = "scripts/wait-profile.sh"

FAULTS = [
    (DEPLOYMENT, 'model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', 'model = "Qwen/Qwen2.5-Coder-3B"', "stages"),
    (DEPLOYMENT, "--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--model=Qwen/Other-AWQ", "stages"),
    (DEPLOYMENT, "--served-model-name=qwen2.5-coder-7b-instruct", "--served-model-name=qwen", "answers to qwen"),
    (DEPLOYMENT, "--quantization=awq_marlin", "--quantization=gptq_marlin", "is awq"),
    (DEPLOYMENT, "claimName: coder-chat-model-cache", "claimName: coder-chat-cache", "coder-chat-cache"),
    (DEPLOYMENT, "  replicas: 0", "  replicas: 1", "zero replicas"),
    (DEPLOYMENT, "type: Recreate", "type: RollingUpdate", "rolling update"),
    (DEPLOYMENT, "HF_HUB_OFFLINE", "HF_HUB_ONLINE", "HF_HUB_OFFLINE is missing"),
    (DEPLOYMENT, "TRANSFORMERS_OFFLINE", "TRANSFORMERS_ONLINE", "TRANSFORMERS_OFFLINE is missing"),
    (DEPLOYMENT, "matchLabels:\n      app.kubernetes.io/name: coder-chat", "matchLabels:\n      app: x", "selector"),
    (SERVICE, "selector:\n    app.kubernetes.io/name: coder-chat", "selector:\n    app: coder", "selector"),
    (SERVICE, "port: 8000", "port: 8080", "the Service has 8080"),
    (PVC, "name: coder-chat-model-cache", "name: chat-model-cache", "coder-chat-model-cache"),
    (APPLICATION, "path: serving/coder-chat", "path: serving/coder-fim", "deploys serving/coder-fim"),
    (APPLICATION, "metadata:\n  name: coder-chat", "metadata:\n  name: chat", "another name"),
    (APPLICATION, "name: coder-chat\n      namespace: serving", "name: x\n      namespace: serving", "is drift"),
    (APPLICATION, "      - RespectIgnoreDifferences=true\n", "", "RespectIgnoreDifferences"),
    (APPLICATION, "  syncPolicy:\n", "  syncPolicy:\n    automated: {}\n", "cost gate"),
    (VALUES, "model: openai/qwen2.5-coder-7b-instruct", "model: openai/qwen2.5-coder-3b", "asks for"),
    (VALUES, "coder-chat.serving.svc.cluster.local:8000", "coder-chat.serving.svc.cluster.local:80", "port 80"),
    (VALUES, "http://coder-chat.serving", "http://coder-chta.serving", "coder-chta"),
    (VALUES, "input_cost_per_token: 0.0000005", "input_cost_per_token: 5e-07", "not a number"),
    (VALUES, "        output_cost_per_token: 0.0000015\n", "", "no output_cost_per_token"),
    (VALUES, "model_name: coder-fim", "model_name: coder-chat", "2 times"),
    (WAIT, 'manual_apps="coder-chat coder-fim"', 'manual_apps="coder-fim"', "lacks coder-chat"),
    (WAIT, 'manual_apps="coder-chat coder-fim"', 'manual_apps="coder-chat coder-fim embeddings"', "by itself"),
]


def test_a_sound_platform_has_no_findings(platform: Files, layout: Layout) -> None:
    """A check that cries wolf is switched off."""
    assert check(platform, layout) == ()


@pytest.mark.parametrize(("path", "old", "new", "says"), FAULTS)
def test_a_planted_fault_is_named(platform: Files, layout: Layout, path: str, old: str, new: str, says: str) -> None:
    """One of the findings says what is wrong, in a file and on a line that exist."""
    files = {each: platform.read(each) or "" for each in platform.files("")}
    assert old in files[path]
    files[path] = files[path].replace(old, new, 1)
    found = check(Files(files), layout)
    named = [each for each in found if says in each.message]
    assert named, found
    assert all(0 < each.line <= files[each.path].count("\n") for each in found)


def test_the_line_is_the_line_of_the_fault(platform: Files, layout: Layout) -> None:
    """Also inside the literal block of the initContainer."""
    files = {each: platform.read(each) or "" for each in platform.files("")}
    stale = '              model = "Qwen/Stale"'
    files[DEPLOYMENT] = files[DEPLOYMENT].replace('              model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', stale)
    (finding,) = check(Files(files), layout)
    assert files[DEPLOYMENT].splitlines()[finding.line - 1] == stale
    assert finding.fix == "stage Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"


def test_one_endpoint_can_be_checked_alone(platform: Files, layout: Layout) -> None:
    """A fault in another endpoint is not its own; an unknown name is an error, not silence."""
    files = {each: platform.read(each) or "" for each in platform.files("")}
    files[DEPLOYMENT] = files[DEPLOYMENT].replace("  replicas: 0", "  replicas: 1")
    assert check(Files(files), layout, "coder-fim") == ()
    assert len(check(Files(files), layout, "coder-chat")) == 1
    with pytest.raises(ManifestError, match="no endpoint 'nobody'"):
        check(platform, layout, "nobody")
