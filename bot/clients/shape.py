"""Normalise Kubernetes objects, which may belong to other systems.

The API server validates the built-in kinds. It validates other kinds, such as Applications, only as far as their
definition requires, and an aggregated API validates nothing. One null, missing or mistyped field in an unrelated object
must not break `/gpu down`. A well-formed object is not changed.
"""

from typing import Any

KubeObject = dict[str, Any]


def shaped(resource: str, item: object) -> KubeObject | None:
    """Return the object with `metadata` and `spec`, without null and mistyped fields; None if it has no name."""
    normalised = _without_nulls(item)
    if not isinstance(normalised, dict):
        return None
    meta = _section(normalised, "metadata")
    if not isinstance(meta.get("name"), str):
        return None
    _drop_unless(str, meta, "namespace", "resourceVersion", "creationTimestamp", "deletionTimestamp")
    _drop_unless(dict, meta, "labels", "annotations")
    for texts in ("labels", "annotations"):
        if texts in meta:
            meta[texts] = {key: text for key, text in meta[texts].items() if isinstance(text, str)}
    _keep_objects(meta, "ownerReferences", needs=("kind", "name"))
    spec, status = _section(normalised, "spec"), normalised.get("status")
    if not isinstance(status, dict):
        status = {}
        normalised.pop("status", None)
    _keep_objects(status, "conditions", needs=("type", "status") if resource != "applications" else ("type",))
    for statuses in ("containerStatuses", "initContainerStatuses"):
        _keep_objects(status, statuses, needs=("name",))
    match resource:
        case "deployments":
            _section(spec, "selector")
            template = _section(spec, "template")
            _drop_unless(dict, template, "metadata")
            _shape_pod(_section(template, "spec"))
        case "pods":
            _shape_pod(spec)
        case "services":
            _drop_unless(dict, spec, "selector")
            _keep_objects(spec, "ports", needs=("port",))
        case "applications":
            _shape_application(normalised, spec, status)
    return normalised


def _shape_pod(spec: KubeObject) -> None:
    if not isinstance(spec.get("containers"), list):
        spec["containers"] = []
    for containers in ("containers", "initContainers"):
        _keep_objects(spec, containers, needs=("name",))
        for container in spec.get(containers, ()):
            _drop_unless(dict, container, "resources")
            _drop_unless(dict, container.get("resources", {}), "limits", "requests")
            _drop_unless(list, container, "args", "command")
            _keep_objects(container, "env", needs=("name",))
            _keep_objects(container, "ports", needs=("containerPort",))
            _keep_objects(container, "volumeMounts", needs=("name", "mountPath"))
    _keep_objects(spec, "volumes", needs=("name",))


def _shape_application(application: KubeObject, spec: KubeObject, status: KubeObject) -> None:
    _drop_unless(dict, spec, "source", "destination", "syncPolicy")
    _drop_unless(dict, spec.get("syncPolicy", {}), "automated")
    _drop_unless(list, spec.get("syncPolicy", {}), "syncOptions")
    _keep_objects(spec, "sources")
    for source in [spec.get("source", {}), *spec.get("sources", ())]:
        _drop_unless(str, source, "path", "repoURL")
    _drop_unless(dict, status, "sync", "health", "operationState")
    _drop_unless(str, status.get("health", {}), "status")
    _keep_objects(status, "resources")
    state = status.get("operationState", {})
    _drop_unless(str, state, "phase", "message")
    _drop_unless(dict, state, "operation", "syncResult")
    _drop_unless(dict, application, "operation")
    for operation in (application.get("operation", {}), state.get("operation", {})):
        _drop_unless(dict, operation, "sync", "initiatedBy")
        _shape_revisions(operation.get("sync", {}))
    for compared in (status.get("sync", {}), state.get("syncResult", {})):
        _shape_revisions(compared)
        _drop_unless(str, compared, "status")


def _shape_revisions(parent: KubeObject) -> None:
    _drop_unless(str, parent, "revision")
    _drop_unless(list, parent, "revisions")
    if "revisions" in parent:
        parent["revisions"] = [text for text in parent["revisions"] if isinstance(text, str)]


def _section(parent: KubeObject, key: str) -> KubeObject:
    """The object in the field `key` of `parent`; created if it is missing or not an object."""
    value = parent.get(key)
    if not isinstance(value, dict):
        value = parent[key] = {}
    return value


def _drop_unless(kind: type, parent: KubeObject, *keys: str) -> None:
    for key in keys:
        if key in parent and not isinstance(parent[key], kind):
            del parent[key]


def _keep_objects(parent: KubeObject, key: str, *, needs: tuple[str, ...] = ()) -> None:
    """Keep only the list entries that are objects with the keys `needs`. A value that is not a list is deleted."""
    if key not in parent:
        return
    if not isinstance(parent[key], list):
        del parent[key]
        return
    parent[key] = [entry for entry in parent[key] if isinstance(entry, dict) and all(need in entry for need in needs)]


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value if entry is not None]
    return value
