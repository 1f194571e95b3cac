"""Copy an endpoint's files under another name: its objects, what refers to them, and nothing that has to be unique."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.bundle import Bundle, bundle_of, is_generated, is_picked_up
from manifests.contract import ModelEndpoint
from manifests.deployers.flux import reconcilers
from manifests.edit import Document, Edit, entries, find, items, scalar, value
from manifests.items import inserted, is_item, without
from manifests.kustomize import FILES
from manifests.objects import mappings, objects
from manifests.one_file import is_one_file
from manifests.ownership import foreign
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.tree import ManifestError, within

_PROGRAM = frozenset({"command", "args", "image"})
_INSIDE = frozenset({"controller", "identifier"})
"""Keys whose values name another key of the same values."""
_FILES_OF_KUSTOMIZE = frozenset({"resources", "components", "bases", "configurations", "patchesStrategicMerge"})
_CHART = frozenset({"chart", "chartRef", "sourceRef"})
_HOSTS = frozenset({"host", "hostname", "hosts", "hostnames", "secretName", "commonName", "dnsNames"})
_DEPLOYERS = ("argoproj.io/", "kustomize.toolkit.fluxcd.io/")
_OUTSIDE = frozenset(
    {
        "className", "gatewayClassName", "ingressClassName", "key", "modelFormat", "nodeAffinity", "nodeSelector", "port",
        "portName", "ports", "priorityClassName", "project", "runtimeClassName", "schedulerName", "storageClassName",
        "targetPort", "targetRevision", "tolerations",
    }
)  # fmt: skip
"""Keys below which names never refer to the endpoint: they name external objects, or a part of an object."""
_REFERENCES = {
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
    "imagePullSecrets": "Secret",
    "issuerRef": "Issuer",
    "parentRefs": "Gateway",
    "secret": "Secret",
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "secretStoreRef": "SecretStore",
    "serviceAccount": "ServiceAccount",
    "serviceAccountName": "ServiceAccount",
}
"""Keys below which an object names another one, with a part of the kind of its creator."""
_CONTAINERS_OF_KSERVE = frozenset({"main", "kserve-container", "storage-initializer", "worker-container"})
_COUNTS = ("replicas", "minReplicas", "replicaCount")
_CLAIMS = frozenset({"existingClaim", "claimName"})
_UNIQUE = frozenset({"nodePort", "clusterIP", "clusterIPs", "loadBalancerIP", "healthCheckNodePort"})
_UNIQUE_ANNOTATION = re.compile(r"^stoker\.dev/|loadBalancerIPs?$|^(io\.cilium|lbipam\.cilium\.io)/")


class Uncopyable(ManifestError):
    """The endpoint cannot be copied, because the copy would share a part with it."""

    remedy = "Name another endpoint to copy from with `like=`, or add the files that the message names by hand."


class Names(NamedTuple):
    """The template's names with the copy's, and the other data that decide whether a name belongs to the template."""

    new: str
    exact: Mapping[str, str]
    bundle: Bundle
    claims: frozenset[str]
    charts: frozenset[str]
    made: frozenset[tuple[str, str]]
    """The kinds and names of the objects that are copied with it."""
    moves_namespace: bool
    makes_claims: bool


def names_of_copy(platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle, new: str) -> Names:
    """Raises Uncopyable for an object that does not belong to the model: two deployers would both manage it."""
    found = dict.fromkeys(bundle.stems, new)
    own: set[tuple[str, str]] = set()
    files = (*bundle.files, bundle.apart)
    for path in filter(None, files):
        for kind, each in objects(platform, path):
            old = value(each.node, "metadata", "name")
            if not old or (kind == "Kustomization" and not value(each.node, "spec", "path")):
                continue
            own.add((kind, old))
            if old in bundle.stems or old == template.pvc_name:
                continue
            found[old] = bundle.name(old, new) or (new if kind == "LocalModelCache" else "")
            if not found[old]:
                raise Uncopyable(
                    f"{template.name} cannot be copied: {path} holds the {kind} {old}, which is not the model's own. "
                    "Name another template with like=."
                )
    generated = _generated(platform, bundle)
    for kind, old in generated:
        if kind.endswith("Generator") and (renamed_to := bundle.name(old, new)):
            found.setdefault(old, renamed_to)
    if others := foreign(platform, pieces, bundle):
        raise Uncopyable(
            f"{template.name} cannot be copied: its directory holds more than an endpoint ({', '.join(others[:8])}). "
            "Name another template with like=."
        )
    if template.application_file and len(objects(platform, template.application_file)) > 1:
        raise Uncopyable(
            f"{template.name} cannot be copied: {template.application_file} holds more than its Application. "
            "Name another template with like=."
        )
    if template.name in template.application:
        deployed = found.get(value(pieces.deployment.node, "metadata", "name"), new)
        found[pieces.workload] = pieces.rendering.name(deployed)
    count = pieces.candidate.replicas
    elsewhere = pieces.form == "Application" and count is not None and count.path not in bundle.files
    if elsewhere and pieces.gpu and _is_automatic(platform, pieces, bundle):
        raise Uncopyable(
            f"{template.name} cannot be copied: a copy would start, because the number of its replicas is set in the chart."
        )
    if pieces.second_engine:
        raise Uncopyable(f"{template.name} cannot be copied: its pod runs another engine, which a copy would run, too.")
    if ("PersistentVolumeClaim", template.pvc_name) in own:
        found[template.pvc_name] = claim_name(template, new)
    flux = [reconciler for reconciler in reconcilers(platform) if within(reconciler.paths[0], bundle.home)]
    substitutes = any(
        find(each.located.node, "spec", key) is not None for each in flux for key in ("components", "postBuild")
    )
    return Names(
        new,
        found,
        bundle,
        frozenset(name for kind, name in own if kind == "PersistentVolumeClaim"),
        frozenset(name for kind, name in own if kind.endswith("Repository") or kind == "HelmChart"),
        frozenset(own | generated),
        _moves_namespace(platform, pieces, bundle),
        substitutes,
    )


def _moves_namespace(platform: Platform, pieces: Pieces, bundle: Bundle) -> bool:
    """Return whether a copy gets its own namespace, like the template; a namespace with another endpoint in it is kept."""
    if any(kind == "Namespace" for path in bundle.files for kind, _ in objects(platform, path)):
        return True
    own = pieces.application.node if pieces.application else None
    apart = [application.node for application in platform.applications() if application.node is not own]
    used = {endpoint.namespace for endpoint in platform.endpoints() if endpoint.name != pieces.name}
    used |= {value(each, "spec", "destination", "namespace") for each in apart}
    return pieces.deployer != "Flux" and pieces.namespace not in used


def _generated(platform: Platform, bundle: Bundle) -> set[tuple[str, str]]:
    """Return the objects that the bundle's kustomizations generate, and the Secrets that its ExternalSecrets create under another name."""
    found = set[tuple[str, str]]()
    for path in bundle.files:
        if posixpath.basename(path) in FILES:  # kustomize needs no `kind` in it
            for root in Document(path, platform.read(path) or "").roots:
                for key in ("configMapGenerator", "secretGenerator"):
                    found |= {(key, value(item, "name")) for item in items(find(root, key))}
        found |= {(kind, value(each.node, "spec", "target", "name")) for kind, each in objects(platform, path)}
    return found


