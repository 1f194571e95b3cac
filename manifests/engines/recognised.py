"""Engines that Stoker recognises and lists, but does not change."""

import re

from manifests.engines import Engine


def _left(name: str, sign: str, *words: str, model: str = "--model", **variables: str) -> Engine:
    pattern = re.compile(sign, re.IGNORECASE)
    return Engine(name=name, sign=pattern, words=words, model=(model,), variables=variables, changes=False)


ENGINES = (
    _left(
        "Text Generation Inference",
        r"text-generation-(inference|launcher)",
        "text-generation",
        model="--model-id",
        MODEL_ID="--model-id",
    ),
    _left("Ollama", r"ollama", "ollama"),
    _left("TensorRT-LLM", r"tensorrt|trtllm|triton", "tensorrt"),
    _left("LMDeploy", r"lmdeploy", "lmdeploy"),
    _left("Infinity", r"michaelf34/infinity|infinity_emb", model="--model-id"),
    _left("LocalAI", r"localai|local-ai"),
    _left("Aphrodite", r"aphrodite"),
)
