"""The smoke tests' expectations of an engine and its gateway, according to the manifests."""

from tests.operations.platform import Platform
from tests.operations.steps import bring_up, push_change, replicas

DEPLOYMENT = "serving/coder-chat/deployment.yaml"
VALUES = "platform/litellm/values.yaml"


async def test_an_engine_without_a_key_is_reported_and_kept_up(platform: Platform) -> None:
    """The engine answers everybody in the cluster, which a smoke test reports only as a warning."""
    await push_change(platform, "main", DEPLOYMENT, "- name: VLLM_API_KEY", "- name: UNUSED_API_KEY")
    await bring_up(platform)
    await platform.sees("the engine has no API key")
    assert replicas(platform, "coder-chat") == 1


async def test_every_served_name_is_listed(platform: Platform) -> None:
    """The flag has two names, and the engine lists both."""
    old = "            - --served-model-name=qwen2.5-coder-7b-instruct"
    new = "            - --served-model-name\n            - qwen2.5-coder-7b-instruct\n            - coder"
    await push_change(platform, "main", DEPLOYMENT, old, new)
    await bring_up(platform)
    await platform.sees("qwen2.5-coder-7b-instruct, coder")


async def test_a_model_that_is_free_on_purpose_passes(platform: Platform) -> None:
    """Both prices are explicit and zero."""
    for price in ("input_cost_per_token: 0.0000005", "output_cost_per_token: 0.0000015"):
        await push_change(platform, "main", VALUES, price, f"{price.partition(':')[0]}: 0")
    await bring_up(platform)
    await platform.sees("cost $0.0000000")
