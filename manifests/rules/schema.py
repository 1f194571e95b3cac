"""The rule for the form of objects: API versions, field names, types and values that Kubernetes and Argo CD accept.

Argo CD applies with validation, so the whole object is refused for one misspelled or misplaced field. The fields of
Kubernetes' objects are in `kubernetes.json`, which `tests/manifests/kubernetes_fields.py` generates from its client's
models; a test keeps them equal. A field that is nowhere in that table may belong to a newer Kubernetes, and is not
reported.
"""

import difflib
import json
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from manifests.edit import entries, scalar
from manifests.pieces import Located, Pieces, objects
from manifests.platform import Platform
from manifests.rules.finding import Finding, at

_VERSIONS = {
    "Deployment": "apps/v1",
    "Service": "v1",
    "PersistentVolumeClaim": "v1",
    "Application": "argoproj.io/v1alpha1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
}

# Argo CD's own fields (the Application's CRD of v3.0), limited to the fields that deployments of manifests use.
_ARGO: Mapping[str, Mapping[str, str]] = {
    "Application": {
        "apiVersion": "str",
        "kind": "str",
        "metadata": "ObjectMeta",
        "spec": "ApplicationSpec",
        "operation": "object",
        "status": "object",
    },
    "ApplicationSpec": {
        "destination": "ApplicationDestination",
        "ignoreDifferences": "list[IgnoreDifferences]",
        "info": "object",
        "project": "str",
        "revisionHistoryLimit": "int",
        "source": "ApplicationSource",
        "sourceHydrator": "object",
        "sources": "list[ApplicationSource]",
        "syncPolicy": "SyncPolicy",
    },
    "ApplicationDestination": {"name": "str", "namespace": "str", "server": "str"},
    "ApplicationSource": {
        "chart": "str",
        "directory": "object",
        "helm": "object",
        "kustomize": "object",
        "name": "str",
        "path": "str",
        "plugin": "object",
        "ref": "str",
        "repoURL": "str",
        "targetRevision": "object",
    },
    "IgnoreDifferences": {
        "group": "str",
        "jqPathExpressions": "list[str]",
        "jsonPointers": "list[str]",
        "kind": "str",
        "managedFieldsManagers": "list[str]",
        "name": "str",
        "namespace": "str",
    },
    "SyncPolicy": {
        "automated": "AutomatedSync",
        "managedNamespaceMetadata": "object",
        "retry": "object",
        "syncOptions": "list[str]",
    },
    "AutomatedSync": {"allowEmpty": "bool", "enabled": "bool", "prune": "bool", "selfHeal": "bool"},
}

# kustomize's reference of kustomization.yaml; other modules read the values (`manifests/kustomize.py`).
_KUSTOMIZATION = dict.fromkeys(
    (
        "apiVersion", "kind", "metadata", "bases", "buildMetadata", "commonAnnotations", "commonLabels", "components",
        "configMapGenerator", "configurations", "crds", "generatorOptions", "generators", "helmCharts", "helmGlobals",
        "images", "labels", "namePrefix", "nameSuffix", "namespace", "openapi", "patches", "patchesJson6902",
        "patchesStrategicMerge", "replacements", "replicas", "resources", "secretGenerator", "sortOptions",
        "transformers", "validators", "vars",
    ),
    "object",
)  # fmt: skip

