"""The sandbox's Hugging Face answers like the Hub."""

from collections.abc import AsyncIterator

import httpx
import pytest

from sandbox.faults import Faults
from sandbox.huggingface import Hub

TOKEN = {"Authorization": "Bearer hf_x"}


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def hub(faults: Faults) -> AsyncIterator[httpx.AsyncClient]:
    async with Hub(faults) as hub, httpx.AsyncClient(base_url=hub.url) as client:
        yield client


async def test_a_model_has_the_figures_that_sizing_needs(hub: httpx.AsyncClient) -> None:
    """The 7B AWQ model has 5.6 GB of weights, 28 layers, and 4 KV heads of 128."""
    info = (await hub.get("/api/models/Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", params={"blobs": "true"})).json()
    weights = [file["size"] for file in info["siblings"] if file["rfilename"].endswith(".safetensors")]
    assert len(weights) == 2
    assert sum(weights) == pytest.approx(5.57e9, rel=0.01)
    config = (await hub.get(f"/{info['id']}/resolve/{info['sha']}/config.json")).json()
    assert (config["num_hidden_layers"], config["num_key_value_heads"]) == (28, 4)
    assert config["hidden_size"] // config["num_attention_heads"] == 128
    assert config["quantization_config"]["quant_method"] == "awq"


async def test_sizes_are_returned_only_on_request(hub: httpx.AsyncClient) -> None:
    """Without blobs=true the files have no size."""
    info = (await hub.get("/api/models/BAAI/bge-base-en-v1.5")).json()
    assert all("size" not in file for file in info["siblings"])
    assert info["cardData"]["license"] == "mit"


async def test_only_models_for_chat_have_a_chat_template(hub: httpx.AsyncClient) -> None:
    """The embedding model's tokenizer has no chat template."""
    chat = (await hub.get("/Qwen/Qwen2.5-Coder-3B-Instruct/resolve/main/tokenizer_config.json")).json()
    embedding = (await hub.get("/BAAI/bge-small-en-v1.5/resolve/main/tokenizer_config.json")).json()
    assert "chat_template" in chat
    assert "chat_template" not in embedding


async def test_an_unknown_model_looks_private_to_a_stranger(hub: httpx.AsyncClient) -> None:
    """The status is 401 without a token, and 404 with one."""
    stranger = await hub.get("/api/models/acme/nothing")
    assert (stranger.status_code, stranger.json()) == (401, {"error": "Invalid username or password."})
    with_token = await hub.get("/api/models/acme/nothing", headers=TOKEN)
    assert (with_token.status_code, with_token.json()) == (404, {"error": "Repository not found"})


async def test_a_gated_model_shows_itself_but_not_its_files(hub: httpx.AsyncClient) -> None:
    """Its page is public; its files require an accepted licence."""
    response = await hub.get("/api/models/meta-llama/Llama-3.1-8B-Instruct")
    assert response.json()["gated"] == "manual"
    path = "/meta-llama/Llama-3.1-8B-Instruct/resolve/main/config.json"
    assert (await hub.get(path)).status_code == 401
    refused = await hub.get(path, headers=TOKEN)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (403, "GatedRepo")


async def test_a_missing_file_is_an_entry_not_found(hub: httpx.AsyncClient) -> None:
    """The repository exists, but the file does not."""
    response = await hub.get("/Qwen/Qwen2.5-Coder-7B/resolve/main/chat_template.jinja")
    assert (response.status_code, response.json()["error"]) == (404, "Entry not found")


async def test_search_finds_by_a_part_of_the_id(hub: httpx.AsyncClient) -> None:
    """The search ignores upper and lower case."""
    results = (await hub.get("/api/models", params={"search": "coder-3b"})).json()
    assert [model["id"] for model in results] == [
        "Qwen/Qwen2.5-Coder-3B",
        "Qwen/Qwen2.5-Coder-3B-Instruct",
        "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ",
    ]


async def test_the_fault_hf_429_can_be_switched_on_and_off(hub: httpx.AsyncClient, faults: Faults) -> None:
    """While it is on, every answer is 429."""
    faults.add("hf-429")
    assert (await hub.get("/api/models/Qwen/Qwen2.5-Coder-7B")).status_code == 429
    faults.discard("hf-429")
    assert (await hub.get("/api/models/Qwen/Qwen2.5-Coder-7B")).status_code == 200
