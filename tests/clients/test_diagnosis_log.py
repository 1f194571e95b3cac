"""The root cause is found in logs in the format of real engines, even far above the end."""

import pytest

from bot.clients.diagnosis.causes import CAUSES
from bot.clients.diagnosis.log import Finding, find

BANNER = """\
INFO 11-29 05:00:01 [__init__.py:216] Automatically detected platform cuda.
(APIServer pid=1) INFO 11-29 05:00:04 [api_server.py:1896] vLLM API server version 0.11.0
(APIServer pid=1) INFO 11-29 05:00:04 [utils.py:233] non-default args: {'model': 'acme/coder', 'max_model_len': 65536}
(APIServer pid=1) WARNING 11-29 05:00:05 [arg_utils.py:88] Access to model cards failed: timed out, permission denied
(EngineCore_DP0 pid=71) INFO 11-29 05:00:09 [core.py:77] Initializing a V1 LLM engine with config: model='acme/coder'
"""
STARTS = ("DP0", "0", "")


def engine(*error: str, core: str = "EngineCore_DP0 pid=71", dated: bool = True) -> list[str]:
    """The engine's traceback, logged once with a prefix and printed once without, as multiprocessing does."""
    prefix = f"({core}) " + ("ERROR 11-29 05:01:00 [core.py:708] " if dated else "")
    frames = [
        "Traceback (most recent call last):",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 699, in run_engine_core',
        "    engine_core = EngineCoreProc(*args, **kwargs)",
        "                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/executor/abstract.py", line 64, in __init__',
        "    raise ValueError(",
    ]
    return [f"{prefix}EngineCore failed to start.", *(prefix + line for line in (*frames, *error))]


def server(
    message: str = "Engine core initialization failed. See root cause above. Failed core proc(s): {}",
) -> list[str]:
    """The API server's output after the engine's error: more than sixty lines without information."""
    lines = ["Traceback (most recent call last):"]
    for number in range(34):
        lines += [
            f'  File "/usr/lib/python3.12/site-packages/vllm/server_{number}.py", line {number}, in run',
            "    return f()",
        ]
    return [f"(APIServer pid=1) {line}" for line in (*lines, f"RuntimeError: {message}")]


def diagnosed(*lines: str) -> Finding:
    finding = find("\n".join(lines))
    assert finding
    return finding


CASES = [
    (
        "ValueError: To serve at least one request with the models's max seq len (65536), (3.50 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (2.63 GiB). Based on the available memory, the estimated maximum model length "
        "is 49216. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
        "kv-cache-too-small",
        "`--max-model-len=49216` would fit (3.50 GiB needed, 2.63 GiB free)",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (16384), 0.88 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (0.31 GiB).",
        "kv-cache-too-small",
        "`--max-model-len=5760` would fit",
    ),
    (
        "ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that can be stored in KV cache "
        "(2400). Try increasing `gpu_memory_utilization`.",
        "kv-cache-too-small",
        "`--max-model-len=2400` would fit",
    ),
    ("ValueError: No available memory for the cache blocks. Try more.", "no-kv-cache", "no memory is left"),
    (
        "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization (0.9, 3.6 GiB). "
        "Decrease GPU memory utilization.",
        "gpu-memory-in-use",
        "`--gpu-memory-utilization=0.80` would fit",
    ),
    (
        "ValueError: Free memory on device cuda:0 (19.1/22.03 GiB) on startup is less than desired GPU memory utilization (0.92, "
        "20.27 GiB).",
        "gpu-memory-in-use",
        "`--gpu-memory-utilization=0.86` would fit",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.53 GiB. GPU 0 has a total capacity of 22.03 GiB of which "
        "1.02 GiB is free. Including non-PyTorch memory, this process has 21.00 GiB memory in use.",
        "cuda-out-of-memory",
        "(2.53 GiB more were needed, 1.02 GiB were free)",
    ),
    ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "cuda-out-of-memory", "CUDA out of memory"),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver.",
        "driver-too-old",
        "it supports CUDA 12.2",
    ),
    (
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "gpu-not-supported",
        "GPU",
    ),
    (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has 7.5.",
        "gpu-not-supported",
        "does not support this GPU",
    ),
    (
        "ValueError: The quantization method awq_marlin is not supported for the current GPU. Minimum capability: 80. Current "
        "capability: 75.",
        "gpu-not-supported",
        "does not support this GPU",
    ),
    (
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "cuda-error",
        "an illegal memory access",
    ),
    ("RuntimeError: No CUDA GPUs are available", "no-gpu", "no working GPU"),
    (
        "ValueError: World size (2) is larger than the number of available GPUs (1) in this node.",
        "tensor-parallel",
        "`--tensor-parallel-size` 2",
    ),
    (
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        "weights-corrupt",
        "MetadataIncompleteBuffer",
    ),
    ("EOFError: Ran out of input", "weights-corrupt", "incomplete or corrupt"),
    ("RuntimeError: Cannot find any model weights with `/models/acme`", "weights-missing", "does not find the weights"),
    (
        "ValueError: Unknown quantization method: awqq. Must be one of ['awq', 'gptq'].",
        "quantization",
        "`--quantization=awqq`",
    ),
    ("OSError: [Errno 28] No space left on device: '/models/blobs/1.incomplete'", "disk-full", "at /models/blobs"),
    ("OSError: [Errno 122] Disk quota exceeded", "disk-full", "The disk is full"),
    ("PermissionError: [Errno 13] Permission denied: '/root/.cache/vllm'", "cache-not-writable", "/root/.cache/vllm"),
    ("OSError: [Errno 30] Read-only file system: '/models/tmp'", "cache-not-writable", "/models/tmp"),
    (
        "ValueError: Tokenizer class Qwen9Tokenizer does not exist or is not currently imported.",
        "tokenizer",
        "(Qwen9Tokenizer)",
    ),
    ("jinja2.exceptions.TemplateSyntaxError: unexpected '}'", "tokenizer", "chat template"),
]


