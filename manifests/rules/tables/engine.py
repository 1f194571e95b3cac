"""The rules of an engine's own arguments and variables; `Engine.rules` lists those that apply to an engine."""

from manifests.rules.rule import Rule

RULES = {
    "argument": Rule(
        "the engine's arguments are valid: a share of memory up to 1, numbers of tokens, plain names, no duplicates",
        "the engine fails at boot, or has a served name that no request can contain",
        "correct the argument",
    ),
    "quantization": Rule(
        "`--quantization` is a format that the weights have",
        "the engine fails at boot",
        "name the weights' format, or remove the argument",
    ),
    "offline": Rule(
        "vLLM runs with `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` set to 1",
        "the engine contacts Hugging Face at boot, which answers 429 to busy addresses",
        'set both to "1"',
    ),
    "cold-start": Rule(
        "the compile caches of vLLM (`VLLM_CACHE_ROOT` or `XDG_CACHE_HOME`, `TRITON_CACHE_DIR`) are on the volume, in a"
        " directory named after the image's digest",
        "each boot compiles again, and that time is billed",
        "`/model tune NAME`",
        "warning",
        advice=True,
    ),
}
