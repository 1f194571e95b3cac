"""Select the GGUF file of a repository for llama.cpp: one of its quantizations, small enough for the GPU."""

import re
from typing import NamedTuple

from manifests.model_names import GGUF_FORMAT
from manifests.sizing import Cache, Machine, ModelFacts, in_gb
from manifests.tree import ManifestError

_ROOM = 0.85
"""The share of the GPU's memory that weights may take, so that space is left for the cache and the buffers."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
_BESIDE = re.compile(r"(?i)mmproj|imatrix|-draft|mtp-")
_USUAL = "Q4_K_M"
"""The quantization that most repositories have, and that llama.cpp selects by default."""


class Chosen(NamedTuple):
    """A file (its first part), and the facts with its size."""

    file: str
    facts: ModelFacts


def choose(facts: ModelFacts, wanted: str | None, machine: Machine, *, exact: bool) -> Chosen:
    """The file of the wanted quantization; otherwise, unless `exact`, the largest that fits the GPU.

    Raises ManifestError if there is no such file. If the files are unknown, the name is derived from the repository's name.
    """
    kind = facts.model_copy(update={"unservable": "", "quantization": None})
    if not facts.gguf:
        if facts.revision or not re.search(r"(?i)gguf", facts.hf_id):
            raise ManifestError(
                f"{facts.hf_id} has no GGUF files, which llama.cpp needs: name a repository that has them."
            )
        name = re.sub(r"(?i)[-_.]gguf$", "", facts.hf_id.rpartition("/")[2])
        return Chosen(f"{name}-{wanted or _USUAL}.gguf", _sized(kind, facts.weight_bytes))
    files = _whole(facts)
    mark = (wanted or _USUAL).upper()
    same = [name for each in (mark, mark.removeprefix("UD-")) for name in files if _format(name) == each]
    if same:
        return Chosen(same[0], _sized(kind, files[same[0]]))
    there_are = ", ".join(sorted({_format(name) for name in files} - {""}))
    if exact:
        raise ManifestError(
            f"{facts.hf_id} has no file in {wanted}; it has {there_are}. Use one of them as quantization=."
        )
    fitting = [name for name, size in files.items() if size <= machine.vram_bytes * _ROOM]
    if not fitting:
        smallest = min(files.values())
        raise ManifestError(
            f"{facts.hf_id} does not fit: its smallest file has {in_gb(smallest)}. Choose a smaller model."
        )
    largest = max(fitting, key=lambda name: files[name])
    return Chosen(largest, _sized(kind, files[largest]))


def _whole(facts: ModelFacts) -> dict[str, int]:
    """The files, those in several parts as their first part with the size of all."""
    found: dict[str, int] = {}
    for name, size in sorted(facts.gguf.items()):
        if not _BESIDE.search(name):
            first = _PART.sub(lambda part: f"-00001-of-{part[2]}", name)
            found[first] = found.get(first, 0) + size
    return found


def _format(name: str) -> str:
    found = list(GGUF_FORMAT.finditer(name))
    return found[-1][0].upper() if found else ""


def _sized(facts: ModelFacts, size: int) -> ModelFacts:
    """The facts of one file. Without the model's own configuration the cache is unknown, and only weights are compared."""
    unknown = facts.cache is None and not facts.layers
    more = {"cache": Cache(), "unlimited": True} if unknown else {}
    return facts.model_copy(
        update={"weight_bytes": size, "staged_bytes": size, "repo_bytes": size, "allow_patterns": (), **more}
    )
