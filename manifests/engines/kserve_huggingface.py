"""KServe's own server of Hugging Face models, which uses vLLM if it supports the model. It accepts vLLM's arguments in addition to its own.

Source: KServe's documentation of the Hugging Face runtime (`--model_id`, `--model_name`; its OpenAI API is below
`/openai`), kserve.github.io.
"""

import re

from manifests.engines import Engine

ENGINE = Engine(
    name="KServe Hugging Face",
    sign=re.compile(r"kserve/huggingfaceserver|huggingfaceserver", re.IGNORECASE),
    words=("huggingfaceserver",),
    model=("--model-id",),
    served="--model-name",
    context="--max-model-len",
    quantization="--quantization",
    utilization="--gpu-memory-utilization",
    port=8080,
    health="/v2/health/ready",
    api="/openai",
    keyed="/openai/v1/models",
    short={"--max-length": "--max-model-len"},
    probes=frozenset({"/", "/v2/health/ready", "/v2/health/live", "/metrics", "/health"}),
)