def claim_name(template: ModelEndpoint, name: str) -> str:
    """The claim of a new endpoint, following the naming of the template's claim."""
    if template.name in template.pvc_name:
        return template.pvc_name.replace(template.name, name)
    return f"{name}-model-cache"


def renamed(document: Document, names: Names, storage: str) -> Document:
    """Replace every field that has one of the template's names, a path of its files, or the size of its volume."""
    edits: list[Edit] = []
    seen: set[int] = set()
    for root in document.roots:
        for keys, node in _scalars(root):
            if id(node) in seen:
                continue  # the target of several YAML aliases
            seen.add(id(node))
            new = _new_value(keys, str(node.value), names)
            if new is not None and new != node.value:
                edits.append(document.set_value(node, new))
        size = scalar(root, "spec", "resources", "requests", "storage")
        if value(root, "kind") == "PersistentVolumeClaim" and size is not None and size.value != storage:
            edits.append(document.set_value(size, storage))
    document = document.apply(edits)
    for _ in range(100):  # each removal moves the following items
        unique = next(_unique(document), None)
        if unique is None:
            break
        document = document.apply([unique])
    return document


def _new_value(keys: tuple[str, ...], old: str, names: Names) -> str | None:
    last = keys[-1] if keys else ""
    if _PROGRAM & set(keys) or last in _INSIDE or (keys and keys[0] in _FILES_OF_KUSTOMIZE):
        return None  # the program may have the endpoint's name; files keep theirs
    if keys[-2:] == ("containers", "name") and old in _CONTAINERS_OF_KSERVE:
        return None
    if _OUTSIDE & set(keys) or _names_another(keys, old, names):
        return None
    if last in ("namespace", "targetNamespace") and not names.moves_namespace:
        return None
    if _CHART & set(keys) and old not in names.charts:
        return None
    if last in _CLAIMS and old not in names.claims and not names.makes_claims:
        return None
    if old in names.exact:
        return names.exact[old]
    home = names.bundle.home
    if path := re.fullmatch(rf"(\./|/)?{re.escape(home)}((?:/.*)?)", old):
        return f"{path[1] or ''}{names.bundle.moved(home, names.new)}{path[2]}"
    if last == "valueFiles" and any(old.endswith(posixpath.basename(file)) for file in names.bundle.files):
        return posixpath.join(posixpath.dirname(old), names.bundle.base(posixpath.basename(old), names.new))
    head, dot, rest = old.partition(".")
    if dot and head in names.exact and re.fullmatch(r"[\w$.{}-]+", rest):
        return f"{names.exact[head]}.{rest}"
    if _HOSTS & set(keys) and (new := names.bundle.name(head, names.new)):
        return f"{new}{dot}{rest}"
    return None


