"""Assemble the pieces of an endpoint: its workload, Service, volume, deployer and aliases."""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from ruamel.yaml.nodes import Node

from manifests import patches
from manifests.deployers import Deployer, Deployment, argocd, deployment
from manifests.edit import Comment, Document, find, items, scalars, value
from manifests.engines import Engine
from manifests.gateway import Entry, model_list
from manifests.kustomize import Opaque, Rendering, leads_to, rendering
from manifests.memory import remembered
from manifests.objects import Located, objects, of_kind
from manifests.pieces import Pieces, labels
from manifests.places import Place, place_of
from manifests.snapshot import Snapshot
from manifests.sources import field_map, workloads
from manifests.sources.candidate import Candidate
from manifests.sources.forms import candidates
from manifests.tree import Tree


@remembered
def locate(platform: Snapshot, name: str) -> Pieces | None:
    """The pieces of the endpoint `name`, or None if it is outside the contract.

    The contract requires exactly one workload that runs a known engine and names its model.
    """
    place = place_of(platform, name)
    if place is None or len(place.servers) != 1:  # engines that serve one model together are not supported
        return None
    (candidate,) = place.servers
    engine, model = candidate.command.engine, candidate.command.model
    if engine is None or not engine.changes or model is None or model.value.startswith("$") or not model.value:
        return None
    return _assemble(platform, place, candidate, engine)


def outsider(platform: Snapshot, name: str) -> Pieces | None:
    """The pieces of a workload outside the contract: its object and its GPUs, without its model."""
    place = place_of(platform, name)
    if place is None or len(place.servers) != 1:
        return None
    (candidate,) = place.servers
    return _assemble(platform, place, candidate, candidate.command.engine or Engine("", re.compile("$^")))


def reason_outside(platform: Snapshot, name: str) -> str:
    """The reason why an object is outside the contract; "" if it has no engine."""
    place = place_of(platform, name)
    servers = place.servers if place is not None else ()
    if len(servers) > 1:
        return f"{len(servers)} workloads there name a model"
    for server in servers:
        command = server.command
        if command.engine is None or not command.engine.changes:
            return f"its engine is {command.name}, which Stoker does not change"
        model = command.model
        if model is None:
            return f"its engine is {command.name}, and Stoker finds its model in no supported place"
        if model.value.startswith("$"):
            return f"its model is the variable {model.value}"
    return ""


def is_alone(tree: Tree, pieces: Pieces) -> bool:
    """Return whether the endpoint's files declare no other server, so that all comments in them are about it."""
    servers = [server for path in pieces.files for server in candidates(tree, path)]
    return pieces.fields is None and len(servers) == 1


def own_comments(tree: Tree, pieces: Pieces, after: Document) -> Callable[[Comment], bool]:
    """Return a predicate for the comments of an edited file that are about this endpoint.

    If the file also has other endpoints, these are the comments in the endpoint's own part and directly above it.
    """
    before, subject = pieces.deployment.document, pieces.candidate.subject
    if after.path != before.path or is_alone(tree, pieces):
        return lambda _: True
    first = int(subject.start_mark.line)
    last = max(int(scalar.end_mark.line) for scalar in scalars([subject])) + len(after.lines) - len(before.lines)
    has_key = before.lines[first].lstrip().startswith("-")
    while first > 0 and (text := before.lines[first - 1].strip()) and text != "---":
        if not text.startswith("#"):
            if has_key or not text.endswith(":"):
                break
            has_key = True
        first -= 1
    return lambda comment: first <= comment.line <= last


class _Objects:
    """The objects in the endpoint's own files, by their use."""

    def __init__(self, platform: Snapshot, place: Place) -> None:
        self._declared = [declared for path in place.files for declared in objects(platform, path)]
        self.workloads = sum(kind in workloads.KINDS for kind, _ in self._declared)

    def of_kind(self, name: str) -> tuple[Located, ...]:
        return tuple(located for kind, located in self._declared if kind == name)

    def service_of(self, candidate: Candidate) -> Located | None:
        """The Service that selects the pod; if there is only one workload, the selector need not match."""
        services = self.of_kind("Service")
        if candidate.pod is not None:
            for service in services:
                if selects(service.node, candidate.workload.node):
                    return service
        return next(iter(services), None) if self.workloads == 1 else None

    def related(self, servers: set[int]) -> Iterator[Located]:
        """The objects other than workloads and deployers; `servers` are the nodes of the model servers."""
        for kind, located in self._declared:
            is_deployer = kind in ("Kustomization", "HelmRelease", "Application")
            if not is_deployer and kind not in workloads.KINDS and id(located.node) not in servers:
                yield located


