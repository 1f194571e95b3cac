"""Normalise Kubernetes objects of any owner for this package.

The API server validates objects of its own kinds. It validates other kinds, such as Applications, only as far as their
definition does, and an aggregated API validates nothing. One null, missing or mistyped field in an unrelated object
must not break `/gpu down`. A well-formed object is not changed.
"""

from typing import Any

KubeObject = dict[str, Any]


def shaped(resource: str, item: object) -> KubeObject | None:
    """The object with `metadata` and `spec`, without null and mistyped fields; None if it has no name."""
    found = _without_nulls(item)
    if not isinstance(found, dict):
        return None
    meta = _section(found, "metadata")
    if not isinstance(meta.get("name"), str):
        return None
    _drop_unless(str, meta, "namespace", "resourceVersion", "creationTimestamp", "deletionTimestamp")
    _drop_unless(dict, meta, "labels", "annotations")
    for texts in ("labels", "annotations"):
        if texts in meta:
            meta[texts] = {key: text for key, text in meta[texts].items() if isinstance(text, str)}
    _keep_objects(meta, "ownerReferences", needs=("kind", "name"))
    spec, status = _section(found, "spec"), found.get("status")
    if not isinstance(status, dict):
        status = {}
        found.pop("status", None)
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
            _shape_application(found, spec, status)
    return found


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


def _shape_application(found: KubeObject, spec: KubeObject, status: KubeObject) -> None:
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
    _drop_unless(dict, found, "operation")
    for operation in (found.get("operation", {}), state.get("operation", {})):
        _drop_unless(dict, operation, "sync", "initiatedBy")
        _shape_revisions(operation.get("sync", {}))
    for compared in (status.get("sync", {}), state.get("syncResult", {})):
        _shape_revisions(compared)
        _drop_unless(str, compared, "status")


def _shape_revisions(of: KubeObject) -> None:
    _drop_unless(str, of, "revision")
    _drop_unless(list, of, "revisions")
    if "revisions" in of:
        of["revisions"] = [each for each in of["revisions"] if isinstance(each, str)]


def _section(of: KubeObject, key: str) -> KubeObject:
    """The object below `key`, created if missing."""
    found = of.get(key)
    if not isinstance(found, dict):
        found = of[key] = {}
    return found


def _drop_unless(kind: type, of: KubeObject, *keys: str) -> None:
    for key in keys:
        if key in of and not isinstance(of[key], kind):
            del of[key]


def _keep_objects(of: KubeObject, key: str, *, needs: tuple[str, ...] = ()) -> None:
    """Keep only list entries that are objects with these keys; a value that is not a list is dropped."""
    if key not in of:
        return
    if not isinstance(of[key], list):
        del of[key]
        return
    of[key] = [each for each in of[key] if isinstance(each, dict) and all(need in each for need in needs)]


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value if each is not None]
    return value
