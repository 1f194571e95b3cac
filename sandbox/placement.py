"""Selects the node of a Job's pod: the scheduling rules that staging and benchmark Jobs use."""

from sandbox.node import GPU
from sandbox.objects import Object, ObjectStore
from sandbox.volumes import ZONE, Volumes, claims_of

NO_PLACE = "0/{nodes} nodes are available: {why}."


def fitting(store: ObjectStore, volumes: Volumes, namespace: str, spec: Object) -> tuple[str, str]:
    """Return a node for the pod, or an empty name with the scheduler's message."""
    nodes = store.stored("Node")
    affine_nodes = _beside(store, namespace, spec)
    obstacles: list[str] = []
    for node in nodes:
        obstacle = _obstacle(node, spec, volumes, namespace)
        if affine_nodes is not None and node["metadata"]["name"] not in affine_nodes:
            obstacle = obstacle or "didn't match pod affinity rules"
        if not obstacle:
            return str(node["metadata"]["name"]), ""
        obstacles.append(obstacle)
    counted = (
        ", ".join(f"{obstacles.count(obstacle)} node(s) {obstacle}" for obstacle in dict.fromkeys(obstacles))
        or "there are no nodes"
    )
    return "", NO_PLACE.format(nodes=len(nodes), why=counted)


def _obstacle(node: Object, spec: Object, volumes: Volumes, namespace: str) -> str:
    labels = node["metadata"].get("labels") or {}
    tolerated = {toleration.get("key") for toleration in spec.get("tolerations") or ()}
    if GPU in node["status"]["capacity"] and not {GPU, None} & tolerated:
        return f"had untolerated taint {{{GPU}: present}}"
    selector = spec.get("nodeSelector") or {}
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not selector.items() <= labels.items() or (required and not _selects(required, node)):
        return "didn't match Pod's node affinity/selector"
    for claim in claims_of(spec):
        zone = volumes.zone_of((namespace, claim))
        if zone and labels.get(ZONE) != zone:
            return "had volume node affinity conflict"
    return ""


def _selects(required: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in required["nodeSelectorTerms"]:
        rules = [(rule, labels) for rule in term.get("matchExpressions") or ()]
        rules += [(rule, fields) for rule in term.get("matchFields") or ()]
        if all(_holds(rule, values) for rule, values in rules):
            return True
    return False


def _holds(rule: Object, values: dict[str, str]) -> bool:
    match rule["operator"]:
        case "In":
            return values.get(rule["key"]) in rule["values"]
        case "DoesNotExist":
            return rule["key"] not in values
        case other:
            raise NotImplementedError(f"the sandbox's scheduler does not support the operator {other}")


def _beside(store: ObjectStore, namespace: str, spec: Object) -> set[str] | None:
    """Return the nodes of the pods that a required pod affinity selects; None without such an affinity."""
    affinity = ((spec.get("affinity") or {}).get("podAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not affinity:
        return None
    labels = affinity[0]["labelSelector"]["matchLabels"].items()
    pods = store.stored("Pod", namespace)
    return {
        str(pod["spec"]["nodeName"])
        for pod in pods
        if labels <= (pod["metadata"].get("labels") or {}).items() and pod["spec"].get("nodeName")
    }
