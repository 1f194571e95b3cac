"""Declare every right that Stoker uses in the cluster. `bot.clients.kube` refuses requests that are not declared here.

The check at the start, the doctor, `stoker rights`, the chart's Roles (helm/stoker/files/rights.yaml, written by `make
docs`) and the permissions in the sandbox's API server are derived from these declarations. A new kind of request only
needs a verb or an `Access` in this file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from io import StringIO
from operator import attrgetter
from typing import Any, Literal

from ruamel.yaml import YAML

from bot.settings.config import Config
from manifests.frozen import frozen

Verb = Literal["get", "list", "watch", "create", "patch", "delete"]
"""The verbs of Kubernetes' RBAC that the bot's requests need."""

Rule = dict[str, list[str]]
"""A rule of a Role: `apiGroups`, `resources`, optionally `resourceNames`, and `verbs`."""


class Place(Enum):
    """The namespaces in which a right is needed. The value is the name of the setting that contains the namespace;
    empty for the whole cluster.
    """

    SERVING = "platform.namespace"
    GATEWAY = "litellm.namespace"
    ARGOCD = "argocd.namespace"
    FLUX = "flux.namespace"
    ENGINE_KEY = "vllm.api_key.namespace"
    MASTER_KEY = "litellm.master_key.namespace"
    CLUSTER = ""


class UndeclaredRight(RuntimeError):
    """The code sent a request that this module does not declare. This is a bug in Stoker, not in the installation."""


@frozen
class Right:
    """One verb on one resource. A Role grants it or, if the right has no namespace, a ClusterRole."""

    verb: str
    resource: str
    """The plural name, with its subresource: `deployments/scale`."""
    group: str = ""
    namespace: str | None = None
    name: str = ""
    """The name of the only object that it applies to (`resourceNames`); empty for any object."""
    without: str = ""
    """The consequence of a missing right; empty if Stoker cannot work without it."""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        suffix = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {kind}{f' {self.name}' if self.name else ''}{suffix}"


@dataclass(frozen=True, kw_only=True)
class Access:
    """The bot's use of one kind of object in one place."""

    place: Place
    api: str
    """`v1`, `apps/v1`."""
    resource: str
    verbs: frozenset[Verb]
    subresources: Mapping[str, frozenset[Verb]] = field(default_factory=dict)
    name: str = ""
    """The setting with the name of the only accessed object; empty for any object. Kubernetes cannot limit `create` to a
    name.
    """
    when: str = ""
    """The setting that enables the feature that needs these rights. If the setting is unset or `off`, they are not
    granted. Empty if they are always granted.
    """
    unless: str = ""
    """The setting that makes these rights unnecessary; empty if there is none."""
    without: str = ""
    """The consequence of a missing right; empty if Stoker cannot work without it."""
    for_everybody: bool = False
    """True if Kubernetes grants the rights to every account (the ClusterRole system:basic-user), so that Stoker's Roles
    do not contain them.
    """

    @property
    def group(self) -> str:
        return self.api.rpartition("/")[0]

    @property
    def root(self) -> str:
        """The path of the API: `/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.api}" if self.group else f"/api/{self.api}"

    def require(self, verb: Verb, subresource: str = "") -> None:
        """Raise UndeclaredRight if the bot's Roles do not have this verb."""
        if verb in (self.subresources.get(subresource, ()) if subresource else self.verbs):
            return
        target = f"{self.resource}/{subresource}" if subresource else self.resource
        namespace = f"the namespace that `{self.place.value}` names" if self.place.value else "the whole cluster"
        raise UndeclaredRight(
            f"Stoker's code needs to {verb} {target} in {namespace}, and no Role grants it: add the verb to the `Access` in"
            " bot/clients/rights.py, then run `make docs`, which writes the chart's Roles."
        )

    def rules(self) -> Iterator[tuple[str, frozenset[Verb]]]:
        """Each resource and subresource with its verbs."""
        if self.verbs:
            yield self.resource, self.verbs
        for subresource, verbs in self.subresources.items():
            yield f"{self.resource}/{subresource}", verbs


