"""Select a GGUF file of a repository for llama.cpp: a quantization that is small enough for the GPU."""

import re
from typing import NamedTuple

from manifests.model_names import GGUF_FORMAT
from manifests.sizing import Cache, Machine, ModelFacts, in_gb
from manifests.tree import ManifestError

_ROOM = 0.85
"""The share of the GPU's memory that weights may take, so that space is left for the cache and the buffers."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
_NOT_WEIGHTS = re.compile(r"(?i)mmproj|imatrix|-draft|mtp-")
_DEFAULT_FORMAT = "Q4_K_M"
"""The quantization that most repositories have, and that llama.cpp selects by default."""


class ChosenFile(NamedTuple):
    """The name of a file (its first part), and the facts with the file's size."""

    file: str
    facts: ModelFacts


def choose(facts: ModelFacts, requested: str | None, machine: Machine, *, exact: bool) -> ChosenFile:
    """The file with the quantization `requested`; otherwise, unless `exact`, the largest file that fits the GPU.

    Raises ManifestError if there is no such file. If the files are unknown, the name is derived from the repository's name.
    """
    kind = facts.model_copy(update={"unservable": "", "quantization": None})
    if not facts.gguf:
        if facts.revision or not re.search(r"(?i)gguf", facts.hf_id):
            raise ManifestError(
                f"{facts.hf_id} has no GGUF files, which llama.cpp needs: name a repository that has them."
            )
        name = re.sub(r"(?i)[-_.]gguf$", "", facts.hf_id.rpartition("/")[2])
        return ChosenFile(f"{name}-{requested or _DEFAULT_FORMAT}.gguf", _facts_of_file(kind, facts.weight_bytes))
    files = _sizes_of_files(facts)
    mark = (requested or _DEFAULT_FORMAT).upper()
    requested_files = [
        name for format_name in (mark, mark.removeprefix("UD-")) for name in files if _format(name) == format_name
    ]
    if requested_files:
        return ChosenFile(requested_files[0], _facts_of_file(kind, files[requested_files[0]]))
    there_are = ", ".join(sorted({_format(name) for name in files} - {""}))
    if exact:
        raise ManifestError(
            f"{facts.hf_id} has no file in {requested}; it has {there_are}. Give one of these with quantization=."
        )
    fitting = [name for name, size in files.items() if size <= machine.vram_bytes * _ROOM]
    if not fitting:
        smallest = min(files.values())
        raise ManifestError(
            f"{facts.hf_id} does not fit: its smallest file has {in_gb(smallest)}. Choose a smaller model."
        )
    largest = max(fitting, key=lambda name: files[name])
    return ChosenFile(largest, _facts_of_file(kind, files[largest]))


def _sizes_of_files(facts: ModelFacts) -> dict[str, int]:
    """The size of each file; a file in several parts has the name of its first part and the size of all parts."""
    sizes: dict[str, int] = {}
    for name, size in sorted(facts.gguf.items()):
        if not _NOT_WEIGHTS.search(name):
            first = _PART.sub(lambda part: f"-00001-of-{part[2]}", name)
            sizes[first] = sizes.get(first, 0) + size
    return sizes


def _format(name: str) -> str:
    matches = list(GGUF_FORMAT.finditer(name))
    return matches[-1][0].upper() if matches else ""


def _facts_of_file(facts: ModelFacts, size: int) -> ModelFacts:
    """The facts of one file. If the cache is unknown, because the repository has no configuration, only weights count."""
    unknown = facts.cache is None and not facts.layers
    cache_facts = {"cache": Cache(), "unlimited": True} if unknown else {}
    return facts.model_copy(
        update={"weight_bytes": size, "staged_bytes": size, "repo_bytes": size, "allow_patterns": (), **cache_facts}
    )
