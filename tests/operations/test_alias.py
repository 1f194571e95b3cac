"""`/model add … now`: an alias in LiteLLM's database exactly until its pull request is merged."""

import asyncio
from typing import Any

from bot.state.aliases import RuntimeAliases
from sandbox.objects import Object
from tests.operations.platform import Platform
from tests.operations.test_change import gateway

SERVED = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"


async def stored_models(platform: Platform) -> dict[str, dict[str, Any]]:
    """The models of LiteLLM's database, by alias."""
    models = (await gateway(platform, "GET", "/model/info"))["data"]
    return {model["model_name"]: model for model in models if model["model_info"]["db_model"]}


async def until_alias_is_removed(platform: Platform, alias: str) -> None:
    """Wait until the alias is no longer in LiteLLM's database: the next sweep removes it."""
    async with asyncio.timeout(platform.patience):
        while alias in await stored_models(platform):  # the other process's work cannot be awaited
            await asyncio.sleep(0.1)


async def test_an_alias_is_registered_until_the_request_ends(platform: Platform) -> None:
    """The alias points to the engine that serves the model, with the pull request's price and the operation's id."""
    await platform.say("lead", f"/model add assistant {SERVED} price-in=0.30 now")
    await platform.sees("Pull request #1", user="lead")
    alias = (await stored_models(platform))["assistant"]
    params = alias["litellm_params"]
    assert params["model"] == "openai/qwen2.5-coder-7b-instruct"
    assert params["api_base"] == "http://coder-chat.serving.svc.cluster.local:8000/v1"
    assert (params["input_cost_per_token"], params["output_cost_per_token"]) == (3e-07, 1.5e-06)
    assert alias["model_info"]["stoker_operation"]
    await platform.say("dev", "/model check")
    await platform.sees("No problems found in the main branch")
    assert not [text for text in platform.visible() if "runtime aliases" in text]
    await platform.click("lead", "Cancel")
    await platform.sees("Pull request #1 is closed", user="lead")
    await until_alias_is_removed(platform, "assistant")


async def test_the_configuration_is_used_after_the_merge(platform: Platform) -> None:
    await platform.say("lead", f"/model add assistant {SERVED} now")
    await platform.sees("Pull request #1", user="lead")
    await platform.github.checks("success")
    await platform.click("admin", "Approve & roll out")
    await platform.sees("assistant is rolled out", user="lead")
    await until_alias_is_removed(platform, "assistant")
    aliases = {model["id"] for model in (await gateway(platform, "GET", "/v1/models"))["data"]}
    assert "assistant" in aliases


async def test_an_alias_without_its_operation_is_removed_and_an_unknown_one_is_reported(platform: Platform) -> None:
    """An alias that a killed bot left, and that Redis has lost, is removed; other models do not change."""
    info = {"id": "stoker-0123456789", "stoker_operation": "0123456789"}
    params = {"model": "openai/x", "api_base": "http://coder-chat.serving.svc.cluster.local:8000/v1"}
    for alias, model_info in (("left", info), ("unknown", {})):
        model = {"model_name": alias, "litellm_params": params, "model_info": model_info}
        await gateway(platform, "POST", "/model/new", json=model)
    await RuntimeAliases(platform.redis).note("0123456789")
    await until_alias_is_removed(platform, "left")
    assert set(await stored_models(platform)) == {"unknown"}
    await platform.say("dev", "/model check")
    await platform.sees("LiteLLM has runtime aliases that are not in git: unknown")


async def test_a_gateway_without_a_model_database_is_refused(platform: Platform) -> None:
    """The message names the setting; no pull request is opened."""

    def off(config: Object) -> None:
        config["data"]["config"] = config["data"]["config"].replace("true", "false")

    platform.cluster.store.update("ConfigMap", "litellm-config", "litellm", off)
    await platform.say("lead", f"/model add assistant {SERVED} now")
    await platform.sees("set store_model_in_db: true", user="lead")
    assert not platform.pulls
