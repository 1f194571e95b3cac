"""Sizing: the kind of a model, its requirements, and whether it can run on the machine.

| module | owns |
| --- | --- |
| `weights` | the files that the engine loads, and the staged files |
| `configuration` | `config.json` under all its names, with the defaults of Transformers' classes |
| `cache` | the memory of each layer on the GPU |
| `facts` | the known facts about a model |
| `kind` | the kind of a model, from the content of its repository |
| `flags` | the arguments that a model needs |
| `machine` | the node and its GPU |
| `fit` | the verdict |
"""

from manifests.sizing.cache import Cache, Layers
from manifests.sizing.facts import FIGURES, POOLING_KINDS, MissingFigures, ModelFacts, kv_bytes_per_token
from manifests.sizing.fit import (
    Number,
    Overhead,
    Sizing,
    largest_context,
    memory_for,
    overhead_of,
    size,
    storage_for,
    volume_need,
)
from manifests.sizing.machine import Machine
from manifests.sizing.quantities import GB, GIB, in_gb, in_gib, quantity_bytes, tokens
from manifests.sizing.weights import allow_patterns, estimated_weights, loaded_files, staged_files

__all__ = [
    "FIGURES",
    "GB",
    "GIB",
    "POOLING_KINDS",
    "Cache",
    "Layers",
    "Machine",
    "MissingFigures",
    "ModelFacts",
    "Number",
    "Overhead",
    "Sizing",
    "allow_patterns",
    "estimated_weights",
    "in_gb",
    "in_gib",
    "kv_bytes_per_token",
    "largest_context",
    "loaded_files",
    "memory_for",
    "overhead_of",
    "quantity_bytes",
    "size",
    "staged_files",
    "storage_for",
    "tokens",
    "volume_need",
]
