"""The rules of an engine's own arguments and variables; `Engine.rules` says which ones an engine has."""

from manifests.rules.rule import Rule

RULES = {
    "argument": Rule(
        "the engine's arguments are ones that it can start with: a share of memory up to 1, tokens, plain names, none twice",
        "the engine fails at boot, or answers to a name that nobody can send",
        "correct the argument",
    ),
    "quantization": Rule(
        "`--quantization` is a format that the weights have",
        "the engine fails at boot",
        "name the weights' format, or remove the argument",
    ),
    "offline": Rule(
        "vLLM runs with `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` set to 1",
        "the engine reaches for Hugging Face at boot, which answers 429 to busy addresses",
        'set both to "1"',
    ),
    "cold-start": Rule(
        "the compile caches of vLLM (`VLLM_CACHE_ROOT` or `XDG_CACHE_HOME`, `TRITON_CACHE_DIR`) are on the volume, below the"
        " digest of the image",
        "each boot compiles again, and that time is billed",
        "`/model tune NAME`",
        "warning",
        advice=True,
    ),
}
