"""KServe's LocalModelCache, which keeps a model's files on the nodes' own disks.

Its `sourceModelUri` is immutable (the CRD validates `self == oldSelf`, kserve/pkg/apis/serving/v1alpha1), so another
model needs another object: the object in git gets a new name, and the deployer prunes the old object.
"""

import math
import re
from collections.abc import Iterator

from manifests.edit import Edit, find, scalar, value
from manifests.model_names import model_of
from manifests.pieces import Pieces
from manifests.sizing import GIB, ModelFacts, quantity_bytes
from manifests.wording import stem


def cache_edits(pieces: Pieces, facts: ModelFacts) -> Iterator[tuple[str, Edit]]:
    """The edits of the name and the size of each cache of the old model. Other code edits the model's address."""
    old = model_of(pieces).hf_id
    for located in pieces.related:
        source = value(located.node, "spec", "sourceModelUri")
        name, size = scalar(located.node, "metadata", "name"), scalar(located.node, "spec", "modelSize")
        if source.removeprefix("hf://") != old or old == facts.hf_id or name is None:
            continue
        new = re.sub(r"[^a-z0-9-]+", "-", stem(facts.hf_id).lower()).strip("-")
        if name.value != new and find(located.node, "spec", "sourceModelUri") is not None:
            yield located.document.path, located.document.set_value(name, new)
        if size is not None and _bytes(size.value) < facts.staged:
            yield located.document.path, located.document.set_value(size, f"{math.ceil(facts.staged * 1.1 / GIB)}Gi")


def _bytes(quantity: str) -> int:
    try:
        return quantity_bytes(quantity)
    except ValueError:
        return 0
