"""Causes of the failure of a model server or a download, identified by their text in the log, most specific first. Pure.

The texts are those of vLLM 0.8 to 0.32, transformers 4.4x to 5, huggingface_hub 0.2x to 1.x, PyTorch 2.x, SGLang, TEI
and llama.cpp, from these projects' issue trackers (for example vLLM #16749, #20305, #25837, #27508). `docs/boots.md` is
generated from this table.
"""

import math

from bot.clients.diagnosis.cause import Cause, Groups, Kind
from bot.clients.diagnosis.host_causes import HOST_CAUSES

_BLOCK = 16
"""Tokens in a block of vLLM's KV cache. A context that is not a multiple of this number wastes part of a block."""


def _context(groups: Groups) -> dict[str, str]:
    """The largest context that fits: the value in vLLM's message, otherwise an estimate in proportion to the free memory."""
    largest = groups.get("largest")
    if not largest and groups.get("asked") and groups.get("needed") and groups.get("free"):
        share = float(groups["free"] or 0) / float(groups["needed"] or 1)
        largest = str(math.floor(int(groups["asked"] or 0) * share / _BLOCK) * _BLOCK)
    if not largest or int(largest) < _BLOCK:
        return {"fits": "not even a short context fits"}
    memory = f" ({groups['needed']} GiB needed, {groups['free']} GiB free)" if groups.get("needed") else ""
    return {"fits": f"`--max-model-len={largest}` would fit{memory}"}


def _share(groups: Groups) -> dict[str, str]:
    """The largest `--gpu-memory-utilization` that the free memory allows, rounded down to a hundredth."""
    share = math.floor(float(groups["free"] or 0) / float(groups["total"] or 1) * 100) / 100
    return {"fits": f"`--gpu-memory-utilization={share:.2f}` would fit"}


def _allocation(groups: Groups) -> dict[str, str]:
    tried, free = groups.get("tried"), groups.get("free")
    return {"sizes": f" ({tried} more were needed{f', {free} were free' if free else ''})" if tried else ""}


def _detail(groups: Groups) -> dict[str, str]:
    return {"what": f"({groups['what']})" if groups.get("what") else ""}


def _driver(groups: Groups) -> dict[str, str]:
    cuda, found = groups.get("cuda"), groups.get("found")
    if cuda:
        return {"needs": f" (the image needs CUDA {cuda})"}
    if found and found.isdecimal() and len(found) > 3:  # 12020 is CUDA 12.2
        return {"needs": f" (it supports CUDA {int(found) // 1000}.{int(found) % 1000 // 10})"}
    return {"needs": ""}


_LOWER_MEMORY = (
    "Lower `--max-model-len`, `--max-num-seqs` or `--gpu-memory-utilization`, or serve a smaller or quantized model."
)
_ARGUMENTS = "Correct the engine's arguments in git (`/model swap` writes them), then bring it up again."
_NETWORK = "Check the pod's network access: network policy, proxy variables and DNS. Or stage the weights on the volume in advance."

