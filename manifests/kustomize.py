"""kustomize's changes of an endpoint's objects: names, namespace, labels and images in the cluster.

Read from the endpoint's own kustomization, and from the ones between it and the path that Argo CD deploys. Source:
kustomize's reference of kustomization.yaml (kubectl.docs.kubernetes.io/references/kustomize/kustomization).
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml.nodes import Node, ScalarNode

from manifests.edit import Document, InvalidYaml, entries, find, items, line, scalar, value
from manifests.memory import remembered
from manifests.tree import Tree, within

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")

# These fields rewrite the objects in ways that are not computed here.
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


@dataclass(frozen=True)
class Opaque:
    """A part of a kustomization whose effect is not computed: its field and its position."""

    path: str
    line: int
    key: str


@dataclass(frozen=True)
class Image:
    """A kustomization's change of an image: another name, tag or digest, with file and line."""

    name: str = ""
    tag: str = ""
    digest: str = ""
    path: str = ""
    line: int = 0


@dataclass(frozen=True)
class Count:
    """Replicas that a kustomization sets: of which objects, and the number in its document.

    `kind` and `name` are regular expressions for the whole value; an empty one fits all. `labels` is a label selector.
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
        """Return whether it is about a workload."""
        own = find(workload, "metadata", "labels")
        return (
            _fits(self.kind, value(workload, "kind"))
            and _fits(self.name, value(workload, "metadata", "name"))
            and all(_has(own, each.strip()) for each in self.labels.split(",") if each.strip())
        )


def _fits(pattern: str, text: str) -> bool:
    try:
        return not pattern or re.fullmatch(pattern, text) is not None
    except re.error:
        return False


def _has(labels: Node | None, term: str) -> bool:
    """Return whether labels fulfil a term of a selector: `key=value`, `key!=value` or `key`; no other form selects anything."""
    key, sign, wanted = (each.strip() for each in re.split(r"(==?|!=|$)", term, maxsplit=1))
    if sign == "!=":
        return value(labels, key) != wanted
    return find(labels, key) is not None and (not sign or value(labels, key) == wanted)


@dataclass(frozen=True)
class Rendering:
    """kustomize's renaming of the objects of an endpoint."""

    prefix: str = ""
    suffix: str = ""
    namespace: str = ""
    replicas: tuple[Count, ...] = ()
    """In the order of kustomize: the last one that selects a workload counts."""
    images: dict[str, Image] = field(default_factory=dict)
    """By the name in the manifests."""
    opaque: tuple[Opaque, ...] = ()

    def name(self, written: str) -> str:
        """The name of an object in the cluster."""
        return f"{self.prefix}{written}{self.suffix}" if written else ""

    def count(self, workload: Node) -> Count | None:
        """Return what sets the replicas of a workload, instead of its own manifest."""
        return next((replica for replica in reversed(self.replicas) if replica.selects(workload)), None)

    def image(self, written: str) -> str:
        """An image as in the pod. A new tag removes the digest, like in kustomize."""
        found = self.replaced(written)
        if found is None:
            return written
        name, tag, digest = _image_parts(written)
        if found.tag or found.digest:
            tag, digest = found.tag or ("" if found.digest else tag), found.digest
        return f"{found.name or name}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"

    def replaced(self, written: str) -> Image | None:
        """Return how a kustomization changes an image, or None."""
        return self.images.get(_image_parts(written)[0])


@remembered
def rendering(tree: Tree, home: str, deployed: str) -> Rendering:
    """Return how the objects in `home` change when Argo CD deploys the directory `deployed`."""
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
    """The kustomizations from one directory to another that it includes, outermost first; empty if it does not include
    it.
    """
    own = read(tree, start)
    if start == home:
        return (own,) if own is not None else ()
    if own is None:
        return ()
    for folder in directories(own):
        if folder == home or (folder != start and not within(start, folder)):
            inner = chain(tree, folder, home)
            if inner or folder == home:
                return (own, *inner)
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
    return tuple(_listed(document, "components"))


def directories(document: Document) -> Iterator[str]:
    """The directories that a kustomization lists, relative to the repository."""
    yield from _listed(document, "resources", "bases", "components")


def _listed(document: Document, *keys: str) -> Iterator[str]:
    folder = posixpath.dirname(document.path)
    for key in keys:
        for node in items(find(document.roots[0], key)):
            named = value(node)
            if named and "://" not in named and not named.endswith((".yaml", ".yml", ".json")):
                yield posixpath.normpath(posixpath.join(folder, named))


def _opaque(tree: Tree, document: Document, root: Node) -> Iterator[Opaque]:
    for key, inside in entries(root):
        if key.value not in _PATCHES or not items(inside):
            continue
        if key.value == "patches" and all(_only_replicas(tree, document, item) for item in items(inside)):
            continue
        yield Opaque(document.path, line(key), str(key.value))


def _patched_replicas(tree: Tree, document: Document, root: Node) -> Iterator[Count]:
    """The replicas that patches set: a GPU model above zero in git costs money."""
    for key in ("patches", "patchesStrategicMerge", "patchesJson6902"):
        for item in items(find(root, key)):
            for patch in patch_documents(tree, document, item):
                for of, node in _counts(patch):
                    if node.value.isdecimal():
                        target = find(item, "target")
                        own = (re.escape(value(of, "kind")), re.escape(value(of, "metadata", "name")))
                        kind, name = own if target is None else (value(target, "kind"), value(target, "name"))
                        yield Count(kind, name, value(target, "labelSelector"), patch, node, key)


def _only_replicas(tree: Tree, document: Document, each: Node) -> bool:
    """Return whether a patch changes the number of replicas and nothing else, so that all of it is understood."""
    patches = patch_documents(tree, document, each)
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


def patch_documents(tree: Tree, document: Document, each: Node) -> tuple[Document, ...]:
    """The documents of a patch: written into the kustomization, or in a file of its own."""
    inline = scalar(each, "patch") or (scalar(each) if "\n" in value(each) else None)
    if inline is not None:
        found = document.inside(inline) if inline.style == "|" else None
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document.path), value(each, "path") or value(each)))
        text = tree.read(path)
        found = Document(path, text) if text is not None else None
    try:
        return (found,) if found is not None and found.roots else ()
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
    found = {}
    for item in items(find(root, "images")):
        node = find(item, "newTag") or find(item, "digest") or item
        found[value(item, "name")] = Image(
            value(item, "newName"), value(item, "newTag"), value(item, "digest"), document.path, line(node)
        )
    return found


def _image_parts(written: str) -> tuple[str, str, str]:
    """Name, tag and digest."""
    match = re.fullmatch(r"(.+?)(?::([^:/@]+))?(?:@(sha256:\w+))?", written)
    return (match[1], match[2] or "", match[3] or "") if match else (written, "", "")