def _names_another(keys: tuple[str, ...], old: str, names: Names) -> bool:
    """Return whether this names an object that is not copied with the endpoint; the meaning of a chart's values is unknown."""
    kind = next((_REFERENCES[key] for key in reversed(keys) if key in _REFERENCES), "")
    if not kind or {"values", "valuesObject"} & set(keys):
        return False
    return not any(kind.lower() in each.lower() and name == old for each, name in names.made)


def _scalars(node: Node, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], ScalarNode]]:
    """Every value with the keys that lead to it."""
    if isinstance(node, ScalarNode):
        yield keys, node
    elif isinstance(node, SequenceNode):
        for each in items(node):
            yield from _scalars(each, keys)
    elif isinstance(node, MappingNode):
        for key, each in entries(node):
            yield from _scalars(each, (*keys, str(key.value)))


def _unique(document: Document) -> Iterator[Edit]:
    """The removal of a field whose value must be unique."""
    for root in document.roots:
        for mapping in mappings(root):
            for index, (key, node) in enumerate(entries(mapping)):
                word = str(key.value)
                if word == "clusterIP" and value(mapping, "clusterIP") == "None":
                    continue
                if word not in _UNIQUE and not _UNIQUE_ANNOTATION.search(word):
                    continue
                if len(entries(mapping)) == 1:
                    continue
                if mapping.flow_style:
                    others = entries(mapping)
                    start = others[index - 1][1].end_mark.index if index else key.start_mark.index
                    end = node.end_mark.index if index else others[1][0].start_mark.index
                    yield Edit(start, end, "")
                else:
                    line = document.lines[key.start_mark.line]
                    if line[: key.start_mark.column].strip():  # the first key of an item of a list
                        after = entries(mapping)[1][0]
                        yield Edit(key.start_mark.index, after.start_mark.index, "")
                    else:
                        yield document.delete_lines(key.start_mark.line, max(key.start_mark.line, _last(node)))


def _last(node: Node) -> int:
    return int(node.end_mark.line if isinstance(node, ScalarNode) else node.end_mark.line - 1)


def at_rest(document: Document, platform: Platform, pieces: Pieces, bundle: Bundle) -> Document:
    """A copy that does not start: it has no replicas if its deployer applies a merge immediately."""
    is_quiet = pieces.form == "Application" or not is_one_file(pieces)
    if not pieces.gpu or (is_quiet and not _is_automatic(platform, pieces, bundle)):
        return document
    counts = [scalar(mapping, key) for root in document.roots for mapping in mappings(root) for key in _COUNTS]
    edits = [
        document.set_value(node, "0")
        for node in counts
        if node is not None and node.value != "0" and (node.value.isdecimal() or "${" in node.value)
    ]
    document = document.apply(edits)
    for root in document.roots:
        kind = value(root, "kind")
        if kind != pieces.form or kind == "Application":
            continue
        if kind == "HelmRelease":
            inside = [node for each in mappings(root) for _, node in entries(find(each, "controllers"))]
        else:
            inside = [each for each in (find(root, "spec"),) if each is not None]
        for each in inside:
            first = entries(each)[0][0] if entries(each) else None
            if (
                not isinstance(each, MappingNode)
                or first is None
                or each.flow_style
                or scalar(each, "replicas") is not None
                or kind in ("InferenceService", "Model")
            ):
                continue
            lead = " " * first.start_mark.column
            return document.apply([document.insert_lines(first.start_mark.line, f"{lead}replicas: 0\n")])
    return document


def _is_automatic(platform: Platform, pieces: Pieces, bundle: Bundle) -> bool:
    """Return whether the deployer applies a merge immediately, so that a copy of a running model would start on the same GPU."""
    application = pieces.application
    if application is None:
        return bool(pieces.deployed_by or bundle.elements) or is_generated(platform, pieces.home)
    return find(application.node, "spec", "syncPolicy", "automated") is not None


