"""SGLang: `python3 -m sglang.launch_server`. Source: its `ServerArgs.add_cli_args` (sgl-project/sglang)."""

import re

from manifests.engines import Engine

ENGINE = Engine(
    name="SGLang",
    sign=re.compile(r"sglang", re.IGNORECASE),
    words=("sglang",),
    model=("--model-path",),
    served="--served-model-name",
    context="--context-length",
    quantization="--quantization",
    utilization="--mem-fraction-static",
    port=30000,
    short={"--model": "--model-path", "--tp": "--tensor-parallel-size"},
    key=("", "--api-key"),
    health="/health_generate",
    # These need `--enable-metrics`.
    signals={
        "sglang:num_running_reqs": "running",
        "sglang:num_queue_reqs": "waiting",
        "sglang:num_requests_total": "requests",
        "sglang:prompt_tokens_total": "prompt_tokens",
        "sglang:generation_tokens_total": "generation_tokens",
    },
    probes=frozenset({"/health", "/health_generate", "/metrics", "/get_model_info"}),
)
