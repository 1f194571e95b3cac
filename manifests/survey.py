"""Describe a repository: its endpoints, deployer and gateway, how endpoints are started, and what was not understood."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ruamel.yaml.nodes import Node

from manifests import replicas
from manifests.contract import ModelEndpoint, read_endpoints
from manifests.deployed import reachable
from manifests.deployers.flux import namespace_of
from manifests.edit import Document, InvalidYaml, find, items, value
from manifests.gateways import Route, gateways
from manifests.gpu_workloads import workloads_on_gpu
from manifests.platform import Platform
from manifests.proxy import Proxy, proxy
from manifests.tree import ManifestError, Tree

_FLUX, _ARGO = "kustomize.toolkit.fluxcd.io/", "argoproj.io/"


class Deployment(NamedTuple):
    """An object that deploys a part of the repository."""

    kind: str
    name: str
    namespace: str
    path: str
    heals: bool
    """True if the deployer reverts replicas that another program or a person sets."""
    source: str = ""
    """The namespace of Flux's source, if it differs from the object's own."""


class Survey(NamedTuple):
    """The result of a survey. `unread` are skipped files and directories, each with the reason."""

    endpoints: tuple[ModelEndpoint, ...]
    deployments: tuple[Deployment, ...]
    gateways: tuple[str, ...]
    """The files that contain LiteLLM's list of models."""
    unread: tuple[tuple[str, str], ...]
    starts: dict[str, str]
    """A description of how each endpoint is started and stopped."""
    routes: tuple[tuple[str, Route], ...] = ()
    """The name of each gateway that Stoker does not change, with one of its routes to an endpoint."""
    other_workloads: tuple[str, ...] = ()
    """Workloads outside the contract that git keeps on a GPU together with an endpoint, as `namespace/name`."""

    proxy: Proxy | None = None
    """The place of LiteLLM in the cluster."""

    models_on_gpu: int = 0
    """The number of models that git keeps on a GPU at the same time."""
    key: tuple[str, str, str] = ("", "", "")
    """Namespace, name and key of the Secret with the engines' key, if the manifests define it."""

    @property
    def deployer(self) -> str:
        """Flux, Argo CD, or unknown."""
        kinds = {deployment.kind for deployment in self.deployments}
        return "Flux" if "Kustomization" in kinds else "Argo CD" if kinds & {"Application", "ApplicationSet"} else ""

    @property
    def deployer_namespace(self) -> str:
        kind_prefix = "Kustomization" if self.deployer == "Flux" else "Application"
        candidates = [
            deployment
            for deployment in self.deployments
            if deployment.kind.startswith(kind_prefix) and deployment.namespace
        ]
        owners = [candidate for candidate in candidates if any(_is_below(file, candidate.path) for file in self._files)]
        # Stoker reads Kustomizations in one namespace; the namespace of the source takes precedence over the namespace
        # of the object.
        namespaces = Counter(owner.source or owner.namespace for owner in owners or candidates)
        return namespaces.most_common(1)[0][0] if namespaces else ""

    @property
    def _files(self) -> frozenset[str]:
        return frozenset(file for endpoint in self.endpoints for file in endpoint.files)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of the endpoints, the most common first."""
        return tuple(
            name
            for name, _ in Counter(
                endpoint.namespace for endpoint in self.endpoints if endpoint.namespace
            ).most_common()
        )


def survey(platform: Platform) -> Survey:
    """Read a whole repository. Unreadable parts are reported and otherwise ignored."""
    unread: list[tuple[str, str]] = []
    try:
        endpoints = read_endpoints(platform)
        unread += ((place.home, place.reason) for place in platform.unknown())
    except ManifestError as error:
        endpoints = ()
        unread.append(("the endpoints", str(error)))
    deployments = tuple(_deployments(platform, unread))
    try:
        lists = tuple(sorted({models.document.path for models in platform.model_lists()}))
    except (ManifestError, InvalidYaml) as error:
        lists = ()
        unread.append(("LiteLLM's list of models", str(error)))
    starts = {endpoint.name: _start(platform, endpoint, deployments) for endpoint in endpoints}
    routes = tuple(_routes(platform, endpoints))
    return Survey(
        endpoints,
        deployments,
        lists,
        tuple(unread),
        starts,
        routes,
        _other_workloads(platform, endpoints),
        proxy(platform),
        sum(_is_running(platform, endpoint) for endpoint in endpoints),
        _key(platform, endpoints),
    )


def flux_deploys(platform: Platform) -> bool:
    """Return whether Flux deploys the repository. Fast for a repository without Kustomizations of Flux."""
    return bool(platform.grep(_FLUX)) and survey(platform).deployer == "Flux"


def _is_running(platform: Platform, endpoint: ModelEndpoint) -> bool:
    """Return whether git keeps a model running on a GPU.

    If no replicas are set, a chart starts one replica, and a manifest leaves the number to the cluster.
    """
    pieces = platform.require(endpoint.name)
    count = replicas.count_of(pieces)
    from_chart = pieces.form in ("HelmRelease", "Application") and pieces.fields is None
    return bool(endpoint.gpus) and (count > 0 if count is not None else from_chart)


def _key(platform: Platform, endpoints: tuple[ModelEndpoint, ...]) -> tuple[str, str, str]:
    """The Secret with the engines' key; empty strings if the manifests name no Secret, or several."""
    keys = {
        (endpoint.namespace, *secret)
        for endpoint in endpoints
        if all(secret := platform.require(endpoint.name).key_secret)
    }
    return keys.pop() if len(keys) == 1 else ("", "", "")