_DECLARED: list[Access] = []


def _declare(
    place: Place,
    api: str,
    resource: str,
    *verbs: Verb,
    subresources: Mapping[str, tuple[Verb, ...]] | None = None,
    name: str = "",
    when: str = "",
    unless: str = "",
    without: str = "",
    for_everybody: bool = False,
) -> Access:
    declared = Access(
        place=place,
        api=api,
        resource=resource,
        verbs=frozenset(verbs),
        subresources={key: frozenset(value) for key, value in (subresources or {}).items()},
        name=name,
        when=when,
        unless=unless,
        without=without,
        for_everybody=for_everybody,
    )
    _DECLARED.append(declared)
    return declared


# -------------------------------------------------------------------------------------------------------- declarations

MODELS = _declare(
    Place.SERVING, "apps/v1", "deployments", "get", "list", "watch", "patch", subresources={"scale": ("patch",)}
)
PODS = _declare(Place.SERVING, "v1", "pods", "list", "watch", subresources={"log": ("get",)})
EVENTS = _declare(Place.SERVING, "v1", "events", "list", "watch")
SERVICES = _declare(Place.SERVING, "v1", "services", "list")
BENCHMARKS = _declare(
    Place.SERVING, "batch/v1", "jobs", "list", "watch", "create", "delete", when="bench.image"
)  # fmt: skip

STAGING_JOBS = _declare(
    Place.SERVING, "batch/v1", "jobs", "list", "watch", "create", "delete", when="staging.mode"
)  # fmt: skip
# A swap of a running endpoint expands its volume before the merge, so that both models fit.
CLAIMS = _declare(Place.SERVING, "v1", "persistentvolumeclaims", "get", "patch", when="staging.mode")
# An unbound volume must be bound in a zone with a GPU. The storage class determines when it is bound, and the models'
# other volumes show the zone.
VOLUMES = _declare(Place.CLUSTER, "v1", "persistentvolumes", "get", when="staging.mode")
STORAGE_CLASSES = _declare(Place.CLUSTER, "storage.k8s.io/v1", "storageclasses", "list", when="staging.mode")

# A workload in any namespace may use the GPU that the next model needs.
ALL_DEPLOYMENTS = _declare(Place.CLUSTER, "apps/v1", "deployments", "list")
ALL_PODS = _declare(Place.CLUSTER, "v1", "pods", "list")
NODES = _declare(
    Place.CLUSTER,
    "v1",
    "nodes",
    "get",
    "list",
    "watch",
    without="the receipt estimates how long the node was billed instead of watching it",
)

# A roll-out waits until LiteLLM's pods run with the new configuration.
GATEWAY_DEPLOYMENTS = _declare(
    Place.GATEWAY, "apps/v1", "deployments", "get", "list", "watch", when="litellm.namespace"
)
APPLICATIONS = _declare(
    Place.ARGOCD, "argoproj.io/v1alpha1", "applications", "get", "list", "watch", "patch", unless="flux.namespace"
)  # fmt: skip
# With Flux, an annotation on the source and on the Kustomization requests a reconciliation.
KUSTOMIZATIONS = _declare(
    Place.FLUX, "kustomize.toolkit.fluxcd.io/v1", "kustomizations", "get", "list", "watch", "patch", when="flux.namespace"
)  # fmt: skip
# In many repositories a Kustomization is in the namespace of the objects that it deploys.
KUSTOMIZATIONS_BESIDE = _declare(
    Place.SERVING,
    "kustomize.toolkit.fluxcd.io/v1",
    "kustomizations",
    "get",
    "list",
    "watch",
    "patch",
    when="flux.namespace",
)
GIT_REPOSITORIES = _declare(
    Place.FLUX, "source.toolkit.fluxcd.io/v1", "gitrepositories", "patch", when="flux.namespace"
)  # fmt: skip
HELM_RELEASES = _declare(
    Place.SERVING, "helm.toolkit.fluxcd.io/v2", "helmreleases", "list", "watch", when="flux.namespace"
)  # fmt: skip