# Fields with a fixed set of values, by type and field (the API reference of Kubernetes).
_WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Container", "imagePullPolicy"): ("IfNotPresent", "Always", "Never"),
    ("ContainerPort", "protocol"): ("TCP", "UDP", "SCTP"),
    ("DeploymentStrategy", "type"): ("Recreate", "RollingUpdate"),
    ("HTTPGetAction", "scheme"): ("HTTP", "HTTPS"),
    ("PersistentVolumeClaimSpec", "accessModes"): (
        "ReadWriteOnce",
        "ReadWriteMany",
        "ReadOnlyMany",
        "ReadWriteOncePod",
    ),
    ("PersistentVolumeClaimSpec", "volumeMode"): ("Filesystem", "Block"),
    ("PodSpec", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("PodSpec", "restartPolicy"): ("Always",),  # the only value for a Deployment's pods
    ("SeccompProfile", "type"): ("RuntimeDefault", "Localhost", "Unconfined"),
    ("ServicePort", "protocol"): ("TCP", "UDP", "SCTP"),
    ("ServiceSpec", "externalTrafficPolicy"): ("Cluster", "Local"),
    ("ServiceSpec", "internalTrafficPolicy"): ("Cluster", "Local"),
    ("ServiceSpec", "sessionAffinity"): ("None", "ClientIP"),
    ("ServiceSpec", "type"): ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    ("Toleration", "effect"): ("NoSchedule", "NoExecute", "PreferNoSchedule"),
    ("Toleration", "operator"): ("Exists", "Equal", "Lt", "Gt"),
}

_PLACES = {
    "Container": "a container",
    "DeploymentSpec": "the Deployment's spec",
    "PodSpec": "the pod's spec",
    "PodTemplateSpec": "the pod template",
    "ServiceSpec": "the Service's spec",
    "ApplicationSpec": "the Application's spec",
}
_NAMES = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}

# Go's YAML library, which Kubernetes' tools use, follows YAML 1.1, in which `on` is not text.
_BOOL = re.compile(r"(?i)y|n|yes|no|on|off|true|false")
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-7]+|0x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+)")
_NULL = re.compile(r"|~|null|Null|NULL")


def check(platform: Platform, endpoints: Collection[Pieces], *, alone: bool) -> Iterator[Finding]:
    """Report fields that the API server, Argo CD or kustomize would refuse, in the files of these endpoints.

    A misspelled field can hide an endpoint, so the other objects of the serving directory are also checked, unless
    `alone` is set.
    """
    layout = platform.layout
    own_files = {path for endpoint in endpoints for path in endpoint.files}
    own_files |= {endpoint.application.document.path for endpoint in endpoints if endpoint.application is not None}
    pieces = (
        part
        for endpoint in endpoints
        for part in (endpoint.deployment, endpoint.service, endpoint.application, *endpoint.claims)
    )
    whole = {part.document.path for part in pieces if part is not None}  # no files with kustomize's patches
    folders = {
        layout.serving_dir,
        layout.path(layout.catalog_dir),
        *(posixpath.dirname(path) for path in own_files),
    } - {""}
    beside = () if alone else (path for folder in sorted(folders) for path in platform.files(folder))
    for path in sorted({*own_files, *beside}):
        for kind, located in objects(platform, path):
            yield from _version(located, kind, certain=path in whole)
            if kind in _VERSIONS and _is_own(located, kind, certain=path in whole):
                yield from _fields(located, located.node, kind)


def _version(located: Located, kind: str, *, certain: bool) -> Iterator[Finding]:
    version = scalar(located.node, "apiVersion")
    if kind not in _VERSIONS:
        similar = difflib.get_close_matches(kind, _VERSIONS, 1, 0.85)
        if similar and version is not None and version.value == _VERSIONS[similar[0]]:
            node, message = scalar(located.node, "kind"), f"there is no kind {kind} in {version.value}"
            yield at("schema", located, node, message, f"kind: {similar[0]}")
        return
    expected = _VERSIONS[kind]
    if version is None:
        if certain and kind != "Kustomization":  # `apiVersion` is optional in a kustomization
            yield at("schema", located, None, f"this {kind} has no apiVersion", f"apiVersion: {expected}")
    elif version.value != expected and not _is_another_api(version.value, expected):
        yield at("schema", located, version, f"there is no {kind} in {version.value}", f"apiVersion: {expected}")


def _is_another_api(version: str, expected: str) -> bool:
    """Return whether the version belongs to another API with a kind of the same name, like Knative's Service."""
    group = version.rpartition("/")[0]
    similar = difflib.get_close_matches(version, [expected], 1, 0.85)
    return "." in group and group != expected.rpartition("/")[0] and not similar


def _is_own(located: Located, kind: str, *, certain: bool) -> bool:
    version = scalar(located.node, "apiVersion")
    return certain if version is None else not _is_another_api(version.value, _VERSIONS[kind])