class _Delivery(NamedTuple):
    """The deployer of an endpoint, and its object that deploys the endpoint; both are None if the repository has no such object."""

    deployer: Deployer | None
    deployment: Deployment | None

    @property
    def application(self) -> Located | None:
        """The Argo CD Application that deploys the endpoint."""
        if self.deployment is None or self.deployment.deployer != argocd.DEPLOYER.name:
            return None
        return self.deployment.located

    @property
    def paths(self) -> tuple[str, ...]:
        return self.deployment.paths if self.deployment else ()

    @property
    def namespace(self) -> str:
        return self.deployment.namespace if self.deployment else ""


def _assemble(platform: Snapshot, place: Place, candidate: Candidate, engine: Engine) -> Pieces:
    """The pieces of a model server's endpoint: the server and the objects that belong to it."""
    declared = _Objects(platform, place)
    fields = platform.layout.endpoints.get(place.name)
    delivery = _delivery(platform, place, candidate, fields)
    kustomized = _kustomize_rendering(platform, place, delivery) if fields is None else Rendering()
    claims = declared.of_kind("PersistentVolumeClaim")
    pieces = Pieces(
        name=place.name,
        deployment=candidate.workload,
        container=candidate.container,
        engine=engine.name,
        runtime=engine,
        flags=candidate.command.flags,
        pvc=_claim_with_weights(platform, candidate, claims),
        claims=claims,
        service=declared.service_of(candidate),
        application=delivery.application,
        entries=(),
        rendering=kustomized,
        files=tuple(dict.fromkeys((*place.files, *candidate.files))),
        home=place.home,
        candidate=candidate,
        namespace=_namespace(platform, candidate, delivery, kustomized, fields),
        related=_related_objects(platform, place, candidate, declared),
        deployer=delivery.deployment.deployer if delivery.deployment else "",
        deployed_by=_flux_kustomization(delivery, fields),
        fields=fields,
        gpu_resources=platform.layout.gpu_resources,
    )
    return replace(pieces, entries=_entries(platform, pieces), opaque=_opaque(platform, pieces, delivery))


def _delivery(platform: Snapshot, place: Place, candidate: Candidate, fields: field_map.FieldMap | None) -> _Delivery:
    if candidate.application:
        return _Delivery(argocd.DEPLOYER, argocd.deployment_of(candidate.application))
    return _Delivery(*deployment(platform, place.name, place.home, fields))


def _flux_kustomization(delivery: _Delivery, fields: field_map.FieldMap | None) -> str:
    if delivery.application:
        return ""
    if delivery.deployment:
        return delivery.deployment.name
    return fields.application if fields else ""


def _kustomize_rendering(platform: Snapshot, place: Place, delivery: _Delivery) -> Rendering:
    """The changes that kustomizations make, from the deployed directory down to the directory of the endpoint."""
    folder = posixpath.dirname(place.home) if platform.read(place.home) is not None else place.home
    deployed = next((path for path in delivery.paths if leads_to(platform, path, folder)), folder)
    return rendering(platform, folder, deployed)


def _namespace_in_git(candidate: Candidate) -> str:
    return candidate.namespace or value(candidate.workload.node, "metadata", "namespace")


def _namespace(
    platform: Snapshot,
    candidate: Candidate,
    delivery: _Delivery,
    kustomized: Rendering,
    fields: field_map.FieldMap | None,
) -> str:
    """The namespace in the cluster, from the first source that sets it."""
    return (
        (fields.namespace if fields else "")
        or (candidate.namespace if candidate.application else "")
        or kustomized.namespace
        or _namespace_in_git(candidate)
        or delivery.namespace
        or platform.layout.namespace
    )


