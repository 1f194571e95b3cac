"""Copy an endpoint's files under another name: its objects and the references to them, without values that must be unique."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.bundle import Bundle, bundle_of, is_generated, is_picked_up
from manifests.contract import ModelEndpoint
from manifests.deployers.flux import reconcilers
from manifests.edit import Document, Edit, entries, find, items, scalar, value
from manifests.items import is_item, with_item_below, without
from manifests.kustomize import FILES
from manifests.objects import mappings, objects
from manifests.one_file import is_one_file
from manifests.ownership import foreign_files
from manifests.pieces import Pieces
from manifests.platform import Platform
from manifests.tree import ManifestError, within

_PROGRAM = frozenset({"command", "args", "image"})
_INSIDE = frozenset({"controller", "identifier"})
"""Keys whose value is the name of another key in the same file."""
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
"""Keys below which an object names another object, each with the kind of that object or a part of the kind."""
_CONTAINERS_OF_KSERVE = frozenset({"main", "kserve-container", "storage-initializer", "worker-container"})
_COUNTS = ("replicas", "minReplicas", "replicaCount")
_CLAIMS = frozenset({"existingClaim", "claimName"})
_UNIQUE = frozenset({"nodePort", "clusterIP", "clusterIPs", "loadBalancerIP", "healthCheckNodePort"})
_UNIQUE_ANNOTATION = re.compile(r"^stoker\.dev/|loadBalancerIPs?$|^(io\.cilium|lbipam\.cilium\.io)/")


class Uncopyable(ManifestError):
    """The endpoint cannot be copied, because the copy would share a part with it."""

    remedy = "Name another endpoint to copy from with `like=`, or add the files that the message names by hand."


class Names(NamedTuple):
    """The names of the template's objects with the names in the copy, and the facts for recognising such a name."""

    new: str
    exact: Mapping[str, str]
    bundle: Bundle
    claims: frozenset[str]
    charts: frozenset[str]
    copied_objects: frozenset[tuple[str, str]]
    """The kinds and names of the objects that the copy contains."""
    moves_namespace: bool
    makes_claims: bool


def copied_names(platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle, new: str) -> Names:
    """The names in a copy; raises Uncopyable if the copy would share an object, or would start without approval."""
    own_objects = _own_objects(platform, bundle)
    generated = _generated_objects(platform, bundle)
    new_names = _new_names(template, bundle, own_objects, new)
    for kind, old in generated:
        if kind.endswith("Generator") and (renamed_to := bundle.name(old, new)):
            new_names.setdefault(old, renamed_to)
    _refuse_shared_files(platform, pieces, template, bundle)
    if template.name in template.application:
        workload_name = new_names.get(value(pieces.deployment.node, "metadata", "name"), new)
        new_names[pieces.workload] = pieces.rendering.name(workload_name)
    _refuse_copy_that_starts(platform, pieces, template, bundle)
    if ("PersistentVolumeClaim", template.pvc_name) in own_objects:
        new_names[template.pvc_name] = claim_name(template, new)
    flux = [reconciler for reconciler in reconcilers(platform) if within(reconciler.paths[0], bundle.home)]
    substitutes = any(
        find(reconciler.located.node, "spec", key) is not None
        for reconciler in flux
        for key in ("components", "postBuild")
    )
    return Names(
        new,
        new_names,
        bundle,
        frozenset(name for kind, name in own_objects if kind == "PersistentVolumeClaim"),
        frozenset(name for kind, name in own_objects if kind.endswith("Repository") or kind == "HelmChart"),
        frozenset(own_objects.keys() | generated),
        _moves_namespace(platform, pieces, bundle),
        substitutes,
    )


def _own_objects(platform: Platform, bundle: Bundle) -> dict[tuple[str, str], str]:
    """The kind and name of each object in the bundle's files, with its file. kustomization.yaml files do not count."""
    own_objects: dict[tuple[str, str], str] = {}
    for path in filter(None, (*bundle.files, bundle.flux_file)):
        for kind, located in objects(platform, path):
            name = value(located.node, "metadata", "name")
            if name and (kind != "Kustomization" or value(located.node, "spec", "path")):
                own_objects.setdefault((kind, name), path)
    return own_objects


