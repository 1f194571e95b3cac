"""The changes that kustomize makes to an endpoint's objects: names, namespace, labels and images in the cluster.

They are read from the endpoint's own kustomization, and from the kustomizations between it and the deployed directory.
Source: kustomize's reference of kustomization.yaml (kubectl.docs.kubernetes.io/references/kustomize/kustomization).
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import field

from ruamel.yaml.nodes import Node, ScalarNode

from manifests.edit import Document, InvalidYaml, entries, find, items, line, scalar, value
from manifests.frozen import frozen
from manifests.memory import remembered
from manifests.tree import Tree, within

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")

# Fields that change objects in ways that Stoker does not compute.
_PATCHES = (
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "replacements",
    "transformers",
    "components",
    "helmCharts",
    "vars",
)


@frozen
class Opaque:
    """A part of a kustomization whose effect is not computed: its field and its position."""

    path: str
    line: int
    key: str


@frozen
class Image:
    """A kustomization's change of an image: the new name, tag or digest, with file and line."""

    name: str = ""
    tag: str = ""
    digest: str = ""
    path: str = ""
    line: int = 0


@frozen
class Count:
    """The replicas that a kustomization sets: the selected objects, and the number in its document.

    `kind` and `name` are regular expressions for the whole value; an empty one matches everything. `labels` is a label
    selector.
    """

    kind: str
    name: str
    labels: str
    document: Document
    node: ScalarNode
    key: str

    @property
    def replicas(self) -> int:
        return int(self.node.value)

    @property
    def place(self) -> Opaque:
        return Opaque(self.document.path, line(self.node), self.key)

    def selects(self, workload: Node) -> bool:
        """Return whether the kustomization sets the replicas of `workload` with this number."""
        labels = find(workload, "metadata", "labels")
        return (
            _matches(self.kind, value(workload, "kind"))
            and _matches(self.name, value(workload, "metadata", "name"))
            and all(_fulfils(labels, term.strip()) for term in self.labels.split(",") if term.strip())
        )


def _matches(pattern: str, text: str) -> bool:
    try:
        return not pattern or re.fullmatch(pattern, text) is not None
    except re.error:
        return False


def _fulfils(labels: Node | None, term: str) -> bool:
    """Return whether labels match a term of a selector: `key=value`, `key!=value` or `key`. Other forms never match."""
    key, sign, expected = (part.strip() for part in re.split(r"(==?|!=|$)", term, maxsplit=1))
    if sign == "!=":
        return value(labels, key) != expected
    return find(labels, key) is not None and (not sign or value(labels, key) == expected)


@frozen
class Rendering:
    """kustomize's renaming of the objects of an endpoint."""

    prefix: str = ""
    suffix: str = ""
    namespace: str = ""
    replicas: tuple[Count, ...] = ()
    """The numbers in the order of kustomize: the last number that selects a workload applies."""
    images: dict[str, Image] = field(default_factory=dict)
    """The changes of images, by the name of the image in the manifests."""
    opaque: tuple[Opaque, ...] = ()

    def name(self, name_in_git: str) -> str:
        """The name of an object in the cluster."""
        return f"{self.prefix}{name_in_git}{self.suffix}" if name_in_git else ""

    def count(self, workload: Node) -> Count | None:
        """The replicas of a workload in a kustomization, which override its manifest; None if no kustomization sets them."""
        return next((replica for replica in reversed(self.replicas) if replica.selects(workload)), None)

    def image(self, image_in_git: str) -> str:
        """The image of the pod for an image in git. A new tag removes the digest, as kustomize does."""
        change = self.image_change(image_in_git)
        if change is None:
            return image_in_git
        name, tag, digest = _image_parts(image_in_git)
        if change.tag or change.digest:
            tag, digest = change.tag or ("" if change.digest else tag), change.digest
        return f"{change.name or name}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"

    def image_change(self, image_in_git: str) -> Image | None:
        """The kustomization's change of an image, or None."""
        return self.images.get(_image_parts(image_in_git)[0])


@remembered
def rendering(tree: Tree, home: str, deployed: str) -> Rendering:
    """The changes to the objects in `home` if the directory `deployed` is deployed."""
    result = Rendering()
    for document in reversed(chain(tree, deployed, home)):
        root = document.roots[0]
        result = Rendering(
            prefix=value(root, "namePrefix") + result.prefix,
            suffix=result.suffix + value(root, "nameSuffix"),
            namespace=value(root, "namespace") or result.namespace,
            replicas=(*result.replicas, *_patched_replicas(tree, document, root), *_replicas(document, root)),
            images={**result.images, **_images(document, root)},
            opaque=(*result.opaque, *_opaque(tree, document, root)),
        )
    return result


def chain(tree: Tree, start: str, home: str) -> tuple[Document, ...]:
    """The kustomizations from one directory to another that it includes, outermost first.

    Empty if the first directory does not include the second.
    """
    kustomization = read(tree, start)
    if start == home:
        return (kustomization,) if kustomization is not None else ()
    if kustomization is None:
        return ()
    for folder in directories(kustomization):
        if folder == home or (folder != start and not within(start, folder)):
            inner = chain(tree, folder, home)
            if inner or folder == home:
                return (kustomization, *inner)
    return ()