CAUSES: tuple[Cause, ...] = (
    *HOST_CAUSES,
    Cause(
        "context-too-large",
        Kind.CONTEXT,
        (
            r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \((?:\w+=)?(?P<limit>\d+)",
            r"max_model_len \((?P<asked>\d+)\) .{0,60}(?:greater|larger|longer|exceeds?) .{0,90}?(?P<limit>\d{3,})",
        ),
        "The context is larger than the model's: `--max-model-len={asked}` is more than its {limit} tokens."
        " `--max-model-len={limit}` would fit.",
        _ARGUMENTS,
    ),
    Cause(
        "kv-cache-too-small",
        Kind.MEMORY,
        (
            r"max seq len \((?P<asked>\d+)\),? \(?(?P<needed>[\d.]+) GiB KV cache is needed.*?available KV cache memory "
            r"\((?P<free>[\d.]+) GiB\)(?:.{0,80}?estimated maximum model length is (?P<largest>\d+))?",
            r"max seq len \((?P<asked>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache "
            r"\((?P<largest>\d+)\)",
        ),
        "The KV cache is too small for a context of {asked} tokens: {fits}.",
        "Set that in git, or give the cache more memory: a higher `--gpu-memory-utilization`, `--kv-cache-dtype=fp8`,"
        " or a smaller model.",
        _context,
    ),
    Cause(
        "no-kv-cache",
        Kind.MEMORY,
        (r"No available memory for the cache blocks", r"available KV cache memory (?:is )?\(?-[\d.]+"),
        "The weights fill the GPU: no memory is left for the KV cache.",
        "Raise `--gpu-memory-utilization`, or serve a smaller or quantized model.",
    ),
    Cause(
        "gpu-memory-in-use",
        Kind.MEMORY,
        (
            r"Free memory on device(?: \S+)? \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired GPU "
            r"memory utilization \((?P<asked>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        ),
        "Only {free} of the GPU's {total} GiB are free, and `--gpu-memory-utilization={asked}` needs {wanted} GiB: {fits}.",
        "Find out what else uses the GPU, or set that value in git.",
        _share,
    ),
    Cause(
        "gpu-memory-shared",
        Kind.MEMORY,
        (r"Error in memory profiling\. Initial free memory (?P<before>[\d.]+) GiB,? current free memory (?P<after>[\d.]+) GiB",),
        "Another process used the same GPU while the engine measured its memory: {before} GiB were free, then {after} GiB.",
        "Bring the model up again. If the error comes back, find out what else uses the GPU.",
        crashes=2,
    ),
    Cause(
        "cuda-out-of-memory",
        Kind.MEMORY,
        (
            r"Tried to allocate (?P<tried>[\d.]+ [KMG]iB)(?:.{0,200}?of which (?P<free>[\d.]+ [KMG]iB) is free)?",
            r"(?:CUDA|HIP) out of memory|OutOfMemoryError|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY",
            r"cudaMalloc failed: out of memory|Not enough memory\. Please try to increase --mem-fraction-static",
            r"CUBLAS_STATUS_ALLOC_FAILED|hipErrorOutOfMemory",
        ),
        "CUDA out of memory: the model does not fit into the GPU{sizes}.",
        _LOWER_MEMORY,
        _allocation,
    ),
    Cause(
        "driver-too-old",
        Kind.DRIVER,
        (
            r"unsatisfied condition: cuda\s*>=\s*(?P<cuda>\d[\d.]*\d|\d)",
            r"unsatisfied condition: (?:driver|brand)",
            r"driver on your system is too old \(found version (?P<found>\d+)",
            r"driver on your system is too old|driver version is insufficient for CUDA runtime version",
            r"forward compatibility was attempted on non[- ]supported HW|compiled with an unsupported toolchain",
        ),
        "The node's NVIDIA driver is too old for this image{needs}.",
        "Use a newer node image (on GKE: a newer driver version for the node pool), or an engine image for an older CUDA.",
        _driver,
    ),
    Cause(
        "gpu-not-supported",
        Kind.GPU,
        (
            r"(?P<what>bfloat16) is only supported on GPUs with compute capability of at least (?P<need>[\d.]+)",
            r"Minimum capability: (?P<need>\d+)\.? Current capability: (?P<have>\d+)",
            r"no kernel image is available for execution|is not compatible with the current PyTorch installation",
            r"FlashAttention only supports|requires .{0,40}compute capability|not supported (?:on|for) (?:the |this )?current GPU",
            r"for a compute capability less than CUDA device capability|\w+_sm\d+ is not implemented",
        ),
        "The engine or the weights' format does not support this GPU.",
        "Use an image built for this GPU, another format (for an older GPU `--dtype=half`, AWQ or GPTQ), or another GPU.",
    ),
    Cause(
        "no-gpu",
        Kind.GPU,
        (
            r"No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver|Failed to infer device type",
            r"libcuda\.so(?:\.1)?: cannot open|nvml error: driver not loaded",
            r"nvidia-container-cli: (?:initialization|device|detection) error|unknown device|CUDA unknown error",
            r"uncorrectable ECC|GPU is lost|has fallen off the bus|no healthy devices present|unhealthy devices",
        ),
        "The container has no working GPU.",
        "Check the GPU limit in the Deployment, and the node's driver and device plugin; drain the node if its GPU is broken.",
    ),
    Cause(
        "cuda-error",
        Kind.GPU,
        (r"CUDA (?:driver )?error: (?P<why>[^\n]+)", r"(?P<why>cudaErr\w+|CUBLAS_STATUS_\w+|NCCL error[^\n]*|Xid \d+)"),
        "A CUDA error ended the engine: {why}.",
        "Restart the model. If the error comes back, try another engine image, or another node: the GPU may be broken.",
        lambda groups: {"why": (groups.get("why") or "").rstrip(". ")},
    ),
    Cause(
        "tensor-parallel",
        Kind.ARGUMENTS,
        (
            r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)",
            r"(?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<asked>\d+)\)",
            r"tensor[ _]parallel.{0,60}(?:greater|larger|more|exceeds).{0,60}GPUs?",
            r"number of required GPUs exceeds the total number of available GPUs",
        ),
        "`--tensor-parallel-size` {asked} does not match the GPUs or the model's heads.",
        "Set it to the number of GPUs that the container has (1 for one GPU).",
    ),
    Cause(
        "remote-code",
        Kind.ARGUMENTS,
        (
            r"contains custom code which must be executed|requires you to execute the \w+ file",
            r"(?:pass|set) the (?:argument|option) [`'\"]?-{0,2}trust[_-]remote[_-]code",
        ),
        "The model contains its own code, which runs only with `--trust-remote-code`.",
        "Read the code in the model's repository. If you trust it, add `arg=--trust-remote-code`; otherwise choose another model.",
    ),
    Cause(
        "architecture",
        Kind.ARCHITECTURE,
        (
            r"Model architectures \[?'?(?P<what>[\w', ]+?)'?\]? are not supported",
            r"model type [`'\"]?(?P<what>[\w.-]+)[`'\"]? but Transformers does not recognize this architecture",
            r"unknown model architecture: '?(?P<what>[\w.-]+)",
            r"GGUF model with architecture (?P<what>[\w.-]+) is not supported",
            r"(?P<what>\w+) has no (?:vLLM|SGlang) implementation",
            r"unknown variant `(?P<what>[\w.-]+)`",
            r"Transformers does not recognize this architecture",
        ),
        "This engine does not support the model's architecture {what}.",
        "Use a newer engine image that supports it, or another model.",
    ),
    Cause(
        "quantization",
        Kind.ARGUMENTS,
        (
            r"model config \((?P<config>[\w-]+)\) does not match the quantization method specified in the "
            r"`?quantization`? argument \((?P<asked>[\w-]+)\)",
            r"(?:Unknown|Invalid) quantization method:? ?(?P<asked>[\w-]*)",
            r"Cannot find the config file for (?P<asked>[\w-]+)",
            r"not supported for quantization method (?P<asked>[\w-]+)",
            r"not aligned with the quantized weight shape",
        ),
        "`--quantization={asked}` does not match the weights {config}.",
        "Set it to the format of the weights, or remove the argument: vLLM reads the format from the weights.",
        lambda groups: {"config": f"(their format is {groups['config']})" if groups.get("config") else ""},
    ),
    Cause(
        "gated",
        Kind.GATED,
        (r"GatedRepoError|gated repo|Access to model \S+ is restricted|awaiting a review from the repo authors",),
        "Hugging Face refused the download of the weights: the model is gated, and the token has no access to it.",
        "Accept the model's licence with the account whose token the pod uses, or choose an open model.",
    ),
    Cause(
        "token-without-permission",
        Kind.GATED,
        (r"fine-grained token settings|enable access to public gated repositories",),
        "Hugging Face refused the download of the weights: the token lacks the permission to read gated repositories.",
        "Enable this permission in the token's settings on Hugging Face.",
    ),
    Cause(
        "rate-limit",
        Kind.RATE_LIMIT,
        (
            r"\b429 Client Error|HTTP(?:/\d\S*)?(?: status(?: code)?)? ?:? ?429|\b429\b.{0,40}too many|too many requests",
            r"toomanyrequests|rate limit (?:reached|exceeded)",
        ),
        "Hugging Face refused the download of the weights: too many requests (429).",
        "Try again later, or copy the weights to the model's volume by hand (kubectl cp).",
    ),
    Cause(
        "repository-not-found",
        Kind.NOT_FOUND,
        (
            r"RepositoryNotFoundError: (?P<code>\d{3})",
            r"RepositoryNotFoundError|Repository Not Found|invalid username or password|invalid user token",
            r"\b(?P<code>401) Client Error|is not a valid model identifier listed on|Invalid credentials in Authorization header",
        ),
        "Hugging Face does not show this model to the pod's token {code}: there is no such model, it is private, or the token"
        " is missing or invalid.",
        "Check the model's name, and put a valid token into the Secret that the pod reads.",
        lambda groups: {"code": f"({groups['code']})" if groups.get("code") else ""},
    ),
    Cause(
        "revision-not-found",
        Kind.NOT_FOUND,
        (r"RevisionNotFoundError|Invalid rev id|(?<!Local)EntryNotFoundError|\b404 Client Error",),
        "Hugging Face has no such revision or file (404).",
        "Check the revision and the file names in the staging script.",
    ),
    Cause(
        "proxy",
        Kind.NETWORK,
        (
            r"Tunnel connection failed: (?P<code>\d{3})",
            r"CONNECT tunnel failed, response (?P<code>\d{3})",
            r"(?P<code>407) Proxy Authentication Required",
            r"connect to proxy|ProxyError",
        ),
        "The proxy refused the connection {code}: the cluster does not allow this download.",
        "Allow the host (huggingface.co and *.hf.co) in the proxy, or correct HTTPS_PROXY and NO_PROXY of the container.",
        lambda groups: {"code": f"({groups['code']})" if groups.get("code") else ""},
    ),
    Cause(
        "egress-refused",
        Kind.NETWORK,
        (r"\b403 (?:Client Error|Forbidden)[^\n]*(?:\n[^\n]*){0,2}?https?://(?P<host>[\w.-]+)", r"\b403 (?:Client Error|Forbidden)"),
        "The download of the weights was refused (403) {host}, although the model is not marked as gated: a proxy or a"
        " network policy may block it.",
        "Allow huggingface.co and *.hf.co (the hosts of the files) in the egress policy or proxy. If the model is gated"
        " or private, check the token.",
        lambda groups: {"host": f"by {groups['host']}" if groups.get("host") else ""},
    ),
    Cause(
        "tls",
        Kind.NETWORK,
        (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|SSLCertVerificationError|unable to get local issuer",),
        "The TLS certificate of the server is not trusted: a proxy intercepts TLS, or a CA is missing.",
        "Mount the CA of the proxy and set SSL_CERT_FILE and REQUESTS_CA_BUNDLE in the container.",
    ),
    Cause(
        "shared-memory",
        Kind.DISK,
        (r"Bus error|/dev/shm|unable to (?:allocate|write to|open) shared memory",),
        "The container's shared memory (/dev/shm) is too small.",
        "Mount an emptyDir with `medium: Memory` at /dev/shm in the Deployment.",
    ),
    Cause(
        "disk-full",
        Kind.DISK,
        (
            r"(?:No space left on device|Errno 28|ENOSPC)(?:[^\n]{0,80}?'(?P<path>/[^']+)')?",
            r"Disk quota exceeded|Errno 122|Not enough free disk space|no space left",
        ),
        "The disk is full (no space left on device) {path}.",
        "Enlarge the volume (PVC), or remove models from it that are no longer served.",
        lambda groups: {"path": f"at {groups['path']}" if groups.get("path") else ""},
    ),
    Cause(
        "cache-not-writable",
        Kind.PERMISSION,
        (
            r"(?:Permission denied|Errno 13|EACCES|Read-only file system|Errno 30|EROFS)(?:[^\n]{0,80}?'(?P<path>/[^']+)')?",
            r"is not writable|not writeable|Operation not permitted|PermissionError at (?P<path>/\S+)",
        ),
        "The container may not write {path}: permission denied.",
        "Set `fsGroup` (and `runAsUser`) in the pod's securityContext to the volume's group, or mount the path writable.",
        lambda groups: {"path": groups.get("path") or "to its volume or cache"},
    ),
    Cause(
        "weights-corrupt",
        Kind.WEIGHTS,
        (
            r"SafetensorError:? ?(?P<why>[^\n]*)",
            r"(?P<why>Error while deserializing header[^\n]*)",
            r"PytorchStreamReader failed|failed finding central directory|Ran out of input|Consistency check failed",
            r"invalid magic|data is not within the file bounds|corrupted or incomplete|unexpected end of file",
            r"(?P<why>config file at '[^']+' is not a valid JSON file)",
        ),
        "A file of the model is incomplete or corrupt {why}.",
        "Delete the model's directory on the volume, so that it is staged again.",
        lambda groups: {"why": f"({groups['why']})" if groups.get("why") else ""},
    ),
    Cause(
        "cache-cold",
        Kind.WEIGHTS,
        (
            r"offline mode is enabled|OfflineModeIsEnabled|outgoing traffic has been disabled|HF_HUB_OFFLINE",
            r"couldn't find them? in the cached files",
        ),
        "The weights are not in the cache, and the engine runs offline, so it cannot download them.",
        "Stage the weights first: check that the staging container names the same model, revision and cache directory.",
        vague=True,
    ),
    Cause(
        "weights-missing",
        Kind.WEIGHTS,
        (
            r"Cannot find any model weights|weights were not initialized from checkpoint|failed to open GGUF file",
            r"does not appear to have a file named (?P<what>\S+)|Invalid repository ID or local directory",
            r"Repo id must be in the form [^\n]*?: '(?P<what>/[^']+)'",
            r"No such file or directory:? ?'?(?P<what>[^'\n]*(?:safetensors|\.bin|\.gguf|config\.json|snapshots|models--)[^'\n]*)",
        ),
        "The engine does not find the weights {what}.",
        "Check `--model`, the mount path of the volume, and the files that the staging container put there.",
        _detail,
    ),
    Cause(
        "tokenizer",
        Kind.TOKENIZER,
        (
            r"Can't load (?:the )?tokenizer|instantiate the backend tokenizer|Tokenizer class (?P<what>\w+) does not exist",
            r"TemplateSyntaxError|TemplateError|chat template (?:string )?(?:is|appears|path|file)|supplied chat template",
            r"SentencePiece|tiktoken.{0,60}(?:error|required)|tekken",
        ),
        "The tokenizer or the chat template cannot be loaded {what}.",
        "Check that all tokenizer files are staged, and `--tokenizer`, `--tokenizer-mode` and `--chat-template`.",
        _detail,
    ),
    Cause(
        "unrecognized-arguments",
        Kind.ARGUMENTS,
        (
            r"error: unrecognized arguments: (?P<what>[^\n]+)",
            r"unexpected argument '(?P<what>[^']+)' found",
            r"(?:(?:unknown|invalid) argument|no such option):? (?P<what>-[^\n]+)",
        ),
        "This engine does not support the argument `{what}`.",
        _ARGUMENTS,
    ),
    Cause(
        "invalid-argument",
        Kind.ARGUMENTS,
        (
            r"error: argument (?P<flag>[^:\n]+): (?P<why>[^\n]+)",
            r"error: (?P<why>(?:invalid value|the following arguments are required:) [^\n]+)",
        ),
        "An argument of the engine is invalid: {flag} {why}.",
        _ARGUMENTS,
        lambda groups: {"why": (groups.get("why") or "").rstrip(".")},
    ),
    Cause(
        "configuration-refused",
        Kind.ARGUMENTS,
        (r"validation errors? for (?P<what>\w+)\s+(?:[\w.]+\s*\n\s*)?(?:Value error, |Assertion failed, )?(?P<why>[^\[]+)",),
        "vLLM refuses its configuration ({what}): {why}.",
        _ARGUMENTS,
        lambda groups: {"why": " ".join((groups.get("why") or "").split()).rstrip(". ")[:400]},
    ),
    Cause(
        "address-in-use",
        Kind.PORT,
        (r"address already in use|Errno 98|EADDRINUSE",),
        "The engine's port is already in use in the pod.",
        "Set another `--port` for the engine: another container of the pod, or a process on the host's network, uses this port.",
        crashes=2,
    ),
    Cause(
        "wrong-architecture",
        Kind.IMAGE,
        (r"exec format error",),
        "The image is built for another processor (exec format error).",
        "Use an image for the node's architecture (amd64 or arm64).",
    ),
    Cause(
        "package-missing",
        Kind.IMAGE,
        (r"No module named '(?P<what>[\w.]+)'", r"ImportError: Please install `?(?P<what>[\w.-]+)"),
        "The image lacks the Python package {what}.",
        "Use an engine image that has it, or weights and arguments that do not need it.",
        vague=True,
    ),
    Cause(
        "command-not-found",
        Kind.IMAGE,
        (r"executable file not found|no such file or directory: unknown|command not found",),
        "The image does not contain the program that the container starts.",
        "Check `command`, `args` and the image in the Deployment.",
        vague=True,
    ),
    Cause(
        "dns",
        Kind.NETWORK,
        (
            r"name resolution|Name or service not known|getaddrinfo failed|Failed to resolve|Could not resolve host|no such host",
        ),
        "A host name cannot be resolved (DNS).",
        _NETWORK,
        crashes=3,
        vague=True,
    ),
    Cause(
        "start-timeout",
        Kind.CONFIGURATION,
        (
            r"Timed out waiting for engine (?:core )?process(?:es)? to start(?:[^\n]*?Waited (?P<waited>\d+) ?s)?",
            r"Did not receive response from front-end process within (?P<waited>\d+)",
        ),
        "The engine's start timed out {waited}: loading takes longer than the engine allows.",
        "Raise `VLLM_ENGINE_READY_TIMEOUT_S` in the Deployment, or stage the weights on a faster volume.",
        lambda groups: {"waited": f"after {groups['waited']} s" if groups.get("waited") else ""},
        vague=True,
    ),
    Cause(
        "connection",
        Kind.NETWORK,
        (
            r"Connection refused|Connection reset|timed? ?out|Max retries exceeded|Network is unreachable",
            r"No route to host|Remote end closed|IncompleteRead|LocalEntryNotFoundError|\b5\d\d Server Error",
            r"server error \(5\d\d|CAS service error",
        ),
        "A connection failed while the container was starting.",
        _NETWORK,
        crashes=3,
        vague=True,
    ),
)  # fmt: skip
"""The order matters: if one error matches two causes, the first is the root cause."""
