"""Role-based access control of the sandbox's Kubernetes API.

Like Kubernetes (kubernetes.io/docs/reference/access-authn-authz/rbac, and `RequestInfoFactory` and `forbiddenMessage`
in k8s.io/apiserver): each verb is granted separately, so `list` does not include `watch`; a subresource is a separate
resource; `resourceNames` apply to a list or a watch only if its field selector names the object; a rule of a
ClusterRole that is bound for the cluster applies in each namespace.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.objects import ApiError, Object

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_ONE_NAME = re.compile(r"(?:^|,)metadata\.name==?([^,=!]+)(?:,|$)")


@dataclass(frozen=True)
class Request:
    """A request in the terms of a Role's rule."""

    verb: str
    group: str
    resource: str
    """The plural name, with its subresource: `deployments/scale`."""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{place}"


def request_of(method: str, route: Mapping[str, str], query: Mapping[str, str]) -> Request:
    """Return the request for an HTTP method, the parts of a path and its query."""
    name, subresource = route.get("name", ""), route.get("subresource", "")
    verb = _WRITES.get(method, "")
    if method == "DELETE":
        verb = "delete" if name else "deletecollection"
    elif method in ("GET", "HEAD"):
        verb = "get" if name else "watch" if query.get("watch") in {"1", "true", "True"} else "list"
    if not name and (match := _ONE_NAME.search(query.get("fieldSelector", ""))):
        name = match[1]
    resource = route["plural"] + (f"/{subresource}" if subresource else "")
    return Request(verb, route.get("group", ""), resource, route.get("namespace", ""), name)


class Account:
    """A ServiceAccount with its Roles and ClusterRoles, and a record of the rights that it has used."""

    def __init__(self, namespace: str, name: str, roles: Iterable[Object]) -> None:
        self.user = f"system:serviceaccount:{namespace}:{name}"
        self.used: set[Request] = set()
        self.refused: list[Request] = []
        self._has_refused = asyncio.Event()
        self._roles = list(roles)
        self._taken: set[Request] = set()

    @property
    def granted(self) -> frozenset[Request]:
        """The rights that the rules grant, each with one verb."""
        return frozenset(grant for grant in _grants(self._roles) if grant not in self._taken)

    def take(self, grant: Request) -> None:
        """Remove a right, as if somebody had edited the Role; raises KeyError if it was not granted.

        A SelfSubjectAccessReview still reports the right as granted, so that the request itself is sent and refused.
        """
        if grant not in self.granted:
            raise KeyError(f"{self.user} has no right to {grant}")
        self._taken.add(grant)

    def require(self, request: Request) -> None:
        """Record the grants that cover a request; raises ApiError 403 if none does."""
        if covering := self._covering(request) - self._taken:
            self.used |= covering
            return
        self.refused.append(request)
        self._has_refused.set()
        raise forbidden(self.user, request)

    async def refusal(self) -> Request:
        """Wait for the first refused request."""
        await self._has_refused.wait()
        return self.refused[0]

    def review(self, attributes: Mapping[str, Any]) -> bool:
        """Return the answer to a SelfSubjectAccessReview about `resourceAttributes`."""
        resource = attributes.get("resource", "") + (
            f"/{attributes['subresource']}" if attributes.get("subresource") else ""
        )
        request = Request(
            attributes.get("verb", ""),
            attributes.get("group", ""),
            resource,
            attributes.get("namespace", ""),
            attributes.get("name", ""),
        )
        return bool(self._covering(request))

    def _covering(self, request: Request) -> set[Request]:
        return {
            grant
            for grant in _grants(self._roles)
            if grant.verb in (request.verb, "*")
            and grant.group in (request.group, "*")
            and grant.resource in (request.resource, "*")
            and grant.namespace in (request.namespace, "")
            and grant.name in (request.name, "")
        }


def _grants(roles: Iterable[Object]) -> Iterable[Request]:
    for role in roles:
        namespace = role["metadata"].get("namespace", "")
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames") or [""]:
                            yield Request(verb, group, resource, namespace, name)


def forbidden(user: str, request: Request) -> ApiError:
    """Return the 403 error with Kubernetes' message."""
    resource = request.resource.partition("/")[0]
    subject = f"{resource}.{request.group}" if request.group else resource
    if request.name:
        subject = f'{subject} "{request.name}"'
    place = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    return ApiError(
        403,
        "Forbidden",
        f'{subject} is forbidden: User "{user}" cannot {request.verb} resource "{request.resource}" in API group'
        f' "{request.group}" {place}',
        {key: value for key, value in (("name", request.name), ("group", request.group), ("kind", resource)) if value},
    )
