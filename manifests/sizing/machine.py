"""The GPU node: its memory, and its GPU's memory as CUDA reports it.

vLLM multiplies `--gpu-memory-utilization` by the value of `torch.cuda.mem_get_info`. That is less than `nvidia-smi`
shows (for an L4, 22.03 GiB instead of 22.49 GiB), and `nvidia-smi` shows less than the card's nominal memory.
"""

import re

from pydantic import BaseModel

from manifests.sizing.quantities import GIB

CUDA_GIB = {
    "T4": 14.56,
    "V100": 15.77,
    "V100-32GB": 31.73,
    "A10": 22.03,
    "A10G": 21.98,
    "L4": 22.03,
    "A30": 23.50,
    "RTX-3090": 23.57,
    "RTX-4090": 23.52,
    "RTX-5090": 31.36,
    "A40": 44.34,
    "L40": 44.39,
    "L40S": 44.39,
    "A6000": 47.40,
    "RTX-6000": 47.40,
    "RTX-PRO-6000": 94.97,
    "A100-40GB": 39.39,
    "A100": 39.39,
    "A100-80GB": 79.14,
    "H100": 79.10,
    "H200": 139.72,
    "B200": 178.35,
}
"""GPU memory as CUDA reports it in GiB: the lowest "total capacity" that we found for each GPU in public reports of
`torch.OutOfMemoryError`, which prints this figure; for the L4, a real card with vLLM 0.29. A bare `A100` means the
40 GB card: a figure that is too small costs some context, a figure that is too large fails the boot.
"""

# Google's machines with one GPU: memory in GiB (compute documentation, "Accelerator-optimized machines").
_MACHINES = {
    "g2-standard-4": 16,
    "g2-standard-8": 32,
    "g2-standard-12": 48,
    "g2-standard-16": 64,
    "g2-standard-32": 128,
    "a2-highgpu-1g": 85,
    "a2-ultragpu-1g": 170,
    "a3-highgpu-1g": 234,
}
_USUAL = {
    "L4": "g2-standard-4",
    "A100-40GB": "a2-highgpu-1g",
    "A100-80GB": "a2-ultragpu-1g",
    "H100": "a3-highgpu-1g",
}
_FAMILY = {name: name.split("-")[0] for name in _MACHINES}

# Memory that the host needs besides the weights that are staged through it: kubelet and system (GKE reserves 25 % of
# the first 4 GiB, 20 % of the next 4, 10 % of the next 8: 2.6 GiB of 16, see "Plan node sizes" in GKE's documentation).
HOST_COMFORT = 0.83


class Machine(BaseModel, frozen=True, defer_build=True):
    """The GPU node. The default is Google's g2-standard-4: 16 GB of memory and one L4.

    `vram_bytes` is the GPU's memory as CUDA reports it.
    """

    vram_bytes: int = int(CUDA_GIB["L4"] * GIB)
    host_memory_bytes: int = 16 * GIB
    gpu: str = "L4"
    name: str = "g2-standard-4"

    @classmethod
    def of(cls, *, gpu: str, vram_mib: int | None, host_memory_gib: float, name: str) -> "Machine":
        """Return the machine from the settings; raises ValueError for an unknown GPU without `vram_mib`.

        For a known GPU, the smaller of `vram_mib` and `CUDA_GIB` is used, because people often enter the value of
        `nvidia-smi`.
        """
        table_bytes = cuda_bytes(gpu)
        configured = vram_mib * 2**20 if vram_mib else None
        if table_bytes is None and configured is None:
            raise ValueError(f"the memory of a {gpu} is not known: set gpu.vram_mib to what CUDA reports")
        return cls(
            vram_bytes=min(size for size in (table_bytes, configured) if size is not None),
            host_memory_bytes=int(host_memory_gib * GIB),
            gpu=gpu,
            name=name,
        )


def cuda_bytes(gpu: str) -> int | None:
    """Return the memory in bytes of a GPU with a name like `A100-80`, `nvidia-l4` or `RTX 4090`; None if it is unknown."""
    name = re.sub(r"^(NVIDIA|TESLA|GEFORCE)[-_ ]+", "", gpu.upper().strip())
    name = re.sub(r"^(NVIDIA|TESLA|GEFORCE)[-_ ]+", "", name)
    name = re.sub(r"[-_ ]+", "-", name).replace("GIB", "GB")
    name = re.sub(r"-(SXM\d?|PCIE|HBM3E?)\b", "", name)
    name = re.sub(r"(?<=-)(40|80|32|16|24|48|94|141)$", r"\1GB", name)
    name = re.sub(r"^RTX(?=\d)", "RTX-", name)
    bare = re.sub(r"-\d+GB$", "", name)
    gib = CUDA_GIB.get(name) or CUDA_GIB.get(bare)
    return int(gib * GIB) if gib else None


def usual_machine(gpu: str) -> tuple[str, int]:
    """Return Google's smallest machine with one such GPU, and its memory in bytes; the memory is 0 if Google has no such machine."""
    size = cuda_bytes(gpu)
    for model, name in _USUAL.items():
        if size == cuda_bytes(model):
            return name, _MACHINES[name] * GIB
    return f"a machine with one {gpu}", 0


def larger_machine(name: str, weights: int) -> str:
    """Return the smallest machine of the same family with enough memory for the weights, or ""."""
    if name not in _MACHINES:
        return ""
    return next(
        (
            machine
            for machine, gib in _MACHINES.items()
            if _FAMILY[machine] == _FAMILY[name] and gib * GIB * HOST_COMFORT >= weights
        ),
        "",
    )