def _new_names(
    template: ModelEndpoint, bundle: Bundle, own_objects: Mapping[tuple[str, str], str], new: str
) -> dict[str, str]:
    """The new name of each object; raises Uncopyable if one of them does not belong to the model."""
    new_names = dict.fromkeys(bundle.stems, new)
    for (kind, old), path in own_objects.items():
        if old in bundle.stems or old == template.pvc_name:
            continue
        new_names[old] = bundle.name(old, new) or (new if kind == "LocalModelCache" else "")
        if not new_names[old]:
            raise Uncopyable(
                f"{template.name} cannot be copied: {path} contains the {kind} {old}, which is not the model's own. "
                "Name another template with like=."
            )
    return new_names


def _refuse_shared_files(platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle) -> None:
    """Refuse a template if its directory, or the file of its Application, contains more than the endpoint."""
    if foreign_objects := foreign_files(platform, pieces, bundle):
        raise Uncopyable(
            f"{template.name} cannot be copied: its directory contains more than an endpoint "
            f"({', '.join(foreign_objects[:8])}). Name another template with like=."
        )
    if template.application_file and len(objects(platform, template.application_file)) > 1:
        raise Uncopyable(
            f"{template.name} cannot be copied: {template.application_file} contains more than its Application. "
            "Name another template with like=."
        )


def _refuse_copy_that_starts(platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle) -> None:
    """Refuse a template whose copy would start immediately, or would start a second engine."""
    count = pieces.candidate.replicas
    is_set_elsewhere = pieces.form == "Application" and count is not None and count.path not in bundle.files
    if is_set_elsewhere and pieces.gpu and _is_automatic(platform, pieces, bundle):
        raise Uncopyable(
            f"{template.name} cannot be copied: the chart sets the number of replicas, so the copy would start immediately. "
            "Name another template with like=."
        )
    if pieces.second_engine:
        raise Uncopyable(
            f"{template.name} cannot be copied: its pod also runs another engine, which the copy would run, too. "
            "Name another template with like=."
        )


def _moves_namespace(platform: Platform, pieces: Pieces, bundle: Bundle) -> bool:
    """Return whether a copy gets its own namespace: only if no other endpoint is in the template's namespace."""
    if any(kind == "Namespace" for path in bundle.files for kind, _ in objects(platform, path)):
        return True
    own_application = pieces.application.node if pieces.application else None
    other_applications = [
        application.node for application in platform.applications() if application.node is not own_application
    ]
    used_namespaces = {endpoint.namespace for endpoint in platform.endpoints() if endpoint.name != pieces.name}
    used_namespaces |= {value(node, "spec", "destination", "namespace") for node in other_applications}
    return pieces.deployer != "Flux" and pieces.namespace not in used_namespaces


def _generated_objects(platform: Platform, bundle: Bundle) -> set[tuple[str, str]]:
    """The objects that the bundle's kustomizations generate, and the Secrets that its ExternalSecrets create."""
    generated = set[tuple[str, str]]()
    for path in bundle.files:
        if posixpath.basename(path) in FILES:  # such a file needs no `kind`
            for root in Document(path, platform.read(path) or "").roots:
                for key in ("configMapGenerator", "secretGenerator"):
                    generated |= {(key, value(item, "name")) for item in items(find(root, key))}
        generated |= {
            (kind, value(located.node, "spec", "target", "name")) for kind, located in objects(platform, path)
        }
    return generated


def claim_name(template: ModelEndpoint, name: str) -> str:
    """The name of a new endpoint's claim, in the same form as the name of the template's claim."""
    if template.name in template.pvc_name:
        return template.pvc_name.replace(template.name, name)
    return f"{name}-model-cache"


def with_new_names(document: Document, names: Names, storage: str) -> Document:
    """Replace every field that has one of the template's names, a path of its files, or the size of its volume."""
    edits: list[Edit] = []
    visited: set[int] = set()
    for root in document.roots:
        for keys, node in _scalars(root):
            if id(node) in visited:
                continue  # the value is the target of several YAML aliases
            visited.add(id(node))
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
        return None  # a program may have the endpoint's name, and files are renamed elsewhere
    if keys[-2:] == ("containers", "name") and old in _CONTAINERS_OF_KSERVE:
        return None
    if _OUTSIDE & set(keys) or _names_external_object(keys, old, names):
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
        return f"{path[1] or ''}{names.bundle.copied_path(home, names.new)}{path[2]}"
    if last == "valueFiles" and any(old.endswith(posixpath.basename(file)) for file in names.bundle.files):
        return posixpath.join(posixpath.dirname(old), names.bundle.base(posixpath.basename(old), names.new))
    head, dot, domain = old.partition(".")
    if dot and head in names.exact and re.fullmatch(r"[\w$.{}-]+", domain):
        return f"{names.exact[head]}.{domain}"
    if _HOSTS & set(keys) and (new := names.bundle.name(head, names.new)):
        return f"{new}{dot}{domain}"
    return None