def _fields(located: Located, node: Node, name: str) -> Iterator[Finding]:
    fields = _types()[name]
    if not isinstance(node, MappingNode):
        if not _is_null(node):
            message = f"{_place(name)} must be a mapping of fields, not {_description(node)}"
            yield at("schema", located, node, message, "write fields below it")
        return
    present = {str(key.value) for key, _ in entries(node)}
    for key, inside in entries(node):
        field = str(key.value)
        if field in fields:
            yield from _value(located, inside, fields[field], f"{name}.{field}")
        elif field != "<<":
            yield from _unknown(located, key, name, present)


def _unknown(located: Located, key: ScalarNode, name: str, present: set[str]) -> Iterator[Finding]:
    field, known_fields = str(key.value), _types()[name]
    free = {name.lower(): name for name in known_fields if name not in present}
    similar = difflib.get_close_matches(field.lower(), free, 1, 0.8)
    homes = [type_name for type_name in ("PodSpec", "Container", "DeploymentSpec") if field in _types()[type_name]]
    if similar:
        yield at("schema", located, key, f"{_place(name)} has no field {field}", f"{free[similar[0]]}:")
    elif any(field in fields for fields in _types().values()):
        fix = f"move it into {_place(homes[0])}" if homes else "move it to the object that it belongs to"
        yield at("schema", located, key, f"{_place(name)} has no field {field}", fix)


def _value(located: Located, node: Node, kind: str, named: str) -> Iterator[Finding]:
    name, _, field = named.partition(".")
    if kind == "object" or _is_null(node):
        return
    if match := re.fullmatch(r"list\[(\w+)\]", kind):
        if not isinstance(node, SequenceNode):
            yield at(
                "schema", located, node, f"{field} must be a list, not {_description(node)}", "begin each item with -"
            )
            return
        for item in node.value:
            yield from _value(located, item, match[1], named)
    elif kind == "map[str]":
        for key, item in entries(node):
            yield from _value(located, item, "str", f"{name}.{key.value}")
    elif kind not in _NAMES:
        yield from _fields(located, node, kind)
    elif not isinstance(node, ScalarNode) or not _fits(node, kind):
        fix = f'"{node.value}"' if kind == "str" and isinstance(node, ScalarNode) else f"write {_NAMES[kind]}"
        text = f" ({node.value})" if isinstance(node, ScalarNode) else ""
        message = f"{field} must be {_NAMES[kind]}, not {_description(node)}{text}"
        yield at("schema", located, node, message, fix)
    elif kind == "int" and node.value.startswith("-") and field not in ("priority", "value"):
        yield at("schema", located, node, f"{field} must not be negative", f"{field}: {node.value.removeprefix('-')}")
    elif (words := _WORDS.get((name, field))) and node.value not in words:
        similar = difflib.get_close_matches(node.value, words, 1, 0.6)
        yield at("schema", located, node, f"{node.value} is not a valid {field}", f"{field}: {(similar or words)[0]}")


def _fits(node: ScalarNode, kind: str) -> bool:
    scalar_type = _scalar_type(node)
    return scalar_type == kind or (kind == "float" and scalar_type == "int")


def _scalar_type(node: ScalarNode) -> str:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return "str"
    if _BOOL.fullmatch(text):
        return "bool"
    explicit = str(node.tag).endswith(":str")
    if not explicit and _INT.fullmatch(text):
        return "int"
    return "float" if not explicit and _FLOAT.fullmatch(text) else "str"


def _description(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    return _NAMES[_scalar_type(node)] if isinstance(node, ScalarNode) else "a mapping"


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and not node.style and bool(_NULL.fullmatch(str(node.value)))


def _place(name: str) -> str:
    return _PLACES.get(name) or "the " + re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


@cache
def _types() -> Mapping[str, Mapping[str, str]]:
    table: dict[str, dict[str, str]] = json.loads(files(__package__).joinpath("kubernetes.json").read_text())
    return {**table, **_ARGO, "Kustomization": _KUSTOMIZATION}