@pytest.mark.parametrize(("error", "name", "words"), CASES)
@pytest.mark.parametrize(
    "core", ["EngineCore_DP0 pid=71", "EngineCore pid=316", "EngineCore_0 pid=9", "VllmWorker rank=0 pid=88"]
)
def test_the_engines_error_is_found_above_the_servers_traceback(error: str, name: str, words: str, core: str) -> None:
    """More than sixty lines follow the error, with the prefix of any version."""
    for dated in (True, False):
        finding = diagnosed(BANNER, *engine(error, core=core, dated=dated), *server())
        assert finding.name == name
        assert words in finding.headline
        assert error[:40] in finding.excerpt


SERVERS = [
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (65536) is greater than "
        "the derived max_model_len (max_position_embeddings=32768 or model_max_length=None in model's config.json). "
        "[type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]\n    For further information visit "
        "https://errors.pydantic.dev/2.11/v/value_error",
        "context-too-large",
        "`--max-model-len=32768` would fit",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, Model architectures ['Qwen9ForCausalLM'] are not "
        "supported for now. Supported architectures: dict_keys(['A', 'B']) [type=value_error, input_value=1]",
        "architecture",
        "Qwen9ForCausalLM",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, The checkpoint you are trying to load has model type "
        "`qwen9` but Transformers does not recognize this architecture. [type=value_error]",
        "architecture",
        "qwen9",
    ),
    (
        "ValidationError: 1 validation error for VllmConfig\nscheduler_config.max_num_seqs\n  Input should be greater than or equal "
        "to 1 [type=greater_than_equal, input_value=0, input_type=int]\n    For further information visit https://errors",
        "configuration-refused",
        "(VllmConfig): Input should be greater than or equal to 1",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, Quantization method specified in the model config "
        "(gptq) does not match the quantization method specified in the `quantization` argument (awq). [type=value_error]",
        "quantization",
        "`--quantization=awq` does not match the weights (their format is gptq)",
    ),
    (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, The repository acme/x contains custom code which must "
        "be executed to correctly load the model. Please pass the argument `trust_remote_code=True` to allow it. [type=value_error]",
        "remote-code",
        "--trust-remote-code",
    ),
]


@pytest.mark.parametrize(("error", "name", "words"), SERVERS)
def test_pydantics_reason_is_read_from_the_lines_below(error: str, name: str, words: str) -> None:
    """ "1 validation error" is not a helpful headline."""
    lines = [f"(APIServer pid=1) {line}" for line in f"pydantic_core._pydantic_core.{error}".splitlines()]
    finding = diagnosed(BANNER, "(APIServer pid=1) Traceback (most recent call last):", *lines)
    assert finding.name == name
    assert words in finding.headline
    assert "type=" not in finding.headline


