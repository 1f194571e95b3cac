"""The health checks, metrics and model lists of llama.cpp's server and of SGLang, which differ from vLLM's.

Sources: llama.cpp's tools/server/README.md (`/health`, `/metrics` with `--metrics`, `/props`, `/slots`, `--alias`,
`--api-key`); SGLang's docs.sglang.ai/references/production_metrics and `http_server.py` (`/health_generate`,
`--enable-metrics`).
"""

import time
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.objects import Object

if TYPE_CHECKING:
    from sandbox.engine import Engine


def llama_models(engine: "Engine") -> Object:
    """Return the list of models, whose only entry is named after the alias, or the file."""
    description = {"object": "model", "created": int(time.time()), "owned_by": "llamacpp"}
    meta = {"n_ctx_train": 40960, "n_params": 8_190_735_360, "size": 5_023_000_000}
    return {"object": "list", "data": [{"id": engine.served_name, **description, "meta": meta}]}


def llama_props(engine: "Engine") -> Object:
    settings = {"id": 0, "n_ctx": engine.context, "is_processing": bool(engine.counters.running)}
    return {"default_generation_settings": settings, "total_slots": 1, "model_path": engine.model}


def llama_slots(engine: "Engine") -> list[Object]:
    """Return the slots. `id_task` is the last task of a slot, -1 before the first."""
    counters = engine.counters
    last = counters.requests * 2 if counters.requests else -1
    return [{"id": 0, "id_task": last, "n_ctx": engine.context, "is_processing": bool(counters.running)}]


def llama_metrics(engine: "Engine") -> str:
    """Return the metrics; raises 501 if the server was started without `--metrics`, which is the default."""
    if not engine.has_flag("--metrics"):
        message = "This server does not support metrics endpoint. Start it with `--metrics`"
        error = {"code": 501, "message": message, "type": "not_supported_error"}
        raise web.HTTPNotImplemented(text=web.json_response({"error": error}).text, content_type="application/json")
    counters = engine.counters
    lines: list[str] = []
    for name, kind, value in (
        ("prompt_tokens_total", "counter", counters.prompt_tokens),
        ("tokens_predicted_total", "counter", counters.generation_tokens),
        ("n_decode_total", "counter", counters.generation_tokens),
        ("requests_processing", "gauge", counters.running),
        ("requests_deferred", "gauge", 0),
    ):
        lines += [f"# HELP llamacpp:{name} {name.replace('_', ' ')}.", f"# TYPE llamacpp:{name} {kind}"]
        lines.append(f"llamacpp:{name} {value}")
    return "\n".join(lines) + "\n"


def sglang_models(engine: "Engine") -> Object:
    description = {"object": "model", "created": int(time.time()), "owned_by": "sglang", "root": engine.served_name}
    return {"object": "list", "data": [{"id": engine.served_name, **description, "max_model_len": engine.context}]}


def sglang_metrics(engine: "Engine") -> str:
    """Return the metrics; raises 404 if the server was started without `--enable-metrics`."""
    if not engine.has_flag("--enable-metrics"):
        raise web.HTTPNotFound(text='{"detail":"Not Found"}', content_type="application/json")
    counters, labels = engine.counters, f'{{model_name="{engine.served_name}"}}'
    lines: list[str] = []
    for name, kind, value in (
        ("prompt_tokens_total", "counter", counters.prompt_tokens),
        ("generation_tokens_total", "counter", counters.generation_tokens),
        ("num_requests_total", "counter", counters.requests),
        ("num_running_reqs", "gauge", counters.running),
        ("num_queue_reqs", "gauge", 0),
        ("token_usage", "gauge", 0.01 * counters.running),
    ):
        lines += [f"# HELP sglang:{name} {name.replace('_', ' ')}.", f"# TYPE sglang:{name} {kind}"]
        lines.append(f"sglang:{name}{labels} {float(value)}")
    return "\n".join(lines) + "\n"