def _routes(platform: Platform, endpoints: tuple[ModelEndpoint, ...]) -> Iterator[tuple[str, Route]]:
    """The routes to endpoints, which have the endpoint's name, its Service's name, or a served name of its engine."""
    pieces = [platform.require(endpoint.name) for endpoint in endpoints]
    names = {name for piece in pieces for name in (piece.name, piece.host, *piece.candidate.hosts, *piece.served_names)}
    for gateway in gateways():
        if not gateway.changes:
            routes = (route for route in gateway.routes(platform) if {route.alias, route.target} & names)
            yield from ((gateway.name, route) for route in routes)


def _other_workloads(platform: Platform, endpoints: tuple[ModelEndpoint, ...]) -> tuple[str, ...]:
    """The workloads outside the contract that git keeps on a GPU, as `namespace/name`; empty if no endpoint runs."""
    if not any(_is_running(platform, endpoint) for endpoint in endpoints):
        return ()
    own_workloads = {(endpoint.namespace, endpoint.workload) for endpoint in endpoints}
    own_workloads |= {
        (file, name) for endpoint in endpoints for file in endpoint.files for name in _names(platform, endpoint.name)
    }
    names = dict.fromkeys(
        workload[1:]
        for workload in workloads_on_gpu(platform)
        if workload[1] and not {workload[1:], workload[::2]} & own_workloads
    )
    return tuple(f"{namespace}/{name}" for namespace, name in names)


def _names(platform: Platform, endpoint: str) -> tuple[str, ...]:
    """The names of an endpoint's workload in its manifest, before kustomize renames it, and in the cluster."""
    pieces = platform.require(endpoint)
    return value(pieces.deployment.node, "metadata", "name"), pieces.workload


def _deployments(tree: Tree, unread: list[tuple[str, str]]) -> Iterator[Deployment]:
    for path in tree.grep(_FLUX, _ARGO):
        if not path.endswith((".yaml", ".yml")):
            continue
        try:
            roots = Document(path, tree.read(path) or "").roots
        except InvalidYaml as error:
            if "{{" not in (tree.read(path) or ""):  # a chart's template is not a manifest
                unread.append((path, str(error)))
            continue
        for root in roots:
            yield from _deployment(tree, path, root)


def _deployment(tree: Tree, file: str, root: Node) -> Iterator[Deployment]:
    kind, api = value(root, "kind"), value(root, "apiVersion")
    name, namespace = value(root, "metadata", "name"), value(root, "metadata", "namespace")
    if kind == "Kustomization" and api.startswith(_FLUX):
        path = value(root, "spec", "path").removeprefix("./").strip("/")
        source = value(root, "spec", "sourceRef", "namespace")
        namespace = namespace_of(tree, file, root) or "flux-system"
        yield Deployment(kind, name, namespace, path, heals=True, source=source)
    elif kind in ("Application", "ApplicationSet") and api.startswith(_ARGO):
        inner = ("spec", "template", "spec") if kind == "ApplicationSet" else ("spec",)
        heals = value(root, *inner, "syncPolicy", "automated", "selfHeal") == "true"
        ignored = [
            value(item)
            for rule in items(find(root, *inner, "ignoreDifferences"))
            for item in items(find(rule, "jsonPointers"))
        ]
        path = value(root, *inner, "source", "path").removeprefix("./").strip("/")
        if kind == "ApplicationSet":
            generators = items(find(root, "spec", "generators"))
            paths = [
                value(directory, "path")
                for generator in generators
                for directory in items(find(generator, "git", "directories"))
            ]
            path = next((pattern.rstrip("*").rstrip("/") for pattern in paths if pattern), path)
            heals = heals and "automated: null" not in value(root, "spec", "templatePatch")
        yield Deployment(kind, name, namespace or "argocd", path, heals and "/spec/replicas" not in ignored)


def _start(platform: Platform, endpoint: ModelEndpoint, deployments: tuple[Deployment, ...]) -> str:
    if scaler := replicas.scaled_by(platform, endpoint.name):
        return f"by {scaler}, not by Stoker"
    if kind := replicas.switched_by_hand(platform, endpoint.name):
        return f"by hand: it is {kind}, and Stoker starts and stops Deployments"
    files = set(endpoint.files)
    owners = [deployment for deployment in deployments if any(_is_below(file, deployment.path) for file in files)]
    owners = owners or [
        deployment for deployment in deployments if deployment.path and files & reachable(platform, deployment.path)
    ]
    named_owners = [deployment for deployment in deployments if deployment.name == endpoint.application]
    owner = max(named_owners or owners, key=lambda deployment: len(deployment.path), default=None)
    if endpoint.form == "LLMInferenceService":
        return "with a commit of its replicas, because KServe's controller reverts changes through the API"
    if owner is None or not owner.heals:
        return "through the API"
    if endpoint.form == "InferenceService" and replicas.replicas_in_git(platform, endpoint.name) is None:
        return "through the API: KServe's controller ignores the replicas of its Deployment"
    if endpoint.form == "HelmRelease" and not _detects_drift(platform, endpoint.name):
        return "through the API: helm-controller does not revert replicas without drift detection"
    if replicas.replicas_in_git(platform, endpoint.name) is None:
        return f"through the API: git does not set its replicas, so {owner.kind} {owner.name} does not revert them"
    return f"with a commit of its replicas, because {owner.kind} {owner.name} reverts changes through the API"


def _detects_drift(platform: Platform, name: str) -> bool:
    """Return whether helm-controller corrects replicas that another program or a person sets."""
    pieces = platform.locate(name)
    detection = find(pieces.deployment.node, "spec", "driftDetection") if pieces else None
    ignored = (value(item) for rule in items(find(detection, "ignore")) for item in items(find(rule, "paths")))
    return value(detection, "mode") == "enabled" and "/spec/replicas" not in ignored


def _is_below(file: str, directory: str) -> bool:
    return directory in ("", ".") or file.startswith(f"{directory}/") or file == directory