HOSTS = [
    (
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:275, unhandled system error, NCCL version 2",
        "nccl",
    ),
    (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda driver "
        "combination",
        "driver-mismatch",
    ),
    ("RuntimeError: Error 802: system not yet initialized", "gpu-not-initialized"),
    (
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 151680, Hardware limit: 101376. Reducing "
        "block sizes may help.",
        "kernel-resources",
    ),
    (
        "ValueError: Selected backend AttentionBackendEnum.FLASH_ATTN is not valid for this configuration. Reason: ['head_size not "
        "supported']",
        "attention-backend",
    ),
    (
        "ImportError: /usr/lib/flash_attn_2_cuda.cpython-312.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
        "image-libraries",
    ),
    ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", "image-libraries"),
    ("OSError: libcuda.so.1: cannot open shared object file: No such file or directory", "no-gpu"),
    ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", "compiler-missing"),
    ("FileNotFoundError: [Errno 2] No such file or directory: 'ninja'", "compiler-missing"),
    (
        "RuntimeError: unable to mmap 4976698672 bytes from file </models/m.safetensors>: Cannot allocate memory (12)",
        "host-memory",
    ),
    ("MemoryError", "host-memory"),
    ("RuntimeError: can't start new thread", "process-limits"),
    ("OSError: [Errno 116] Stale file handle: '/models/x'", "volume-broken"),
    ("ValueError: LoRA rank 64 is greater than max_lora_rank 16.", "lora"),
    ("Exception: data did not match any variant of untagged enum ModelWrapper at line 7 column 3", "tokenizer-version"),
    ("KeyError: 'model.layers.0.self_attn.qkv_proj.weight_scale'", "weights-mismatch"),
    ("ValueError: GGUF model with architecture coder9 is not supported yet.", "architecture"),
    ("RuntimeError: Data processing error: CAS service error: HTTP status server error (503)", "connection"),
    (
        "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 20.9 GiB. It happens when "
        "other processes release memory.",
        "gpu-memory-shared",
    ),
    ("RuntimeError: CUDA driver error: device busy", "cuda-error"),
    (
        "NotImplementedError: No compiled scaled_mm for a compute capability less than CUDA device capability: 75",
        "gpu-not-supported",
    ),
    ("RuntimeError: Failed to initialize NVML: Driver/library version mismatch", "driver-replaced"),
    ("KeyError: 'blk.0.attn_q.bias'", "weights-mismatch"),
    ("AssertionError: param_data.shape == loaded_weight.shape", "weights-mismatch"),
    ("OSError: It seems that the config file at '/models/x/config.json' is not a valid JSON file.", "weights-corrupt"),
    ("ModuleNotFoundError: No module named 'bitsandbytes'", "package-missing"),
    ("ImportError: Please install bitsandbytes>=0.46.1 via `pip install bitsandbytes>=0.46.1`.", "package-missing"),
    (
        "OSError: PermissionError at /root/.cache/huggingface when downloading acme/coder. Check it.",
        "cache-not-writable",
    ),
    ("TimeoutError: Timed out waiting for engine core processes to start. Waited 600s for it.", "start-timeout"),
    (
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'name' or 'org/name': '/models/x'. Use `repo_type`.",
        "weights-missing",
    ),
]


@pytest.mark.parametrize(("error", "name"), HOSTS)
def test_problems_of_image_limits_and_files_are_classified(error: str, name: str) -> None:
    assert diagnosed(BANNER, *engine(error), *server()).name == name


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1)", "token (404): there is no such model"),
        ("RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)", "token (401): there is no such model"),
    ],
)
def test_a_repository_that_is_not_found_has_the_hubs_own_status(error: str, words: str) -> None:
    """The status is 404 for a valid token, and 401 for an invalid one."""
    assert words in diagnosed(BANNER, *engine(f"huggingface_hub.errors.{error}"), *server()).headline


def test_an_argument_that_the_engine_does_not_know_is_named() -> None:
    """argparse prints its whole usage first."""
    usage = ["usage: vllm serve [model_tag] [options]", "                  [--headless] [--api-server-count COUNT]"]
    assert (
        "`--max-modle-len=4096`"
        in diagnosed(*usage, "vllm serve: error: unrecognized arguments: --max-modle-len=4096").headline
    )
    error = "api_server.py: error: argument --quantization/-q: invalid choice: 'awqq' (choose from 'awq', 'gptq')"
    assert "--quantization/-q invalid choice: 'awqq'" in diagnosed(*usage, error).headline


HUB = "https://huggingface.co/acme/coder/resolve/main/model.safetensors"
DOWNLOADS = [
    ("huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: " + HUB, "rate-limit"),
    (
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1)\n\nCannot access gated repo for url "
        + HUB,
        "gated",
    ),
    ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)", "repository-not-found"),
    (
        "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for url: " + HUB,
        "revision-not-found",
    ),
    ("OSError: Tunnel connection failed: 403 Forbidden", "proxy"),
    (
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /api "
        "(Caused by ProxyError('Unable to connect to proxy', OSError('Tunnel connection failed: 403 Forbidden')))",
        "proxy",
    ),
    ("httpx.ProxyError: 403 Forbidden", "proxy"),
    (
        "huggingface_hub.errors.HfHubHTTPError: 403 Client Error: Forbidden for url: https://cas-bridge.xethub.hf.co/xet-bridge-us/1",
        "egress-refused",
    ),
    (
        "requests.exceptions.SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
        "tls",
    ),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "dns"),
    ("OSError: [Errno 28] No space left on device", "disk-full"),
    ("PermissionError: [Errno 13] Permission denied: '/models/hub'", "cache-not-writable"),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified "
        "revision on the local disk and outgoing traffic has been disabled. To enable repo look-ups, pass 'local_files_only=False'.",
        "cache-cold",
    ),
    ("requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='huggingface.co'): Read timed out.", "connection"),
    ("curl: (56) CONNECT tunnel failed, response 403", "proxy"),
]


