"""Endpoints that are items of a list, like the models of vLLM's own chart. A copy is another item of the list."""

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
        item is pieces.candidate.subject
        for root in document.roots
        for sequence in _sequences(root)
        for item in items(sequence)
    )


def with_copy(pieces: Pieces, edited: Document, new: str, rewording: Rewording, *, at_zero: bool) -> str:
    """The file with a copy below the item. `edited` is the file in which the item already has the new model."""
    original, subject = pieces.deployment.document, pieces.candidate.subject
    first, column = lines_of(original, subject)[0], subject.start_mark.column

    def item_of(document: Document) -> Node:
        return next(
            mapping
            for root in document.roots
            for mapping in mappings(root)
            if (mapping.start_mark.line, mapping.start_mark.column) == (first, column)
        )

    def belongs_to_item(document: Document) -> Callable[[Comment], bool]:
        end = _end(item_of(document))
        return lambda comment: first <= comment.line <= end

    if (name := scalar(item_of(edited), "name")) is not None:
        edited = edited.apply([edited.set_value(name, new)])
    count = scalar(item_of(edited), "replicaCount")
    if at_zero and count is not None and count.value != "0":
        edited = edited.apply([edited.set_value(count, "0")])
    edited = rewording.document(edited, concerns=belongs_to_item(edited))
    return with_item_below(original, subject, edited, item_of(edited)).text


def with_item_below(original: Document, item: Node, edited: Document, new: Node) -> Document:
    """The original document with the item `new` of `edited` below its own `item`."""
    text = "".join(edited.lines[new.start_mark.line : _end(new) + 1])
    last = lines_of(original, item)[1]
    return original.apply([original.insert_lines(last + 1, text if text.endswith("\n") else f"{text}\n")])


def without(document: Document, item: Node) -> Document:
    """The document without one item of a list."""
    sequences = (items(sequence) for root in document.roots for sequence in _sequences(root))
    siblings = next(
        (sibling_items for sibling_items in sequences if any(sibling is item for sibling in sibling_items)), ()
    )
    if len(siblings) < 2:
        raise ManifestError(
            f"{document.path}:{item.start_mark.line + 1} is the only item of its list: remove it by hand."
        )
    return document.apply([document.delete_lines(*lines_of(document, item))])


def _sequences(node: Node) -> list[SequenceNode]:
    return [child for mapping in mappings(node) for _, child in mapping.value if isinstance(child, SequenceNode)]


def lines_of(document: Document, item: Node) -> tuple[int, int]:
    """The first and last line of an item; raises ManifestError if another item is on the same lines."""
    prefix = document.lines[item.start_mark.line][: item.start_mark.column]
    if document.window is not None or prefix.strip() != "-" or (isinstance(item, MappingNode) and item.flow_style):
        raise ManifestError(f"{document.path}:{item.start_mark.line + 1} has its list on one line: change it by hand.")
    return item.start_mark.line, _end(item)


def _end(node: Node) -> int:
    """The last line of an item, without the comments and the blank lines after it."""
    last_lines = [node.start_mark.line]
    for scalar_node in scalars([node]):
        end = scalar_node.end_mark
        last_lines.append(end.line - 1 if end.column == 0 and end.line > scalar_node.start_mark.line else end.line)
    flow = [node.end_mark.line for node in _flow_nodes(node)]
    return int(max(*last_lines, *flow, 0))


def _flow_nodes(node: Node) -> list[Node]:
    return [child for mapping in mappings(node) for _, child in mapping.value if getattr(child, "flow_style", False)]
