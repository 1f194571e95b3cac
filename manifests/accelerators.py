"""Recognise the resources of a container that are GPUs or parts of GPUs.

The device plugin chooses the name of the resource. Sources: NVIDIA's k8s-device-plugin (`nvidia.com/gpu`, `.shared`
with time-slicing and `renameByDefault`, `nvidia.com/mig-1g.10gb` with the mixed MIG strategy), AMD's (`amd.com/gpu`,
and partitions such as `amd.com/cpx_nps4` with the mixed strategy), Intel's (`gpu.intel.com/i915`, `gpu.intel.com/xe`)
and Intel's device plugin for Gaudi (`habana.ai/gaudi`).
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from manifests.sizing.quantities import whole

KNOWN = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-*",
    "amd.com/gpu",
    "amd.com/?px_nps*",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
    "habana.ai/gaudi",
)
"""Intel's other names (`gpu.intel.com/memory.max`, `…/millicores`, `…/xe_monitoring`) describe a share, or are only for monitoring."""


def is_gpu(resource: str, further_names: Iterable[str] = ()) -> bool:
    """Return whether a resource is a GPU. `further_names` are further resource names of the platform; `*` is a wildcard."""
    # A plugin that shares devices adds `.shared` to the name.
    name = resource.removesuffix(".shared")
    return any(
        fnmatchcase(resource_name, pattern)
        for pattern in (*KNOWN, *further_names)
        for resource_name in (resource, name)
    )


def gpus(limits: Mapping[str, object], further_names: Iterable[str] = ()) -> int:
    """The number of devices in a container's limits; a part of a device counts as one."""
    patterns = tuple(further_names)
    return sum(whole(quantity) for resource, quantity in limits.items() if is_gpu(str(resource), patterns))
