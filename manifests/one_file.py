"""Copy and remove an endpoint that is one file; the file is named after it, and its kustomization has a line for it."""

import posixpath

from manifests.edit import Document, find, scalar, scalars
from manifests.kustomize import read
from manifests.objects import mappings
from manifests.pieces import Pieces
from manifests.tree import ManifestError, Tree

_COUNTS = ("replicas", "minReplicas")


def is_one_file(pieces: Pieces) -> bool:
    """Whether an endpoint is a file of its own, which is named after it."""
    base = posixpath.basename(pieces.home)
    kinds = ("Deployment", "StatefulSet", "InferenceService", "LLMInferenceService")
    return pieces.files == (pieces.home,) and pieces.form in kinds and pieces.name in base and pieces.fields is None


def file_of_copy(pieces: Pieces, name: str) -> str:
    """The file of a copy with this name; "" for an endpoint that is a directory."""
    if not is_one_file(pieces):
        return ""
    folder, base = posixpath.split(pieces.home)
    return posixpath.join(folder, base.replace(pieces.name, name))


def at_rest(document: Document, pieces: Pieces) -> Document:
    """A copy that starts nothing: if the template's file gives replicas, the copy has none."""
    if not pieces.gpu or not (is_one_file(pieces) or _is_automatic(pieces)):
        return document
    edits = [
        document.set_value(node, "0")
        for root in document.roots
        for each in mappings(root)
        for key in _COUNTS
        if (node := scalar(each, key)) is not None and node.value.isdecimal() and node.value != "0"
    ]
    return document.apply(edits)


def _is_automatic(pieces: Pieces) -> bool:
    """Whether the deployer applies a merge at once, so that a copy of a running model would start on the same GPU."""
    application = pieces.application
    automated = application is not None and find(application.node, "spec", "syncPolicy", "automated") is not None
    return automated or bool(pieces.deployed_by)


def listed_beside(tree: Tree, pieces: Pieces, name: str) -> dict[str, str]:
    """The kustomization beside the file with the copy's line below the template's."""
    found = _line(tree, pieces) if is_one_file(pieces) else None
    if found is None:
        return {}
    document, number = found
    text = document.lines[number]
    copied = (
        text.partition(" #")[0]
        .rstrip()
        .replace(posixpath.basename(pieces.home), posixpath.basename(file_of_copy(pieces, name)))
    )
    return {document.path: document.apply([document.insert_lines(number + 1, f"{copied}\n")]).text}


def unlisted_beside(tree: Tree, pieces: Pieces) -> dict[str, str]:
    """The kustomization beside the file without the file's line."""
    found = _line(tree, pieces) if is_one_file(pieces) else None
    if found is None:
        return {}
    document, number = found
    return {document.path: document.apply([document.delete_lines(number, number)]).text}


def _line(tree: Tree, pieces: Pieces) -> tuple[Document, int] | None:
    folder, base = posixpath.split(pieces.home)
    document = read(tree, folder)
    if document is None:
        return None
    nodes = [each for each in scalars(document.roots) if str(each.value).removeprefix("./") == base]
    if not nodes:
        return None
    number = nodes[0].start_mark.line
    if len(nodes) > 1 or not document.lines[number].lstrip().startswith("- "):
        raise ManifestError(f"{document.path}:{number + 1} lists {pieces.home} in a way that is changed by hand.")
    return document, number