def _related_objects(platform: Snapshot, place: Place, candidate: Candidate, declared: _Objects) -> tuple[Located, ...]:
    """The ConfigMaps that the server reads, and the other objects in the endpoint's files."""
    servers = {id(server.workload.node) for path in place.files for server in candidates(platform, path)}
    by_node = {id(located.node): located for located in (*candidate.configs, *declared.related(servers))}
    return tuple(by_node.values())


def _opaque(platform: Snapshot, pieces: Pieces, delivery: _Delivery) -> tuple[Opaque, ...]:
    """The patches that may change what the engine runs, in ways that are not computed."""
    workload, candidate = pieces.deployment.node, pieces.candidate
    subject = patches.subject_of(
        workload,
        {candidate.name, value(workload, "metadata", "name"), pieces.workload},
        candidate.pod,
        candidate.container,
        (located.node for located in (*pieces.related, *pieces.claims)),
    )
    opaque = patches.parts_that_affect(platform, pieces.rendering.opaque, subject)
    if delivery.deployer is not None and delivery.deployment is not None:
        opaque += delivery.deployer.patches(platform, delivery.deployment, subject)
    return opaque


def _claim_with_weights(platform: Snapshot, candidate: Candidate, claims: tuple[Located, ...]) -> Located | None:
    """The claim with the weights: a claim in the endpoint's files, or the only one that the pod mounts."""
    mounted = _served_from(candidate) or _claims(candidate.pod)
    own_claim = next((claim for claim in claims if value(claim.node, "metadata", "name") in mounted), None)
    return own_claim or _shared_claim(platform, mounted, claims)


def _claims(pod: Node | None) -> set[str]:
    volumes = items(find(pod, "volumes"))
    return {claim for volume in volumes if (claim := value(volume, "persistentVolumeClaim", "claimName"))}


def _served_from(candidate: Candidate) -> set[str]:
    """The names of the claims with the weights that KServe serves; the pod's other claims contain caches."""
    spec = find(candidate.workload.node, "spec")
    uris = (value(spec, "model", "uri"), value(spec, "predictor", "model", "storageUri"))
    return {match[1] for uri in uris if (match := re.match(r"pvc://([^/]+)", uri))}


def _shared_claim(tree: Tree, mounted: set[str], own_claims: tuple[Located, ...]) -> Located | None:
    """The only claim that the pod mounts, if it is in another directory and the endpoint declares no claims."""
    if own_claims or len(mounted) != 1:
        return None
    (name,) = mounted
    claims = of_kind(tree, "PersistentVolumeClaim")
    matching = [claim for claim in claims if value(claim.node, "metadata", "name") == name]
    return matching[0] if len(matching) == 1 else None


def selects(service: Node, deployment: Node) -> bool:
    """Return whether a Service selects the pods of a workload."""
    selector = labels(find(service, "spec", "selector"))
    return (
        bool(selector)
        and selector.items() <= labels(find(deployment, "spec", "template", "metadata", "labels")).items()
    )


def _entries(platform: Snapshot, pieces: Pieces) -> tuple[Entry, ...]:
    """The endpoint's entries in the gateway; the entry with the endpoint's name is first.

    These are the entries that lead to the endpoint's Service. If no entry does, this is the entry whose alias is the
    endpoint's name. If no alias matches either, these are the entries that another gateway routes by served name.
    """
    service, candidate, name = pieces.service, pieces.candidate, pieces.name
    host = pieces.rendering.name(value(service.node, "metadata", "name")) if service else name
    hosts = dict.fromkeys((host, *candidate.hosts))
    sources = (pieces.namespace, pieces.rendering.namespace, _namespace_in_git(candidate), platform.layout.namespace)
    namespaces = tuple(dict.fromkeys(filter(None, sources)))
    entries = model_list(platform)
    by_host = [entry for entry in entries if any(entry.reaches(host, *namespaces) for host in hosts)]
    by_alias = [entry for entry in entries if entry.alias == name]
    served = pieces.served.values if pieces.served else ()
    routed = [
        entry for entry in entries if entry.requested_model in served and entry.through_gateway(name, pieces.namespace)
    ]
    return tuple(sorted(by_host or by_alias[:1] or routed, key=lambda entry: entry.alias != name))
