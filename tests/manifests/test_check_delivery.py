"""Planted faults between tenant and model: LiteLLM's entries, ApplicationSets, groups, the gateway's Application."""

import pytest

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.tree import Files
from tests.manifests.faults import (
    APPLICATION,
    CHAT,
    CONFIG,
    GROUPS,
    VALUES,
    VECTORS,
    named_at_its_line,
    planted,
)

LITELLM = "clusters/ai-dev/catalog/llm-gateway-core/litellm.yaml"
SET = "clusters/ai-dev/appsets/serving.yaml"
HOST = "coder-chat.serving.svc.cluster.local:8000"

FAULTS = [
    ("served-name", VALUES, "model: openai/qwen2.5-coder-7b-instruct", "model: ollama/qwen2.5-coder-7b-instruct"),
    ("api-base-host", VALUES, HOST, "coder-chat.serving.scv.cluster.local:8000"),
    ("api-base-host", VALUES, HOST, "coder-chat.serving.svc.cluster.locale:8000"),
    ("schema", VALUES, "api_base: http://coder-chat", "api_bas: http://coder-chat"),
    ("schema", VALUES, "input_cost_per_token: 0.0000002", "input_cost_per_tokens: 0.0000002"),
    ("schema", VALUES, "- model_name: coder-fim", "- model_nam: coder-fim"),
    ("api-key-missing", VALUES, f"{HOST}/v1\n        api_key: os.environ/UPSTREAM", f"{HOST}/v1\n        api_key: os.environ/UPSTREM"),
    ("api-key-missing", VALUES, f"{HOST}/v1\n        api_key: os.environ/", f"{HOST}/v1\n        api_key: "),
    ("api-key-missing", VALUES, f"{HOST}/v1\n        api_key: os.environ/", f"{HOST}/v1\n        api_key: os.environ."),
    ("cost-order", VALUES, "input_cost_per_token: 0.0000002", "input_cost_per_token: 0.000002"),
    ("secret-in-git", VALUES, "master_key: os.environ/PROXY_MASTER_KEY", "master_key: sk-1234"),
    ("portal-alias", VALUES, "- model_name: coder-chat ", "- model_name: Coder-chat "),
    ("replicas", VECTORS, "  replicas: 1", "  replicas: 0"),
    ("gpu-limit", VECTORS, "text-embeddings-inference:cpu-", "text-embeddings-inference:"),
    ("staged-model", CHAT, "--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--model=qwen/Qwen2.5-Coder-7B-Instruct-AWQ"),
    ("staged-model", CHAT, "--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--model=Qwen2.5-Coder-7B-Instruct-AWQ"),
    ("application-revision", LITELLM, "targetRevision: main", "targetRevision: develop"),
    ("application-path", LITELLM, "ref: values", "ref: value"),
    ("application-path", LITELLM, "$values/platform/litellm/values.yaml", "$values/platform/litellm/value.yaml"),
    ("application-destination", APPLICATION, "https://kubernetes.default.svc", "https://10.0.0.1"),
    ("application-project", APPLICATION, "project: platform", "project: default"),
    ("application-revision", SET, "revision: main", "revision: develop"),
    ("group-path", SET, "path: clusters/ai-dev/groups.generated.yaml", "path: clusters/ai-dev/groups.yaml"),
    ("group-path", SET, 'enabled: "true"', 'enabled: "yes"'),
    ("group-stale", GROUPS, 'name: embeddings, layer: serving, enabled: "true"', "name: embeddings, layer: serving, enabled: true"),
    ("group-disabled", CONFIG, "coding-assistant: true", "coding-asistant: true"),
    ("group-disabled", CONFIG, "coding-assistant: true", 'coding-assistant: "true"'),
    ("yaml", VALUES, "    - model_name: coder-fim ", "<<<<<<< HEAD\n    - model_name: coder-fim "),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "old", "new"), FAULTS)
def test_a_fault_between_tenant_and_model_is_reported_at_its_line(
    platform: Files, layout: Layout, rule: str, path: str, old: str, new: str
) -> None:
    """The finding has the rule, the file and the line of the planted fault."""
    named_at_its_line(platform, layout, rule, path, old, new)


def test_an_entry_without_a_name_does_not_hide_others(platform: Files, layout: Layout) -> None:
    """The endpoints of the other entries keep their aliases."""
    findings = check(Platform(planted(platform, VALUES, "- model_name: coder-fim", "- model_nam: coder-fim"), layout))
    assert {finding.message for finding in findings if finding.rule == "endpoint-without-alias"} == {
        f"{VALUES} has no alias for coder-fim: tenants cannot reach it"
    }


@pytest.mark.parametrize(
    ("mode", "rules"), [("embedding", set()), ("chat", {"mode"}), ("completion", {"mode"}), ("rerank", {"served-name"})]
)
def test_the_mode_of_litellms_health_check_matches_the_engine(
    platform: Files, layout: Layout, mode: str, rules: set[str]
) -> None:
    """If the mode is `rerank`, the entry also needs a provider that reranks."""
    last = "        input_cost_per_token: 0.0000001                  # a CPU costs money as well\n"
    tree = planted(platform, VALUES, last, f"{last}      model_info:\n        mode: {mode}\n")
    assert {finding.rule for finding in check(Platform(tree, layout))} == rules


def test_a_group_that_no_application_set_selects_is_reported(platform: Files, layout: Layout) -> None:
    """If the ApplicationSets of the repository select another label, the group must have that label."""
    tree = planted(platform, SET, '          enabled: "true"', '          enabled: "true"\n          layer: serving')
    assert check(Platform(tree, layout)) == ()
    tree = planted(tree, GROUPS, "name: coding-assistant, layer: serving", "name: coding-assistant, layer: platform")
    (finding,) = check(Platform(tree, layout))
    assert (finding.rule, finding.path, finding.fix) == ("group-path", GROUPS, "layer: serving")


def test_a_duplicate_group_is_reported(platform: Files, layout: Layout) -> None:
    line = next(line for line in (platform.read(GROUPS) or "").splitlines() if "name: embeddings" in line)
    (finding,) = check(Platform(planted(platform, GROUPS, f"{line}\n", f"{line}\n{line}\n"), layout))
    assert (finding.rule, finding.path) == ("group-stale", GROUPS)
