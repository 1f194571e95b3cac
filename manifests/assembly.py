"""Put the pieces of an endpoint together: its workload, Service, volume, deployer and aliases."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace

from ruamel.yaml.nodes import Node

from manifests import patches
from manifests.deployers import argocd, deployment
from manifests.edit import Comment, Document, find, items, scalars, value
from manifests.engines import Engine
from manifests.gateway import Entry, model_list
from manifests.kustomize import Rendering, leads_to, rendering
from manifests.memory import remembered
from manifests.objects import Located, objects, of_kind
from manifests.pieces import Pieces, labels
from manifests.places import Place, place_of
from manifests.snapshot import Snapshot
from manifests.sources import workloads
from manifests.sources.candidate import Candidate
from manifests.sources.forms import candidates
from manifests.tree import Tree


@remembered
def locate(platform: Snapshot, name: str) -> Pieces | None:
    """The pieces of the endpoint `name`, or None if it is outside the contract.

    The contract requires exactly one workload that runs a known engine and names its model.
    """
    place = place_of(platform, name)
    if place is None or len(place.found) != 1:  # several engines that serve one model together are not supported
        return None
    (candidate,) = place.found
    engine, model = candidate.command.engine, candidate.command.model
    if engine is None or not engine.changes or model is None or model.value.startswith("$") or not model.value:
        return None
    return _assembled(platform, place, candidate, engine)


def outsider(platform: Snapshot, name: str) -> Pieces | None:
    """The pieces of a workload outside the contract: its object and its GPUs, without its model."""
    place = place_of(platform, name)
    if place is None or len(place.found) != 1:
        return None
    (candidate,) = place.found
    return _assembled(platform, place, candidate, candidate.command.engine or Engine("", re.compile("$^")))


def outside(platform: Snapshot, name: str) -> str:
    """Return why an object is outside the contract; "" if it has no engine."""
    place = place_of(platform, name)
    found = place.found if place is not None else ()
    if len(found) > 1:
        return f"{len(found)} workloads there name a model"
    for each in found:
        if each.command.engine is None or not each.command.engine.changes:
            return f"its engine is {each.command.name}, which Stoker does not change"
        model = each.command.model
        if model is None:
            return f"its engine is {each.command.name}, and nothing that is understood names its model"
        if model.value.startswith("$"):
            return f"its model is the variable {model.value}"
    return ""


def is_alone(tree: Tree, pieces: Pieces) -> bool:
    """Return whether its files declare no other server, so that their comments are about this endpoint."""
    return pieces.fields is None and len([each for path in pieces.files for each in candidates(tree, path)]) == 1


def own_comments(tree: Tree, pieces: Pieces, after: Document) -> Callable[[Comment], bool]:
    """Which comments of an edited file are about this endpoint: if it has others, those in its own part and above that."""
    before, subject = pieces.deployment.document, pieces.candidate.subject
    if after.path != before.path or is_alone(tree, pieces):
        return lambda _: True
    first = int(subject.start_mark.line)
    last = max(int(each.end_mark.line) for each in scalars([subject])) + len(after.lines) - len(before.lines)
    has_key = before.lines[first].lstrip().startswith("-")
    while first > 0 and (text := before.lines[first - 1].strip()) and text != "---":
        if not text.startswith("#"):
            if has_key or not text.endswith(":"):
                break
            has_key = True
        first -= 1
    return lambda comment: first <= comment.line <= last


def _assembled(platform: Snapshot, place: Place, candidate: Candidate, engine: Engine) -> Pieces:
    layout = platform.layout
    name, workload = place.name, candidate.workload
    found = [each for path in place.files for each in objects(platform, path)]
    claimed = _served_from(candidate) or _claims(candidate.pod)
    claims = tuple(each for kind, each in found if kind == "PersistentVolumeClaim")
    services = [each for kind, each in found if kind == "Service"]
    is_alone = sum(kind in workloads.KINDS for kind, _ in found) == 1
    service = next((each for each in services if candidate.pod is not None and selects(each.node, workload.node)), None)
    if service is None and is_alone:
        service = next(iter(services), None)
    fields = layout.endpoints.get(name)
    deployer, deployed_by = (
        (argocd.DEPLOYER, argocd.described(candidate.application))
        if candidate.application
        else deployment(platform, name, place.home, fields)
    )
    is_argo = deployed_by is not None and deployed_by.deployer == argocd.DEPLOYER.name
    application = deployed_by.located if deployed_by is not None and is_argo else None
    folder = posixpath.dirname(place.home) if platform.read(place.home) is not None else place.home
    deployed = next(
        (each for each in (deployed_by.paths if deployed_by else ()) if leads_to(platform, each, folder)), folder
    )
    made = rendering(platform, folder, deployed) if fields is None else Rendering()
    own = candidate.namespace or value(workload.node, "metadata", "namespace")
    namespace = (
        (fields.namespace if fields else "")
        or (candidate.namespace if candidate.application else "")
        or made.namespace
        or own
        or (deployed_by.namespace if deployed_by else "")
        or layout.namespace
    )
    host = made.name(value(service.node, "metadata", "name")) if service else name
    hosts = tuple(dict.fromkeys((host, *candidate.hosts)))
    spaces = tuple(dict.fromkeys(filter(None, (namespace, made.namespace, own, layout.namespace))))
    others = {id(each.workload.node) for path in place.files for each in candidates(platform, path)}
    related = [
        each
        for kind, each in found
        if kind not in ("Kustomization", "HelmRelease", "Application", *workloads.KINDS) and id(each.node) not in others
    ]
    pieces = Pieces(
        name=name,
        deployment=workload,
        container=candidate.container,
        engine=engine.name,
        runtime=engine,
        flags=candidate.command.flags,
        pvc=next((each for each in claims if value(each.node, "metadata", "name") in claimed), None)
        or _shared_claim(platform, claimed, claims),
        claims=claims,
        service=service,
        application=application,
        entries=(),
        rendering=made,
        files=tuple(dict.fromkeys((*place.files, *candidate.files))),
        home=place.home,
        candidate=candidate,
        namespace=namespace,
        related=tuple({id(each.node): each for each in (*candidate.configs, *related)}.values()),
        deployer=deployed_by.deployer if deployed_by else "",
        deployed_by="" if application else deployed_by.name if deployed_by else fields.application if fields else "",
        fields=fields,
        gpu_resources=layout.gpu_resources,
    )
    patched = patches.subject(
        workload.node,
        {candidate.name, value(workload.node, "metadata", "name"), pieces.workload},
        candidate.pod,
        candidate.container,
        (each.node for each in (*pieces.related, *claims)),
    )
    opaque = patches.concerning(platform, made.opaque, patched)
    if deployer is not None and deployed_by is not None:
        opaque += deployer.patches(platform, deployed_by, patched)
    return replace(pieces, entries=_entries(platform, pieces, hosts, spaces), opaque=opaque)


def _claims(pod: Node | None) -> set[str]:
    volumes = items(find(pod, "volumes"))
    return {claim for volume in volumes if (claim := value(volume, "persistentVolumeClaim", "claimName"))}


def _served_from(candidate: Candidate) -> set[str]:
    """The volume that KServe serves from; others of the pod have caches."""
    spec = find(candidate.workload.node, "spec")
    uris = (value(spec, "model", "uri"), value(spec, "predictor", "model", "storageUri"))
    return {match[1] for each in uris if (match := re.match(r"pvc://([^/]+)", each))}


def _shared_claim(tree: Tree, claimed: set[str], own: tuple[Located, ...]) -> Located | None:
    """The claim that the pod mounts, if it is the only one and is in another directory."""
    if own or len(claimed) != 1:
        return None
    (name,) = claimed
    found = [each for each in of_kind(tree, "PersistentVolumeClaim") if value(each.node, "metadata", "name") == name]
    return found[0] if len(found) == 1 else None


def selects(service: Node, deployment: Node) -> bool:
    selector = labels(find(service, "spec", "selector"))
    return (
        bool(selector)
        and selector.items() <= labels(find(deployment, "spec", "template", "metadata", "labels")).items()
    )


def _entries(
    platform: Snapshot, pieces: Pieces, hosts: tuple[str, ...], namespaces: tuple[str, ...]
) -> tuple[Entry, ...]:
    """The entries that lead to the Service, with the endpoint's namesake first; otherwise the alias of this name.

    Otherwise the entries that a gateway routes by served name.
    """
    name, found = pieces.name, model_list(platform)
    by_host = [each for each in found if any(each.reaches(host, *namespaces) for host in hosts)]
    by_alias = [each for each in found if each.alias == name]
    served = pieces.served.values if pieces.served else ()
    routed = [each for each in found if each.asked in served and each.through_gateway(name, pieces.namespace)]
    return tuple(sorted(by_host or by_alias[:1] or routed, key=lambda each: each.alias != name))
