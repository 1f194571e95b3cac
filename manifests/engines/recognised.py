"""Engines that Stoker recognises and lists, but does not change."""

import re

from manifests.engines import Engine


def _unchanged_engine(name: str, sign: str, *words: str, model: str = "--model", **variables: str) -> Engine:
    pattern = re.compile(sign, re.IGNORECASE)
    return Engine(name=name, sign=pattern, words=words, model=(model,), variables=variables, changes=False)


ENGINES = (
    _unchanged_engine(
        "Text Generation Inference",
        r"text-generation-(inference|launcher)",
        "text-generation",
        model="--model-id",
        MODEL_ID="--model-id",
    ),
    _unchanged_engine("Ollama", r"ollama", "ollama"),
    _unchanged_engine("TensorRT-LLM", r"tensorrt|trtllm|triton", "tensorrt"),
    _unchanged_engine("LMDeploy", r"lmdeploy", "lmdeploy"),
    _unchanged_engine("Infinity", r"michaelf34/infinity|infinity_emb", model="--model-id"),
    _unchanged_engine("LocalAI", r"localai|local-ai"),
    _unchanged_engine("Aphrodite", r"aphrodite"),
)
