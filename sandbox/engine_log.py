"""vLLM's log at its start, after loading, and on failure.

The format is that of vLLM 0.11 to 0.32: the engine is a child process, and each line names its process. An error of the
engine is followed by more than sixty lines of the API server's own traceback, which only report that the engine has
failed (vllm-project/vllm#25837, #27508). The texts of both tracebacks are invented.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

VERSION = "0.32.0"
SERVER, ENGINE = "APIServer pid=1", "EngineCore_DP0 pid=71"
GPU_GIB = 22.03
"""GPU memory of an L4 according to CUDA."""
_WEIGHTS_GIB, _TOKEN_KIB = 5.2, 56
"""For a 7B model in AWQ: its weights, and the KV cache of one token."""
_FRAMES = 32
"""Number of frames in the server's traceback, of two lines each."""


def banner(words: Sequence[str]) -> list[str]:
    """Return the first lines: version, non-default arguments, the engine's process. `words` is the command line."""
    arguments = {flag.lstrip("-").replace("-", "_"): value for flag, value in _arguments(words)}
    model = arguments.get("model", "unknown/model")
    return [
        _line(SERVER, "INFO", "api_server.py:1896", f"vLLM API server version {VERSION}"),
        _line(SERVER, "INFO", "utils.py:233", f"non-default args: {arguments}"),
        _line(ENGINE, "INFO", "core.py:77", f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{model}'"),
        _line(ENGINE, "INFO", "gpu_model_runner.py:2602", f"Starting to load model {model}..."),
    ]


def loaded(words: Sequence[str]) -> list[str]:
    """Return the last lines of a successful start, with the results of memory profiling."""
    arguments = dict(_arguments(words))
    context = round(_number(arguments.get("--max-model-len", ""), 4096))
    cache = max(0.5, GPU_GIB * _number(arguments.get("--gpu-memory-utilization", ""), 0.9) - _WEIGHTS_GIB - 1.2)
    tokens = int(cache * 1024 * 1024 / _TOKEN_KIB)
    return [
        _line(
            ENGINE, "INFO", "gpu_model_runner.py:2653", f"Model loading took {_WEIGHTS_GIB:.4f} GiB and 38.5 seconds"
        ),
        _line(ENGINE, "INFO", "gpu_worker.py:298", f"Available KV cache memory: {cache:.2f} GiB"),
        _line(ENGINE, "INFO", "kv_cache_utils.py:1087", f"GPU KV cache size: {tokens:,} tokens"),
        _line(
            ENGINE,
            "INFO",
            "kv_cache_utils.py:1091",
            f"Maximum concurrency for {context:,} tokens per request: {tokens / context:.2f}x",
        ),
        f"({SERVER}) INFO:     Application startup complete.",
    ]


def engine_fails(*error: str) -> list[str]:
    """Return the engine's traceback with its error, followed by the server's."""
    frames = [
        "EngineCore failed to start.",
        "Traceback (most recent call last):",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 699, in run_engine_core',
        "    engine_core = EngineCoreProc(*args, **kwargs)",
        "                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 92, in __init__',
        "    self._initialize_kv_caches(vllm_config)",
        *error,
    ]
    logged = [_line(ENGINE, "ERROR", "core.py:708", line) for line in frames]
    printed = [f"({ENGINE}) {line}" for line in ("Process EngineCore_DP0:", *frames[1:])]
    return [*logged, *printed, *server_follows("Engine core initialization failed. See root cause above.")]


def engine_dies(*error: str) -> list[str]:
    """Return the lines of a running engine that fails: its error, if it has one, and the server's exit."""
    fatal = ["EngineCore encountered a fatal error.", "Traceback (most recent call last):", *error] if error else []
    logged = [_line(ENGINE, "ERROR", "core.py:715", line) for line in fatal]
    return [*logged, *server_follows("EngineCore encountered an issue. See stack trace (above) for the root cause.")]


def server_follows(error: str) -> list[str]:
    """Return the API server's traceback, which is long and only reports the failure of its child process."""
    lines = ["Traceback (most recent call last):"]
    for number in range(_FRAMES):
        lines.append(
            f'  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/step_{number}.py", line {number + 40}, in run'
        )
        lines.append("    return await self.next(*args, **kwargs)")
    lines.append(f"RuntimeError: {error} Failed core proc(s): {{}}")
    return [f"({SERVER}) {line}" for line in lines]


def _line(process: str, level: str, source: str, text: str) -> str:
    return f"({process}) {level} {datetime.now(UTC):%m-%d %H:%M:%S} [{source}] {text}"


def _number(text: str, default: float) -> float:
    """Return a plain number, or the default for other notations (`16k`, `auto`)."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else default


def _arguments(words: Sequence[str]) -> list[tuple[str, str]]:
    arguments = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            arguments.append((flag, value if equals else "" if following.startswith("--") else following))
    return arguments