ENGINE_KEY = _declare(Place.ENGINE_KEY, "v1", "secrets", "get", name="vllm.api_key.name", when="vllm.api_key.namespace")
MASTER_KEY = _declare(
    Place.MASTER_KEY, "v1", "secrets", "get", name="litellm.master_key.name", when="litellm.master_key.namespace"
)

ACCESS_REVIEWS = _declare(
    Place.CLUSTER, "authorization.k8s.io/v1", "selfsubjectaccessreviews", "create", for_everybody=True
)


# ------------------------------------------------------------------------------------------------------ derived values


def rights(config: Config) -> tuple[Right, ...]:
    """The rights that the bot uses with these settings."""
    listed = (
        Right(
            verb,
            resource,
            access.group,
            namespace,
            _setting(config, access.name),
            access.without,
        )
        for access in _DECLARED
        if not access.for_everybody
        and (not access.when or _is_set(config, access.when))
        and (not access.unless or not _is_set(config, access.unless))
        for namespace in _namespaces(config, access.place)
        for resource, verbs in access.rules()
        for verb in sorted(verbs)
    )
    return tuple(dict.fromkeys(listed))


def roles(config: Config, name: str = "stoker") -> list[dict[str, Any]]:
    """The Roles and the ClusterRole that grant exactly `rights(config)`."""
    rules: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for right in rights(config):
        of_namespace = rules.setdefault(right.namespace or "", {})
        of_namespace.setdefault((right.group, right.resource, right.name), []).append(right.verb)
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role" if namespace else "ClusterRole",
            "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
            "rules": [_rule(*resource, verbs) for resource, verbs in resources.items()],
        }
        for namespace, resources in sorted(rules.items())
    ]


def chart() -> str:
    """The content of helm/stoker/files/rights.yaml: the declarations with the names of settings, whose values Helm fills in."""
    needed = [access for access in _DECLARED if not access.for_everybody]
    named = {
        name for access in needed for name in (access.place.value, access.name, access.when, access.unless) if name
    }
    rules = [
        {
            key: value
            for key, value in (
                ("namespace", access.place.value),
                ("resourceName", access.name),
                ("when", access.when),
                ("unless", access.unless),
            )
            if value
        }
        | _rule(access.group, resource, "", sorted(verbs))
        for access in needed
        for resource, verbs in access.rules()
    ]
    return "# Written by `make docs` from bot/clients/rights.py: do not edit.\n" + as_yaml(
        {"defaults": {name: _setting(Config(), name) for name in sorted(named)}, "rules": rules}
    )


def as_yaml(*documents: object) -> str:
    """The documents as YAML, in the format of the chart's files."""
    stream, yaml = StringIO(), YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump_all(documents, stream)
    return stream.getvalue()


def _namespaces(config: Config, place: Place) -> tuple[str | None, ...]:
    """The namespaces of a place; None for the whole cluster."""
    more = config.platform.namespaces if place is Place.SERVING else ()
    return (_setting(config, place.value) or None, *more)


def _rule(group: str, resource: str, name: str, verbs: list[str]) -> Rule:
    names = {"resourceNames": [name]} if name else {}
    return {"apiGroups": [group], "resources": [resource]} | names | {"verbs": verbs}


def _is_set(config: Config, name: str) -> bool:
    return _setting(config, name) not in ("", "off")


def _setting(config: Config, name: str) -> str:
    """The value of a setting by its name (`vllm.api_key.name`); empty if it is unset or off."""
    return str(attrgetter(name)(config) or "") if name else ""