def listed_again(bundle: Bundle, new: str) -> dict[str, str]:
    """The other kustomizations that list the template, with a line for the copy below each of its lines."""
    texts: dict[str, Document] = {}
    edits: dict[str, list[Edit]] = {}
    for document, number, said in bundle.listed:
        line = document.lines[number]
        if not line.lstrip().startswith("- "):
            raise Uncopyable(
                f"{document.path}:{number + 1} lists {said} in a form that Stoker cannot change: change it by hand."
            )
        copied = line.partition(" #")[0].rstrip().replace(said, _moved(document, bundle, said, new))
        texts[document.path] = document
        edits.setdefault(document.path, []).append(document.insert_lines(number + 1, f"{copied}\n"))
    return {path: texts[path].apply(found).text for path, found in edits.items()}


def generated_again(names: Names) -> dict[str, str]:
    """The ApplicationSets with a copy of the items that create the template's Application."""
    made: dict[str, str] = {}
    for document, item in names.bundle.elements:
        if document.path in made:
            raise Uncopyable(f"{document.path} names the template in several items of its lists.")
        edits = [
            document.set_value(node, new)
            for keys, node in _scalars(item)
            if (new := _new_value(keys, str(node.value), names)) not in (None, node.value)
        ]
        edited = document.apply(edits)
        place = (item.start_mark.line, item.start_mark.column)
        there = (mapping for root in edited.roots for mapping in mappings(root))
        same = next(each for each in there if (each.start_mark.line, each.start_mark.column) == place)
        made[document.path] = inserted(document, item, edited, same).text
    return made


def _moved(document: Document, bundle: Bundle, said: str, new: str) -> str:
    folder = posixpath.dirname(document.path)
    place = posixpath.normpath(posixpath.join(folder, said))
    moved = posixpath.relpath(bundle.moved(place, new), folder or ".")
    return f"./{moved}" if said.startswith("./") else f"{moved}/" if said.endswith("/") else moved


def unlisted(bundle: Bundle) -> dict[str, str]:
    """The other kustomizations without the lines that refer to the endpoint."""
    texts: dict[str, Document] = {}
    edits: dict[str, list[Edit]] = {}
    for document, number, said in bundle.listed:
        if not document.lines[number].lstrip().startswith("- "):
            raise ManifestError(
                f"{document.path}:{number + 1} lists {said} in a form that Stoker cannot change: change it by hand."
            )
        texts[document.path] = document
        edits.setdefault(document.path, []).append(document.delete_lines(number, number))
    made = {path: texts[path].apply(found).text for path, found in edits.items()}
    return made | {document.path: without(document, item).text for document, item in bundle.elements}


def needs(platform: Platform, pieces: Pieces, new: str) -> tuple[str, ...]:
    """Warnings about objects that a copy reads and its files do not create: Secrets of another namespace, volumes."""
    if is_item(pieces):
        return ()
    bundle = bundle_of(platform, pieces)
    every = [each for path in bundle.files for each in objects(platform, path)]

    def made(word: str) -> set[str]:
        return {value(each.node, "metadata", "name") for kind, each in every if word in kind} | {""}

    parts = [mapping for _, located in every for mapping in mappings(located.node)]
    told = []
    if pieces.namespace in bundle.stems and _moves_namespace(platform, pieces, bundle):
        secrets = {value(each, key, "name") for each in parts for key in ("secretKeyRef", "secretRef")} - made("Secret")
        if secrets:
            told.append(f"Create in the namespace {new} the Secrets that the copy reads: {', '.join(sorted(secrets))}.")
    claims = {value(part, key) for part in parts for key in _CLAIMS} - made("PersistentVolumeClaim")
    if claims:
        told.append(f"The copy mounts volumes that its files do not create: {', '.join(sorted(claims))}.")
    if not is_picked_up(platform, bundle, pieces, new) and pieces.application is None and not is_one_file(pieces):
        told.append(
            f"Nothing in the repository deploys {bundle.home}: deploy {bundle.moved(bundle.home, new)} like it."
        )
    return tuple(told)


def refuse_undeployed(platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle, new: str) -> None:
    """Raises Uncopyable if nothing would deploy a copy's files."""
    if is_one_file(pieces) or is_picked_up(platform, bundle, pieces, new) or template.name in template.application:
        return
    if not template.application and not any(platform.grep(each) for each in _DEPLOYERS):
        return  # something else also deploys everything here
    why = f"its Application is named {template.application}" if template.application else "no Application deploys it"
    raise Uncopyable(f"{template.name} cannot be copied: {why}. Name another template with like=.")
