"""`stoker model fit` as people and CI run it: another process, and a Hub on loopback with 59 real repositories."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.clients.test_real_models import BY_ID, publish
from tests.clients.wire import Wire, wire
from tests.forked import start_stoker

FIELDS = [
    "hf_id", "kind", "weights_bytes", "repo_bytes", "staged_bytes", "kv_bytes_per_token", "context", "max_context",
    "verdict", "reasons", "flags", "storage_bytes", "memory_bytes", "licence", "warnings",
]  # fmt: skip


@pytest.fixture
async def hub() -> AsyncIterator[Wire]:
    async with wire() as server:
        for model in BY_ID.values():
            publish(server, model)

        async def search(request: web.Request, _: object) -> web.Response:
            text = request.query["search"].lower()
            return web.json_response([{"id": hf_id} for hf_id in BY_ID if text in hf_id.lower()])

        server.answers["GET", "/api/models"] = search
        yield server


async def fit(hub: Wire, cwd: Path, *words: str) -> tuple[int | None, str, str]:
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    environment["HF_ENDPOINT"] = hub.url
    process = await start_stoker("model", "fit", *words, environment=environment, directory=cwd)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_one_model_is_one_object_with_exactly_these_fields(hub: Wire, tmp_path: Path) -> None:
    """No checkout is needed: the machine comes from the settings."""
    code, out, err = await fit(hub, tmp_path, "Qwen/Qwen3-8B-AWQ", "--json")
    model_facts = json.loads(out)
    assert (code, err, list(model_facts)) == (0, "", FIELDS)
    assert (model_facts["kind"], model_facts["verdict"], model_facts["context"], model_facts["max_context"]) == (
        "chat",
        "fits",
        16384,
        40960,
    )
    assert "--quantization=awq_marlin" in model_facts["flags"]


async def test_a_refused_model_ends_with_one_and_its_reason(hub: Wire, tmp_path: Path) -> None:
    """A pasted link is accepted as the model's name."""
    link = "https://huggingface.co/microsoft/phi-4/tree/main"
    code, out, _ = await fit(hub, tmp_path, link, "--json")
    model_facts = json.loads(out)
    assert (code, model_facts["hf_id"], model_facts["verdict"], model_facts["context"]) == (
        1,
        "microsoft/phi-4",
        "refused",
        0,
    )
    assert "29.3 GB (27.3 GiB) of weights pass through the host's memory" in model_facts["reasons"][0]


async def test_a_larger_machine_accepts_a_larger_model(hub: Wire, tmp_path: Path) -> None:
    """The container's limit follows the model: no template's limit applies."""
    code, out, _ = await fit(hub, tmp_path, "microsoft/phi-4", "gpu=A100-80", "context=8192", "--json")
    model_facts = json.loads(out)
    assert (code, model_facts["verdict"], model_facts["context"]) == (0, "fits", 8192)
    assert model_facts["memory_bytes"] > model_facts["weights_bytes"]


async def test_several_models_are_shown_side_by_side(hub: Wire, tmp_path: Path) -> None:
    """A model that is not found does not hide the others, and gets suggestions with a similar spelling."""
    code, out, err = await fit(hub, tmp_path, "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWK", "openai/gpt-oss-20b")
    assert code == 2
    rows = [line.split()[:3] for line in out.splitlines()]
    assert rows == [
        ["MODEL", "VERDICT", "KIND"],
        ["Qwen/Qwen3-8B", "tight", "chat"],
        ["openai/gpt-oss-20b", "fits", "chat"],
    ]
    assert "Qwen/Qwen3-8B-AWK is not on Hugging Face, or is private" in err
    assert "Similar names: Qwen/Qwen3-8B-AWQ" in err


async def test_a_missing_figure_is_requested_by_its_option(hub: Wire, tmp_path: Path) -> None:
    """Exactly this figure is requested, and with it the model is sized."""
    config = {key: value for key, value in BY_ID["Qwen/Qwen3-8B"]["config"].items() if key != "num_hidden_layers"}
    hub.on("GET", "/Qwen/Qwen3-8B/resolve/main/config.json", {**config, "model_type": "unheard-of"})
    code, _, err = await fit(hub, tmp_path, "Qwen/Qwen3-8B", "--json")
    assert code == 2
    assert "does not give the number of layers." in err
    assert "like layers=28." in err
    code, out, _ = await fit(hub, tmp_path, "Qwen/Qwen3-8B", "layers=36", "--json")
    assert (code, json.loads(out)["kv_bytes_per_token"]) == (0, 147456)