def _names_external_object(keys: tuple[str, ...], old: str, names: Names) -> bool:
    """Return whether the value names an object outside the copy. The meaning of a chart's values is unknown."""
    kind = next((_REFERENCES[key] for key in reversed(keys) if key in _REFERENCES), "")
    if not kind or {"values", "valuesObject"} & set(keys):
        return False
    return not any(kind.lower() in object_kind.lower() and name == old for object_kind, name in names.copied_objects)


def _scalars(node: Node, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], ScalarNode]]:
    """Every value with the keys that lead to it."""
    if isinstance(node, ScalarNode):
        yield keys, node
    elif isinstance(node, SequenceNode):
        for item in items(node):
            yield from _scalars(item, keys)
    elif isinstance(node, MappingNode):
        for key, child in entries(node):
            yield from _scalars(child, (*keys, str(key.value)))


def _unique(document: Document) -> Iterator[Edit]:
    """Yield an edit for each field whose value must be unique; the edit removes the field."""
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
                    pairs = entries(mapping)
                    start = pairs[index - 1][1].end_mark.index if index else key.start_mark.index
                    end = node.end_mark.index if index else pairs[1][0].start_mark.index
                    yield Edit(start, end, "")
                else:
                    line = document.lines[key.start_mark.line]
                    if line[: key.start_mark.column].strip():  # the first key of an item of a list
                        next_key = entries(mapping)[1][0]
                        yield Edit(key.start_mark.index, next_key.start_mark.index, "")
                    else:
                        yield document.delete_lines(key.start_mark.line, max(key.start_mark.line, _last_line(node)))


def _last_line(node: Node) -> int:
    return int(node.end_mark.line if isinstance(node, ScalarNode) else node.end_mark.line - 1)


def without_replicas(document: Document, platform: Platform, pieces: Pieces, bundle: Bundle) -> Document:
    """The copy with zero replicas if its deployer applies a merge immediately, so that the model does not start."""
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
            places_of_count = [node for mapping in mappings(root) for _, node in entries(find(mapping, "controllers"))]
        else:
            places_of_count = [spec for spec in (find(root, "spec"),) if spec is not None]
        for place in places_of_count:
            first = entries(place)[0][0] if entries(place) else None
            if (
                not isinstance(place, MappingNode)
                or first is None
                or place.flow_style
                or scalar(place, "replicas") is not None
                or kind in ("InferenceService", "Model")
            ):
                continue
            indentation = " " * first.start_mark.column
            return document.apply([document.insert_lines(first.start_mark.line, f"{indentation}replicas: 0\n")])
    return document


def _is_automatic(platform: Platform, pieces: Pieces, bundle: Bundle) -> bool:
    """Return whether the deployer applies a merge immediately: a copy of a running model would then start on the same GPU."""
    application = pieces.application
    if application is None:
        return bool(pieces.deployed_by or bundle.elements) or is_generated(platform, pieces.home)
    return find(application.node, "spec", "syncPolicy", "automated") is not None


def with_kustomization_entries(bundle: Bundle, new: str) -> dict[str, str]:
    """The other kustomizations that list the template, with a line for the copy below each line of the template."""
    texts: dict[str, Document] = {}
    edits: dict[str, list[Edit]] = {}
    for document, number, item in bundle.listing_lines:
        line = document.lines[number]
        if not line.lstrip().startswith("- "):
            raise Uncopyable(
                f"{document.path}:{number + 1} lists {item} in a form that Stoker cannot change: change it by hand."
            )
        new_line = line.partition(" #")[0].rstrip().replace(item, _moved_item(document, bundle, item, new))
        texts[document.path] = document
        edits.setdefault(document.path, []).append(document.insert_lines(number + 1, f"{new_line}\n"))
    return {path: texts[path].apply(file_edits).text for path, file_edits in edits.items()}


