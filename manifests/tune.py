"""The change that stores the compile caches of an endpoint on its volume; `rules.cold_start` explains the reason."""

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from manifests import patches, volumes
from manifests.change import Change
from manifests.contract import ModelEndpoint, describe
from manifests.edit import Document, Edit, find, items
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.review import contract_rows
from manifests.rules.cold_start import DIGEST, DIRECTORY, applies, lost, mounts, pulled_again
from manifests.sizing import GIB, estimated_weights, quantity_bytes, storage_for, volume_need
from manifests.tree import ChangeSet, ManifestError

_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "XDG_CACHE_HOME": "",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""The cache variables, with their directories below the image's directory."""
_ROOM = 2 * GIB
"""The space on the volume for the compiled files of one image, in bytes."""


def plan_tune(platform: Platform, name: str) -> Change:
    """The pull request that stores the compile caches on the volume; raises ManifestError if they cannot be stored there."""
    pieces = platform.require(name)
    patches.refuse(pieces.name, pieces.opaque)
    before = describe(pieces, platform.layout)
    if not applies(pieces):
        raise ManifestError(f"{name} has no compile caches to keep: this needs vLLM on a GPU with a writable volume.")
    match = DIGEST.search(pieces.image)
    if match is None:
        raise ManifestError(
            f"The image of {name} is not pinned by its digest, so caches of different images could not be distinguished. Write it as"
            " NAME@sha256:… first."
        )
    folder = f"{mounts(pieces)[0]}/{DIRECTORY}/{match['digest']}"
    document = _with_caches(pieces, folder)
    files = {document.path: document.text}
    storage = _needed_storage(before)
    if storage and pieces.pvc is not None:
        path = pieces.pvc.document.path
        claim = Document(path, files.get(path, pieces.pvc.document.text))
        files[path] = volumes.with_size(claim, before.pvc_name, storage).text
    changed = {path: text for path, text in files.items() if text != platform.read(path)}
    if not changed:
        raise ManifestError(f"{name} already keeps its compile caches on its volume: nothing would change.")
    warnings = (
        (f"The volume {before.pvc_name} grows from {before.pvc_size} to {storage}; it never shrinks.",)
        if storage
        else ()
    )
    return Change(
        changes=ChangeSet(files=dict(changed)),
        title=f"perf(serving): keep the compile caches of {name}",
        intent=f"Keeps the compile caches of {name} on its volume, so that later boots of the same image do not compile again.",
        summary=(*contract_rows(before), ("Compile caches", folder)),
        warnings=(
            "The first boot of an image still compiles. Directories of older images are not removed automatically.",
            *warnings,
        ),
        endpoint=before,
    )


def _with_caches(pieces: Pieces, folder: str) -> Document:
    document, edits = pieces.deployment.document, list[Edit]()
    for name, node in lost(pieces):
        path = f"{folder}/{_CACHES[name]}".rstrip("/")
        edits.append(
            document.set_value(node, path) if node is not None else _added_variable(document, pieces, name, path)
        )
    edits += [document.set_value(policy, "IfNotPresent") for policy in pulled_again(pieces)]
    return document.apply(edits)


def _added_variable(document: Document, pieces: Pieces, name: str, path: str) -> Edit:
    """The edit that adds a variable after the last one, in the style of the file."""
    variables = items(find(pieces.container, "env"))
    last = variables[-1] if variables else None
    if not isinstance(last, MappingNode) or last.flow_style:
        raise ManifestError(f"{document.path} has no list of variables for the engine: add {name}={path} by hand.")
    prefix = document.lines[last.start_mark.line][: last.start_mark.column]
    end = _last_line(last)
    return document.insert_lines(end + 1, f"{prefix}name: {name}\n{' ' * len(prefix)}value: {path}\n")


def _last_line(node: Node) -> int:
    """The last line of a mapping's values. The node's end mark cannot be used: it is at the start of the next token."""
    return max(line for line in _lines(node))


def _lines(node: Node) -> Iterator[int]:
    if isinstance(node, ScalarNode):
        yield int(node.end_mark.line) if node.style not in ("|", ">") else int(node.end_mark.line) - 1
        return
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _lines(part)


def _needed_storage(before: ModelEndpoint) -> str:
    """The volume's new size if the weights leave too little space for the caches; "" if they leave enough or are unknown."""
    weights = estimated_weights(before.hf_id) or 0
    if not before.pvc_size or quantity_bytes(before.pvc_size) >= volume_need(weights) + _ROOM:
        return ""
    return storage_for(weights, _ROOM)
