"""59 real repositories, served in the Hub's format: Stoker's result for each, compared with the true figures.

`real_models.json` contains only facts: each repository's listing, its configuration, and in `truth` the figures with
their source. Every deviation is one row of the failure's message.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot.clients.huggingface import HuggingFace
from manifests.sizing import Machine, ModelFacts, Sizing, kv_bytes_per_token, size
from manifests.sizing.flags import KERNELS, flags_for, on_cpu
from manifests.sizing.licence import terms
from tests.clients.wire import Wire, client, wire

Json = dict[str, Any]

MODELS: tuple[Json, ...] = tuple(json.loads(Path(__file__).with_name("real_models.json").read_text()))
BY_ID = {model["hf_id"]: model for model in MODELS}

PIXTRAL = {
    "dim": 5120,
    "n_layers": 40,
    "head_dim": 128,
    "n_heads": 32,
    "n_kv_heads": 8,
    "vision_encoder": {"dim": 1024},
}
"""The content of its params.json; the listing contains no config.json."""
FP8_CACHE = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}


def publish(hub: Wire, model: Json) -> None:
    """Publish one repository with its listed small files."""
    hf_id = model["hf_id"]
    card = {"license": model["licence"]} | ({"license_name": model["licence_name"]} if model["licence_name"] else {})
    info = {
        "id": model["redirect_to"] or hf_id,
        "sha": "0" * 40,
        "gated": model["gated"],
        "pipeline_tag": model["pipeline_tag"],
        "library_name": model["library_name"],
        "tags": model["tags"],
        "cardData": card,
        "siblings": [{"rfilename": name, "size": size} for name, size in model["files"].items()],
    }
    template = {"chat_template": "{{ messages }}"} if model["chat_template"] == "tokenizer_config" else {}
    files = {
        "config.json": model["config"],
        "tokenizer_config.json": {"model_max_length": 1, **template},
        "params.json": PIXTRAL,
        "hf_quant_config.json": FP8_CACHE,
    }
    hub.on("GET", f"/api/models/{hf_id}", info)
    for name, text in files.items():
        if name in model["files"] and text is not None:
            hub.on("GET", f"/{hf_id}/resolve/main/{name}", text)


@pytest.fixture
async def hub() -> AsyncIterator[HuggingFace]:
    async with wire() as server, client() as http:
        for model in MODELS:
            publish(server, model)
        base = {**BY_ID["Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"]["config"], "quantization_config": None}
        server.on("GET", "/Qwen/Qwen2.5-Coder-14B-Instruct/resolve/main/config.json", base)
        yield HuggingFace(http, server.url, lambda: None)


def deviations(facts: ModelFacts, sizing: Sizing, truth: Json) -> list[str]:
    """The problems of one model, one phrase each."""
    problems = []
    refused, fits = sizing.verdict == "does not fit", truth["verdict_l4_16gb_host"] in ("fits", "tight")
    if facts.kind != truth["kind"]:
        problems.append(f"kind {facts.kind}, not {truth['kind']}")
    if facts.repo_bytes != truth["repo_bytes"]:
        problems.append(f"repository {facts.repo_bytes}, not {truth['repo_bytes']}")
    if facts.weight_bytes != pytest.approx(truth["weights_bytes"], rel=0.001):
        problems.append(f"weights {facts.weight_bytes}, not {truth['weights_bytes']}")
    if facts.staged != pytest.approx(truth["weights_bytes"], rel=0.05) and not facts.unservable:
        problems.append(f"staged {facts.staged}, weights {truth['weights_bytes']}")
    if kv_bytes_per_token(facts) != pytest.approx(truth["kv_bytes_per_token"], rel=0.01):
        problems.append(f"cache {kv_bytes_per_token(facts)}, not {truth['kv_bytes_per_token']}")
    if refused and fits:
        problems.append(f"refused: {sizing.reasons}")
    largest = truth["largest_context_l4"]
    if not refused and largest is not None and sizing.context > largest:
        problems.append(f"context {sizing.context}, {largest} at most")
    if not refused and largest and not facts.pools and sizing.largest_context > largest:
        problems.append(f"largest context {sizing.largest_context}, {largest} at most")
    flags = flags_for(facts, (0, 23)).all
    missing = [flag for flag in (*truth["flags_needed"], *truth["flags_wanted"]) if not " ".join(flags).count(flag)]
    if missing:
        problems.append(f"missing {missing}")
    kernel = KERNELS.get(facts.quantization or "", "(none needed)")
    if kernel != truth["quantization_flag"]:
        problems.append(f"quantization {kernel}, not {truth['quantization_flag']}")
    if any("does not allow commercial use" in term for term in terms(facts)) == truth["commercial_use"]:
        problems.append(f"licence {facts.licence}")
    if facts.multimodal != truth["multimodal"]:
        problems.append(f"multimodal {facts.multimodal}")
    return problems


async def test_each_real_model_is_described_correctly(hub: HuggingFace) -> None:
    """Kind, bytes, cache, flags and licence of all 59 are right; on an L4, exactly the contexts that fit are offered."""
    rows = []
    for hf_id, model in BY_ID.items():
        facts = await hub.model(hf_id)
        for longest in (None, 8192, 16384, 32768, 131072):
            sizing = size(facts, Machine(), longest_wanted=longest, gpu=not on_cpu(facts))
            rows += [f"{hf_id}: {problem}" for problem in deviations(facts, sizing, model["truth"])]
    assert not rows, "\n".join(dict.fromkeys(rows))


@pytest.mark.parametrize(
    ("hf_id", "says"),
    [
        (
            "bartowski/Qwen2.5-Coder-14B-Instruct-GGUF",
            "GGUF files for llama.cpp only: use the model itself (Qwen/Qwen2.5-",
        ),
        ("yard1/llama-2-7b-sql-lora-test", "a LoRA adapter"),
        ("yuhuili/EAGLE3-LLaMA3.1-Instruct-8B", "a draft model for speculative decoding"),
        ("openai/whisper-large-v3", "transcribes speech"),
        ("google-t5/t5-base", "encoder-decoder"),
        ("jinaai/jina-embeddings-v3", "custom code"),
    ],
)
async def test_a_model_that_cannot_be_served_is_named(hub: HuggingFace, hf_id: str, says: str) -> None:
    """The error of each model contains its reason."""
    assert says in (await hub.model(hf_id)).unservable


async def test_a_renamed_owner_s_model_is_followed_to_its_new_name() -> None:
    """The sizes are read even if the redirect drops the query that requests them."""
    old, new = "THUDM/GLM-4-9B-0414", BY_ID["zai-org/GLM-4-9B-0414"]
    async with wire() as server, client() as http:
        publish(server, new)
        full = server.answers["GET", f"/api/models/{new['hf_id']}"]

        async def listing(request: web.Request, body: Any) -> web.StreamResponse:
            if "blobs" in request.query:
                return await full(request, body)
            names = [{"rfilename": name} for name in new["files"]]
            return web.json_response({"id": new["hf_id"], "siblings": names})

        server.answers["GET", f"/api/models/{new['hf_id']}"] = listing
        server.on("GET", f"/api/models/{old}", {}, status=307, headers={"Location": f"/api/models/{new['hf_id']}"})
        facts = await HuggingFace(http, server.url, lambda: None).model(old)
    assert (facts.hf_id, facts.weight_bytes) == (old, new["truth"]["weights_bytes"])
    assert facts.kept.per_token == new["truth"]["kv_bytes_per_token"]


async def test_gguf_files_of_a_hidden_model_are_sized_by_another_form_of_it() -> None:
    """The Hub answers 401 for a base model that it hides."""
    gguf, awq = BY_ID["bartowski/Qwen2.5-Coder-14B-Instruct-GGUF"], BY_ID["Qwen/Qwen2.5-Coder-14B-Instruct-AWQ"]
    async with wire() as server, client() as http:
        publish(server, gguf)
        publish(server, awq)
        server.on("GET", "/Qwen/Qwen2.5-Coder-14B-Instruct/resolve/main/config.json", {}, status=401)
        server.on("GET", "/api/models", [{"id": gguf["hf_id"]}, {"id": awq["hf_id"]}])
        facts = await HuggingFace(http, server.url, lambda: None).model(gguf["hf_id"])
    assert facts.kept.per_token == gguf["truth"]["kv_bytes_per_token"]


@pytest.mark.parametrize("more_facts", [{}, {"sha": "a" * 40}])
async def test_sizes_that_the_model_s_page_lacks_are_read_from_its_tree(more_facts: Json) -> None:
    """Some mirrors of the Hub answer without sizes, and some accept branches only by name."""
    model = BY_ID["Qwen/Qwen3-8B"]
    async with wire() as server, client() as http:
        publish(server, model)
        server.on(
            "GET",
            "/api/models/Qwen/Qwen3-8B",
            {"id": "Qwen/Qwen3-8B", **more_facts, "siblings": [{"rfilename": "config.json"}]},
        )
        files = [{"type": "file", "path": name, "size": size} for name, size in model["files"].items()]

        async def pages(request: web.Request, _: Any) -> web.Response:
            second = "cursor" in request.query
            address = f"{server.url}{request.path}?recursive=true&cursor=2"
            headers = {} if second else {"Link": f'<{address}>; rel="next"'}
            return web.json_response(files[3:] if second else files[:3], headers=headers)

        server.answers["GET", "/api/models/Qwen/Qwen3-8B/tree/main"] = pages
        facts = await HuggingFace(http, server.url, lambda: None).model("Qwen/Qwen3-8B")
    assert facts.weight_bytes == model["truth"]["weights_bytes"]