def with_generator_items(names: Names) -> dict[str, str]:
    """The ApplicationSets with a copy of the items that create the template's Application."""
    changed: dict[str, str] = {}
    for document, item in names.bundle.elements:
        if document.path in changed:
            raise Uncopyable(
                f"{document.path} names the template in several items of its lists. Name another template with like=."
            )
        edits = [
            document.set_value(node, new)
            for keys, node in _scalars(item)
            if (new := _new_value(keys, str(node.value), names)) not in (None, node.value)
        ]
        edited = document.apply(edits)
        place = (item.start_mark.line, item.start_mark.column)
        new_mappings = (mapping for root in edited.roots for mapping in mappings(root))
        new_item = next(
            mapping for mapping in new_mappings if (mapping.start_mark.line, mapping.start_mark.column) == place
        )
        changed[document.path] = with_item_below(document, item, edited, new_item).text
    return changed


def _moved_item(document: Document, bundle: Bundle, item: str, new: str) -> str:
    folder = posixpath.dirname(document.path)
    path = posixpath.normpath(posixpath.join(folder, item))
    new_item = posixpath.relpath(bundle.copied_path(path, new), folder or ".")
    return f"./{new_item}" if item.startswith("./") else f"{new_item}/" if item.endswith("/") else new_item


def without_kustomization_entries(bundle: Bundle) -> dict[str, str]:
    """The other kustomizations without the lines that refer to the endpoint."""
    texts: dict[str, Document] = {}
    edits: dict[str, list[Edit]] = {}
    for document, number, item in bundle.listing_lines:
        if not document.lines[number].lstrip().startswith("- "):
            raise ManifestError(
                f"{document.path}:{number + 1} lists {item} in a form that Stoker cannot change: change it by hand."
            )
        texts[document.path] = document
        edits.setdefault(document.path, []).append(document.delete_lines(number, number))
    changed = {path: texts[path].apply(file_edits).text for path, file_edits in edits.items()}
    return changed | {document.path: without(document, item).text for document, item in bundle.elements}


def needs(platform: Platform, pieces: Pieces, new: str) -> tuple[str, ...]:
    """Warnings about objects that the copy uses but does not create (Secrets in its namespace, volumes), and about a missing deployer."""
    if is_item(pieces):
        return ()
    bundle = bundle_of(platform, pieces)
    located_objects = [located for path in bundle.files for located in objects(platform, path)]

    def names_of(word: str) -> set[str]:
        return {value(located.node, "metadata", "name") for kind, located in located_objects if word in kind} | {""}

    parts = [mapping for _, located in located_objects for mapping in mappings(located.node)]
    warnings = []
    if pieces.namespace in bundle.stems and _moves_namespace(platform, pieces, bundle):
        secrets = {value(part, key, "name") for part in parts for key in ("secretKeyRef", "secretRef")} - names_of(
            "Secret"
        )
        if secrets:
            warnings.append(
                f"Create in the namespace {new} the Secrets that the copy reads: {', '.join(sorted(secrets))}."
            )
    claims = {value(part, key) for part in parts for key in _CLAIMS} - names_of("PersistentVolumeClaim")
    if claims:
        warnings.append(f"The copy mounts volumes that its files do not create: {', '.join(sorted(claims))}.")
    if not is_picked_up(platform, bundle, pieces, new) and pieces.application is None and not is_one_file(pieces):
        warnings.append(
            f"Nothing in the repository deploys {bundle.home}: deploy {bundle.copied_path(bundle.home, new)} in the same way."
        )
    return tuple(warnings)


def refuse_undeployed_copy(
    platform: Platform, pieces: Pieces, template: ModelEndpoint, bundle: Bundle, new: str
) -> None:
    """Raise Uncopyable if nothing would deploy the copy's files."""
    if is_one_file(pieces) or is_picked_up(platform, bundle, pieces, new) or template.name in template.application:
        return
    if not template.application and not any(platform.grep(api_group) for api_group in _DEPLOYERS):
        return  # the deployer is outside the repository
    reason = f"its Application is named {template.application}" if template.application else "no Application deploys it"
    raise Uncopyable(f"{template.name} cannot be copied: {reason}. Name another template with like=.")
