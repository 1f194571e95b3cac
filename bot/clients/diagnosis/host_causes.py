"""Causes in the image, the container's limits and the files of the model, identified by their text in the log. Pure.

They are more specific than those of `bot.clients.diagnosis.causes`, so they are checked first. The texts come from the
issue trackers of PyTorch, vLLM, Triton and tokenizers (for example vLLM #12847, #13608, tokenizers #1297).
"""

from bot.clients.diagnosis.cause import Cause, Kind

HOST_CAUSES: tuple[Cause, ...] = (
    Cause(
        "nccl",
        Kind.GPU,
        (
            r"NCCL error[^\n]*?(?P<why>unhandled \w+ error|invalid usage|internal error|remote process exited)",
            r"NCCL error|NCCL WARN",
        ),
        "The communication between the GPUs failed (NCCL{why}).",
        "With one GPU, set `--tensor-parallel-size=1`. Otherwise mount an emptyDir with `medium: Memory` at /dev/shm, and set"
        " `NCCL_DEBUG=INFO` for details.",
        lambda groups: {"why": f": {groups['why']}" if groups.get("why") else ""},
    ),
    Cause(
        "driver-mismatch",
        Kind.DRIVER,
        (r"Error 803|unsupported display driver / cuda driver combination",),
        "The node's NVIDIA driver and the CUDA libraries of the image do not match (error 803).",
        "Remove the CUDA compatibility libraries from `LD_LIBRARY_PATH`, or use an image for the driver's CUDA version.",
    ),
    Cause(
        "driver-replaced",
        Kind.DRIVER,
        (r"driver/library version mismatch",),
        "The node's NVIDIA driver was replaced at run time: its kernel module and its libraries have different versions.",
        "Drain and replace the node (deleting it lets the autoscaler add another one).",
    ),
    Cause(
        "gpu-not-initialized",
        Kind.GPU,
        (r"Error 802|system not yet initialized|CUDA driver initialization failed",),
        "The node's GPU is not initialized.",
        "Wait until the node's driver and fabric manager run, or drain the node.",
        crashes=2,
    ),
    Cause(
        "kernel-resources",
        Kind.GPU,
        (r"out of resource: shared memory, Required: (?P<need>\d+), Hardware limit: (?P<have>\d+)",),
        "A kernel needs {need} bytes of the GPU's shared memory; this GPU has {have}.",
        "Use a newer engine image, another attention backend or quantization, or another GPU.",
    ),
    Cause(
        "attention-backend",
        Kind.GPU,
        (
            r"Selected backend \S*?(?P<what>\w+) is not valid for this configuration[^\n]*?\[(?P<why>[^\]]*)\]",
            r"No valid attention backend",
        ),
        "The attention backend {what} does not support this model on this GPU {why}.",
        "Remove `VLLM_ATTENTION_BACKEND` (or `--attention-backend`), so that the engine chooses one.",
        lambda groups: {"why": f"({groups['why']})" if groups.get("why") else ""},
    ),
    Cause(
        "image-libraries",
        Kind.IMAGE,
        (
            r"(?P<what>[\w.+-]+\.so[\w.]*)[^\n]*undefined symbol",
            r"(?P<what>lib(?!cuda\.so)[\w.+-]+\.so[\w.]*): cannot open shared object file",
            r"cannot import name '(?P<what>\w+)' from",
        ),
        "The libraries in the image do not match each other: {what} cannot be loaded.",
        "Use an unmodified image of one release of the engine, without packages that are installed on top of it.",
    ),
    Cause(
        "compiler-missing",
        Kind.IMAGE,
        (
            r"(?:Failed|Could not) (?:to )?find (?P<what>C compiler|nvcc)",
            r"(?P<what>Ninja) is required",
            r"No such file or directory: '(?P<what>ninja|gcc|cc|nvcc)'",
        ),
        "The engine compiles a kernel when it starts, and the image has no {what}.",
        "Use the complete image of the engine instead of a reduced one, or disable the feature that compiles.",
        lambda groups: {"what": groups.get("what") or "compiler"},
    ),
    Cause(
        "host-memory",
        Kind.MEMORY,
        (
            r"Cannot allocate memory|DefaultCPUAllocator|std::bad_alloc|^MemoryError|Errno 12\b",
            r"Too large swap space|total CPU memory is allocated",
        ),
        "The container has too little memory (RAM) to load the model.",
        "Raise the container's memory limit (on a larger machine, if the node's memory is used up), or lower"
        " `--swap-space` and `--cpu-offload-gb`.",
    ),
    Cause(
        "process-limits",
        Kind.CONFIGURATION,
        (r"Too many open files|can't start new thread|Resource temporarily unavailable|Errno 24\b|pthread_create failed",),
        "The container has reached its limit of processes or open files.",
        "Raise the node's pod PID limit (kubelet `podPidsLimit`) or the limit of open files.",
    ),
    Cause(
        "volume-broken",
        Kind.VOLUME,
        (r"(?:Stale (?:NFS )?file handle|Input/output error|Errno (?:5|116)\b)(?:[^\n]{0,80}?'(?P<path>/[^']+)')?",),
        "The volume cannot be read: an I/O error {path}.",
        "Check the disk or file server behind the volume; a new pod mounts it again.",
        lambda groups: {"path": f"at {groups['path']}" if groups.get("path") else ""},
    ),
    Cause(
        "lora",
        Kind.ARGUMENTS,
        (r"(?P<why>(?:LoRA rank \d+|No valid LoRA|LoRAConfig|[^\n]{0,40}LoRA adapter)[^\n]*)",),
        "The engine refuses a LoRA adapter: {why}.",
        "Correct `--lora-modules`, `--max-lora-rank` or the adapter's files in git.",
        lambda groups: {"why": (groups.get("why") or "").rstrip(".")},
    ),
    Cause(
        "tokenizer-version",
        Kind.TOKENIZER,
        (
            r"did not match any variant of untagged enum (?P<what>\w+)",
            r"'(?P<what>\w*Tokenizer\w*)' object has no attribute",
            r"could not parse ModelProto",
        ),
        "The tokenizer's files do not match the engine's version of transformers and tokenizers {what}.",
        "Use a newer engine image, or stage the tokenizer files again.",
        lambda groups: {"what": f"({groups['what']})" if groups.get("what") else ""},
    ),
    Cause(
        "weights-mismatch",
        Kind.WEIGHTS,
        (
            r"KeyError: '(?P<what>(?:model|layers|transformer|lm_head|blk|language_model|visual)\.[\w.]+)'",
            r"There is no module or parameter named '(?P<what>[\w.]+)'",
            r"(?P<what>size of tensor a \(\d+\) must match the size of tensor b \(\d+\))",
            r"(?P<what>size mismatch for [\w.]+)",
            r"AssertionError: (?P<what>[^\n]*loaded_weight\.(?:shape|size)[^\n]*)",
        ),
        "The weights do not match the model as this engine implements it: {what}.",
        "Check that the weights are complete and that `--quantization` matches them. If both are right, use a newer engine image.",
    ),
)  # fmt: skip
"""The order matters, as in `bot.clients.diagnosis.causes`."""
