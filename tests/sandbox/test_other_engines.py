"""llama.cpp and SGLang: the server that a container runs, and the usage that the bot reads."""

from typing import Any

import pytest
from aiohttp import web

from bot.clients.vllm import VLLM, signals
from sandbox.command_line import CommandLine
from sandbox.engine import Counters, Engine
from sandbox.objects import Object, ObjectStore
from sandbox.other_engines import llama_metrics, llama_slots, sglang_metrics
from tests.clients.wire import client, wire


def engine(container: Object, *maps: Object, volumes: Any = (), counters: Counters | None = None) -> Engine:
    store = ObjectStore()
    for configmap in maps:
        store.create({"kind": "ConfigMap", **configmap})
    spec = {
        "containers": [{"name": "engine", "image": "vllm/vllm-openai:v0.11.0", **container}],
        "volumes": list(volumes),
    }
    pod = {"metadata": {"namespace": "ai", "name": "pod"}, "spec": spec}
    return Engine(CommandLine(store, pod), counters or Counters())


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "ai"}, "data": data}


@pytest.mark.parametrize(
    ("container", "name", "served", "context"),
    [
        ({"args": ["--model=a/b", "--served-model-name", "x", "y", "--max-model-len=8192"]}, "vLLM", ["x", "y"], 8192),
        ({"command": ["vllm", "serve", "a/b", "--max-model-len", "4096"]}, "vLLM", ["a/b"], 4096),
        ({"args": ["/models/a", "--served-model-name=x"]}, "vLLM", ["x"], 4096),
        (
            {
                "command": ["sh", "-c"],
                "args": ['exec vllm serve "$MODEL" \\\n  --served-model-name ${NAME} --max-model-len 1024'],
                "env": [{"name": "MODEL", "value": "a/b"}, {"name": "NAME", "value": "x"}],
            },
            "vLLM", ["x"], 1024,
        ),
        (
            {"image": "ghcr.io/ggml-org/llama.cpp:server-cuda", "args": ["-m", "/models/a.gguf", "--alias", "x", "-c", "2048"]},
            "llama.cpp", ["x"], 2048,
        ),
        (
            {"image": "lmsysorg/sglang:v0.5", "command": ["python3", "-m", "sglang.launch_server"],
             "args": ["--model-path=a/b", "--served-model-name=x", "--context-length=512"]},
            "SGLang", ["x"], 512,
        ),
    ],
)  # fmt: skip
def test_the_server_is_derived_from_its_container(
    container: Object, name: str, served: list[str], context: int
) -> None:
    server = engine(container)
    assert (server.name, server.served_names, server.context) == (name, served, context)


def test_arguments_come_from_config_maps() -> None:
    from_environment = engine(
        {"args": ["$(MODEL_PATH)", "--served-model-name", "$(NAME)"], "envFrom": [{"configMapRef": {"name": "m"}}]},
        config_map("m", MODEL_PATH="/data/a", NAME="x"),
    )
    assert (from_environment.model, from_environment.served_names) == ("/data/a", ["x"])
    from_file = engine(
        {"command": ["sh", "-c", "exec vllm serve --config /etc/vllm/config.yaml"],
         "volumeMounts": [{"name": "c", "mountPath": "/etc/vllm"}]},
        config_map("vllm", **{"config.yaml": "model: a/b\nserved_model_name: x\nmax_model_len: 2048\n"}),
        volumes=[{"name": "c", "configMap": {"name": "vllm"}}],
    )  # fmt: skip
    assert (from_file.model, from_file.served_names, from_file.context) == ("a/b", ["x"], 2048)


def test_the_bot_reads_the_use_of_each_engine() -> None:
    counters = Counters(requests=3, prompt_tokens=20, generation_tokens=50, running=1)
    llama = engine({"image": "llama.cpp:server", "args": ["-m", "a.gguf", "--metrics"]}, counters=counters)
    used = signals(llama_metrics(llama))
    assert (used.running, used.prompt_tokens, used.generation_tokens) == (1, 20, 50)
    sglang = engine({"image": "sglang", "args": ["--model-path=a/b", "--enable-metrics"]}, counters=counters)
    used = signals(sglang_metrics(sglang))
    assert (used.running, used.requests, used.prompt_tokens, used.generation_tokens) == (1, 3, 20, 50)


async def test_llama_cpp_without_metrics_is_read_by_its_slots() -> None:
    """Most servers are started without `--metrics` and answer 501, but their slots show the running requests."""
    llama = engine({"image": "llama.cpp:server", "args": ["-m", "a.gguf"]}, counters=Counters(requests=3, running=1))
    with pytest.raises(web.HTTPNotImplemented):
        llama_metrics(llama)

    async with wire() as server, client() as http:
        server.on("GET", "/metrics", {"error": {"code": 501, "message": "not supported"}}, status=501)
        server.on("GET", "/slots", llama_slots(llama))
        used = await VLLM(http, "http://llama").activity(server.url)
    assert (used.running, used.requests) == (1, 6)


@pytest.mark.parametrize(
    ("model", "chats"),
    [
        ("Qwen/Qwen2.5-Coder-1.5B", False),
        ("meta-llama/Llama-3.1-8B", False),
        ("acme/some-model-base", False),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct-AWQ", True),
        ("google/gemma-3-27b-it", True),
        ("openai/gpt-oss-20b", True),
        ("acme/Dolphin3.0-Llama3.1-8B", True),
        ("/models/whatever", True),
    ],
)
def test_only_base_models_refuse_to_chat(model: str, chats: bool) -> None:
    """A smoke test must not fail because the name of a chat model does not show its kind."""
    assert engine({"args": ["--model", model]}).chats is chats