@pytest.mark.parametrize(("error", "name"), DOWNLOADS)
def test_failed_downloads_are_classified(error: str, name: str) -> None:
    """A proxy's 403 is not a licence problem, and a full disk is not a mistake in the arguments."""
    chained = [
        "Traceback (most recent call last):",
        '  File "/usr/lib/python3.12/site-packages/huggingface_hub/_snapshot_download.py", line 200, in snapshot_download',
        *error.splitlines(),
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        '  File "<string>", line 3, in <module>',
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub and we "
        "cannot find the appropriate snapshot folder for the specified revision on the local disk. Please check your connection.",
    ]
    assert diagnosed(*error.splitlines()).name == name
    assert diagnosed(*chained).name == name


OTHERS = [
    (
        "Error: Could not create backend\n\nCaused by:\n    Could not start backend: CUDA out of memory",
        "cuda-out-of-memory",
    ),
    (
        '{"timestamp":"2026-11-29T05:00:00Z","level":"ERROR","message":"DriverError: CUDA_ERROR_OUT_OF_MEMORY","target":"x"}',
        "cuda-out-of-memory",
    ),
    (
        "llama_model_load: error loading model: unknown model architecture: 'qwen9'\nmain: error: unable to load model",
        "architecture",
    ),
    (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory",
        "cuda-out-of-memory",
    ),
    ("gguf_init_from_file: failed to open GGUF file '/models/x.gguf'", "weights-missing"),
    (
        "[2026-11-29 05:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last):\n"
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.\n"
        "[2026-11-29 05:00:01] Received sigquit from a child process. It usually means the child failed.",
        "cuda-out-of-memory",
    ),
    ("exec /usr/bin/python3: exec format error", "wrong-architecture"),
    (
        "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
        "address-in-use",
    ),
]


@pytest.mark.parametrize(("log", "name"), OTHERS)
def test_other_engines_are_understood_too(log: str, name: str) -> None:
    """These are TEI, SGLang and llama.cpp, and errors that no engine caused."""
    assert diagnosed(*log.splitlines()).name == name


def test_an_unknown_error_is_quoted_from_the_engine_and_not_from_the_server() -> None:
    """The quotation includes the surrounding lines, so that people can continue."""
    finding = diagnosed(BANNER, *engine("AssertionError: rope_scaling must have a factor"), *server())
    assert finding.headline == "AssertionError: rope_scaling must have a factor"
    assert "run_engine_core" in finding.excerpt
    assert "See root cause above" in finding.excerpt.splitlines()[-1]


def test_an_engine_killed_by_the_kernel_is_recognised() -> None:
    """The server only reports its exit status: -9."""
    finding = diagnosed(
        BANNER, *server("Engine core initialization failed. Failed core proc(s): {'EngineCore_DP0': -9}")
    )
    assert "killed (SIGKILL)" in finding.headline
    assert finding.kind == "memory"


def test_a_remark_is_not_a_cause() -> None:
    """Libraries print without a level, and their output before the error may look like an error."""
    remarks = ["The argument `trust_remote_code` is to be used with Auto classes.", "mkdir: /opt/x: Permission denied"]
    finding = diagnosed(BANNER, *remarks, *engine("AssertionError: no such layer"), *server())
    assert finding.headline == "AssertionError: no such layer"


def test_a_shells_error_is_found_before_pythons_report_of_it() -> None:
    """The staging script calls curl, whose error comes before Python's."""
    lines = ["curl: (56) CONNECT tunnel failed, response 403", "Traceback (most recent call last):"]
    assert diagnosed(*lines, "subprocess.CalledProcessError: Command 'curl' returned exit status 56").name == "proxy"


def test_a_log_without_an_error_has_no_cause() -> None:
    """A warning about a permission is not a cause."""
    assert find(BANNER) is None
    assert find("") is None


def test_every_cause_has_an_example() -> None:
    """A cause without evidence would be a guess."""
    covered = {name for _, name, *_ in (*CASES, *SERVERS, *HOSTS, *DOWNLOADS, *OTHERS)}
    without_a_sample = {
        "unrecognized-arguments",
        "invalid-argument",
        "token-without-permission",
        "shared-memory",
        "command-not-found",
    }
    assert {cause.name for cause in CAUSES} == covered | without_a_sample
