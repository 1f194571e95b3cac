"""An endpoint that is an item of a list, like a model of vLLM's own chart: its copy is another item of the list."""

from collections.abc import Callable

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from manifests.edit import Comment, Document, items, scalar, scalars
from manifests.objects import mappings
from manifests.pieces import Pieces
from manifests.tree import ManifestError
from manifests.wording import Rewording


def is_item(pieces: Pieces) -> bool:
    """Return whether an endpoint is one item of a list in the values of a release."""
    if pieces.fields is not None or pieces.deployment.node is not pieces.candidate.subject:
        return False
    document = pieces.deployment.document
    return any(
        item is pieces.candidate.subject for root in document.roots for one in _sequences(root) for item in items(one)
    )


def copied(pieces: Pieces, edited: Document, new: str, rewording: Rewording, *, rests: bool) -> str:
    """The file with a copy of the item below it; `edited` is the file in which the item already has the new model."""
    original, subject = pieces.deployment.document, pieces.candidate.subject
    first, column = lines_of(original, subject)[0], subject.start_mark.column

    def item(document: Document) -> Node:
        return next(
            mapping
            for root in document.roots
            for mapping in mappings(root)
            if (mapping.start_mark.line, mapping.start_mark.column) == (first, column)
        )

    def inside(document: Document) -> Callable[[Comment], bool]:
        end = _end(item(document))
        return lambda comment: first <= comment.line <= end

    if (name := scalar(item(edited), "name")) is not None:
        edited = edited.apply([edited.set_value(name, new)])
    count = scalar(item(edited), "replicaCount")
    if rests and count is not None and count.value != "0":
        edited = edited.apply([edited.set_value(count, "0")])
    edited = rewording.document(edited, concerns=inside(edited))
    return inserted(original, subject, edited, item(edited)).text


def inserted(original: Document, item: Node, edited: Document, new: Node) -> Document:
    """A document with another item below an existing one: the changed item from `edited`."""
    text = "".join(edited.lines[new.start_mark.line : _end(new) + 1])
    last = lines_of(original, item)[1]
    return original.apply([original.insert_lines(last + 1, text if text.endswith("\n") else f"{text}\n")])


def without(document: Document, item: Node) -> Document:
    """A document without an item of one of its lists."""
    every = (items(sequence) for root in document.roots for sequence in _sequences(root))
    beside = next((each for each in every if any(one is item for one in each)), ())
    if len(beside) < 2:
        raise ManifestError(
            f"{document.path}:{item.start_mark.line + 1} is the only item of its list: remove it by hand."
        )
    return document.apply([document.delete_lines(*lines_of(document, item))])


def _sequences(node: Node) -> list[SequenceNode]:
    return [each for mapping in mappings(node) for _, each in mapping.value if isinstance(each, SequenceNode)]


def lines_of(document: Document, item: Node) -> tuple[int, int]:
    """The first and the last line of an item; no other item shares them."""
    lead = document.lines[item.start_mark.line][: item.start_mark.column]
    if document.window is not None or lead.strip() != "-" or (isinstance(item, MappingNode) and item.flow_style):
        raise ManifestError(f"{document.path}:{item.start_mark.line + 1} has its list on one line: change it by hand.")
    return item.start_mark.line, _end(item)


def _end(node: Node) -> int:
    """The last line of an item, without the comments and the empty lines behind it."""
    found = [node.start_mark.line]
    for each in scalars([node]):
        end = each.end_mark
        found.append(end.line - 1 if end.column == 0 and end.line > each.start_mark.line else end.line)
    flow = [each.end_mark.line for each in _flows(node)]
    return int(max(*found, *flow, 0))


def _flows(node: Node) -> list[Node]:
    return [each for mapping in mappings(node) for _, each in mapping.value if getattr(each, "flow_style", False)]