@remembered
def leads_to(tree: Tree, start: str, home: str) -> bool:
    """Return whether a directory's kustomization includes another directory, directly or indirectly."""
    return start != home and bool(chain(tree, start, home))


def read(tree: Tree, folder: str) -> Document | None:
    """The kustomization of a directory, or None if it has none or it cannot be parsed."""
    for name in FILES:
        path = f"{folder}/{name}" if folder else name
        text = tree.read(path)
        if text is None:
            continue
        document = Document(path, text)
        try:
            return document if document.roots else None
        except InvalidYaml:
            return None
    return None


def document_at(tree: Tree, path: str) -> Document:
    return Document(path, tree.read(path) or "")


def component_directories(document: Document) -> tuple[str, ...]:
    """The directories of a kustomization's components."""
    return tuple(_listed_directories(document, "components"))


def directories(document: Document) -> Iterator[str]:
    """The directories that a kustomization lists, relative to the repository."""
    yield from _listed_directories(document, "resources", "bases", "components")


def _listed_directories(document: Document, *keys: str) -> Iterator[str]:
    folder = posixpath.dirname(document.path)
    for key in keys:
        for node in items(find(document.roots[0], key)):
            entry = value(node)
            if entry and "://" not in entry and not entry.endswith((".yaml", ".yml", ".json")):
                yield posixpath.normpath(posixpath.join(folder, entry))


def _opaque(tree: Tree, document: Document, root: Node) -> Iterator[Opaque]:
    for key, patches in entries(root):
        if key.value not in _PATCHES or not items(patches):
            continue
        if key.value == "patches" and all(_only_replicas(tree, document, item) for item in items(patches)):
            continue
        yield Opaque(document.path, line(key), str(key.value))


def _patched_replicas(tree: Tree, document: Document, root: Node) -> Iterator[Count]:
    """The replicas that patches set."""
    for key in ("patches", "patchesStrategicMerge", "patchesJson6902"):
        for item in items(find(root, key)):
            for patch in patch_documents(tree, document, item):
                for patched, node in _counts(patch):
                    if node.value.isdecimal():
                        target = find(item, "target")
                        own_patterns = (
                            re.escape(value(patched, "kind")),
                            re.escape(value(patched, "metadata", "name")),
                        )
                        kind, name = own_patterns if target is None else (value(target, "kind"), value(target, "name"))
                        yield Count(kind, name, value(target, "labelSelector"), patch, node, key)


def _only_replicas(tree: Tree, document: Document, patch_item: Node) -> bool:
    """Return whether a patch changes only the number of replicas, so that its whole effect is known."""
    patches = patch_documents(tree, document, patch_item)
    return bool(patches) and all(
        all(
            value(operation, "path") == "/spec/replicas" and value(operation, "op") != "remove"
            for operation in items(root)
        )
        if items(root)
        else {key.value for key, _ in entries(root)} <= {"apiVersion", "kind", "metadata", "spec"}
        and {key.value for key, _ in entries(find(root, "metadata"))} <= {"name", "namespace"}
        and {key.value for key, _ in entries(find(root, "spec"))} == {"replicas"}
        for patch in patches
        for root in patch.roots
    )


def patch_documents(tree: Tree, document: Document, patch_item: Node) -> tuple[Document, ...]:
    """The documents of a patch, which is inline in the kustomization or in a separate file."""
    inline = scalar(patch_item, "patch") or (scalar(patch_item) if "\n" in value(patch_item) else None)
    if inline is not None:
        patch_document = document.inside(inline) if inline.style == "|" else None
    else:
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(document.path), value(patch_item, "path") or value(patch_item))
        )
        text = tree.read(path)
        patch_document = Document(path, text) if text is not None else None
    try:
        return (patch_document,) if patch_document is not None and patch_document.roots else ()
    except InvalidYaml:
        return ()


def _counts(patch: Document) -> Iterator[tuple[Node, ScalarNode]]:
    """The objects in a patch with the replicas that they set."""
    for root in patch.roots:
        replicas = scalar(root, "spec", "replicas")
        if replicas is not None:
            yield root, replicas
        for operation in items(root):
            if value(operation, "path") == "/spec/replicas" and (count := scalar(operation, "value")) is not None:
                yield root, count


def _replicas(document: Document, root: Node) -> Iterator[Count]:
    """The replicas that a kustomization sets by name."""
    for item in items(find(root, "replicas")):
        count = scalar(item, "count")
        if count is not None and count.value.isdecimal():
            name = re.escape(value(item, "name"))
            yield Count("Deployment|StatefulSet|ReplicaSet", name, "", document, count, "replicas")


def _images(document: Document, root: Node) -> dict[str, Image]:
    images = {}
    for item in items(find(root, "images")):
        node = find(item, "newTag") or find(item, "digest") or item
        images[value(item, "name")] = Image(
            value(item, "newName"), value(item, "newTag"), value(item, "digest"), document.path, line(node)
        )
    return images


def _image_parts(image: str) -> tuple[str, str, str]:
    """Name, tag and digest."""
    match = re.fullmatch(r"(.+?)(?::([^:/@]+))?(?:@(sha256:\w+))?", image)
    return (match[1], match[2] or "", match[3] or "") if match else (image, "", "")
