"""The rules of the model contract by component: the check, the consequence, and the fix."""

from collections.abc import Mapping
from types import MappingProxyType

from manifests.rules.rule import Component, Rule, Severity
from manifests.rules.tables import argocd, engine, gateway, repository, source

__all__ = ["RULES", "Component", "Rule", "Severity"]

_TABLES: Mapping[Component, Mapping[str, Rule]] = {
    "repository": repository.RULES,
    "source": source.RULES,
    "engine": engine.RULES,
    "gateway": gateway.RULES,
    "argocd": argocd.RULES,
}

RULES: Mapping[str, Rule] = MappingProxyType(
    {name: rule._replace(component=component) for component, rules in _TABLES.items() for name, rule in rules.items()}
)
