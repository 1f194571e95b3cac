"""The chart's ValidatingAdmissionPolicy, evaluated by Google's CEL runtime as by an API server."""

from dataclasses import dataclass, field
from typing import Any

from tests.helm.chart import Object, of_kind, render

BOT = "system:serviceaccount:stoker:stoker"


@dataclass(frozen=True, kw_only=True)
class Review:
    """A request that passed RBAC, in the form in which an API server passes it to its admission plugins."""

    operation: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""
    new: Object | None = None
    old: Object | None = None
    user: str = BOT

    def request(self) -> Object:
        """The AdmissionRequest: empty fields are omitted, except for the parts of `resource`."""
        optional = {"subResource": self.subresource, "name": self.name}
        return {
            "operation": self.operation,
            "resource": {"group": self.group, "version": "v1", "resource": self.resource},
            "userInfo": {"username": self.user},
            **{key: value for key, value in optional.items() if value},
        }


@dataclass
class Policy:
    """The policy of a release with these values."""

    values: Object
    spec: Object = field(init=False)

    def __post_init__(self) -> None:
        (policy,) = of_kind(render(self.values), "ValidatingAdmissionPolicy")
        self.spec = policy["spec"]

    def concerns(self, review: Review) -> bool:
        return all(
            self._value(condition["expression"], review, {}) is True for condition in self.spec["matchConditions"]
        )

    def denies(self, review: Review) -> list[str]:
        """The messages of the failed validations; an expression with an error also denies (failurePolicy: Fail)."""
        if not self.concerns(review):
            return []
        variables: Object = {}
        for variable in self.spec["variables"]:
            # A server evaluates a variable when it is used, so a failing variable affects no other expression.
            value = self._value(variable["expression"], review, variables)
            if not isinstance(value, _Failed):
                variables[variable["name"]] = value
        messages = []
        for validation in self.spec["validations"]:
            value = self._value(validation["expression"], review, variables)
            if value is not True:
                messages.append(f"{validation['message']}{f' ({value})' if isinstance(value, _Failed) else ''}")
        return messages

    def _value(self, expression: str, review: Review, variables: Object) -> Any:
        from cel_expr_python import cel

        names = ("object", "oldObject", "request", "variables")
        environment = cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN))
        data = dict(zip(names, (review.new, review.old, review.request(), variables), strict=True))
        result = environment.compile(expression).eval(data=data)
        if "ERROR" in str(result.type()):
            return _Failed(str(result.value()))
        return result.plain_value()


class _Failed(str):
    """An error in an expression."""
