"""llama.cpp's server: GGUF files by path, or a repository on Hugging Face with the quantization after a colon.

Source: `tools/server/README.md` of ggml-org/llama.cpp (the arguments, each with its variable).
"""

import re

from manifests.engines import Engine

ENGINE = Engine(
    name="llama.cpp",
    sign=re.compile(r"llama[-_.]?(cpp|server)", re.IGNORECASE),
    words=("llama",),
    model=("--hf-repo", "--model"),
    served="--alias",
    context="--ctx-size",
    port=8080,
    short={
        "-m": "--model",
        "-hf": "--hf-repo",
        "-hfr": "--hf-repo",
        "-hff": "--hf-file",
        "-mu": "--model-url",
        "-mm": "--mmproj",
        "-mmu": "--mmproj-url",
        "-md": "--model-draft",
        "-hfd": "--hf-repo-draft",
        "-a": "--alias",
        "-c": "--ctx-size",
        "-ngl": "--n-gpu-layers",
        "--gpu-layers": "--n-gpu-layers",
    },
    variables={
        "LLAMA_ARG_HF_REPO": "--hf-repo",
        "LLAMA_ARG_HF_FILE": "--hf-file",
        "LLAMA_ARG_MODEL": "--model",
        "LLAMA_ARG_ALIAS": "--alias",
        "LLAMA_ARG_CTX_SIZE": "--ctx-size",
        "LLAMA_ARG_PORT": "--port",
    },
    key=("LLAMA_API_KEY", "--api-key"),
    probes=frozenset({"/health", "/v1/health", "/metrics", "/props", "/slots", "/"}),
    gguf=True,
    pins=frozenset(
        {"--mmproj", "--mmproj-url", "--model-draft", "--hf-repo-draft", "--spec-type", "--lora", "--chat-template"}
    ),
    # It lists its models without a key (`public_endpoints` in tools/server/server-http.cpp).
    keyed="/slots",
    # These need `--metrics`; without it, `bot/clients/vllm.py` reads /slots.
    signals={
        "llamacpp:requests_processing": "running",
        "llamacpp:requests_deferred": "waiting",
        "llamacpp:prompt_tokens_total": "prompt_tokens",
        "llamacpp:tokens_predicted_total": "generation_tokens",
    },
)
