"""Compares the stand-in and the adapter with a real vLLM process, if there is one.

STOKER_TEST_VLLM is its address, and STOKER_TEST_VLLM_KEY the `VLLM_API_KEY` that it was started with. Any small chat
model works; on a machine without a GPU, vLLM's CPU build serves one of a few megabytes.
"""

import os
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from bot.clients.vllm import VLLM
from bot.errors import BotError

URL, KEY = os.environ.get("STOKER_TEST_VLLM", ""), SecretStr(os.environ.get("STOKER_TEST_VLLM_KEY", ""))
pytestmark = [
    pytest.mark.skipif(not URL, reason="STOKER_TEST_VLLM names no running vLLM"),
    pytest.mark.timeout(300),
]


@pytest.fixture
async def vllm() -> AsyncIterator[VLLM]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        yield VLLM(http, URL)


async def served(vllm: VLLM) -> str:
    (name,) = await vllm.models(URL, KEY)
    return name


async def test_vllm_is_healthy_and_lists_its_model(vllm: VLLM) -> None:
    assert await vllm.health(URL)
    assert await served(vllm)


async def test_vllm_refuses_a_request_without_a_key(vllm: VLLM) -> None:
    assert await vllm.refuses_keyless(URL)


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_vllm_answers_and_is_timed(vllm: VLLM, kind: str) -> None:
    """Tokens and the time to the first token are measured, and at temperature 0 the answer is the same each time."""
    name = await served(vllm)
    first, second = [await vllm.ask(URL, KEY, name, "chat" if kind == "chat" else "completion") for _ in range(2)]
    assert first.text == second.text
    assert first.prompt_tokens > 0
    assert first.completion_tokens > 0
    assert first.first_token_seconds is not None
    assert 0 < first.first_token_seconds <= first.seconds


async def test_only_completions_change_the_metrics_of_vllm(vllm: VLLM) -> None:
    """Reading the metrics does not count as use; an answer is one request and its tokens."""
    name = await served(vllm)
    await vllm.ask(URL, KEY, name, "completion")  # a counter appears with its first request
    before = await vllm.activity(URL)
    await vllm.models(URL, KEY)
    await vllm.health(URL)
    assert await vllm.activity(URL) == before
    answer = await vllm.ask(URL, KEY, name, "completion")
    after = await vllm.activity(URL)
    assert after.requests == before.requests + 1
    assert after.tokens == before.tokens + answer.prompt_tokens + answer.completion_tokens
    assert (after.running, after.waiting) == (0, 0)


async def test_refusals_have_the_messages_of_vllm(vllm: VLLM) -> None:
    """An unknown served name and a wrong key are refused."""
    with pytest.raises(BotError, match="does not exist"):
        await vllm.ask(URL, KEY, "another-model", "chat")
    with pytest.raises(BotError, match="Unauthorized"):
        await vllm.models(URL, SecretStr("wrong"))
