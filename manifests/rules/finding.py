"""A finding of the check: a broken rule, at a line of a file."""

from pydantic import BaseModel, computed_field, field_validator
from ruamel.yaml.nodes import Node

from manifests.edit import line
from manifests.pieces import Entry, Located
from manifests.rules.table import RULES, Component, Severity

_COMPONENTS: dict[Component, str] = {
    "repository": "the repository",
    "source": "the endpoint",
    "engine": "the engine",
    "gateway": "LiteLLM",
    "argocd": "Argo CD",
}


class Finding(BaseModel, frozen=True, defer_build=True):
    """One contradiction: its rule, its position (line numbers start at 1), the problem, and the fix."""

    rule: str
    path: str
    line: int
    message: str
    fix: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def severity(self) -> Severity:
        return RULES[self.rule].severity

    @property
    def is_advice(self) -> bool:
        """True if it works but could be faster."""
        return RULES[self.rule].advice

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"{rule} is not a rule")
        return rule


def at(rule: str, located: Located | Entry, node: Node | None, message: str, fix: str) -> Finding:
    """Return a finding at a node of a document, or at the piece itself."""
    return Finding(rule=rule, path=located.document.path, line=line(node or located.node), message=message, fix=fix)


def reference() -> str:
    """Return the rules as a Markdown table, for docs/contract.md."""
    rows = (
        f"| `{name}` | {_COMPONENTS[rule.component]} | {rule.severity} | {rule.checks} | {rule.otherwise} | {rule.fix} |"
        for name, rule in RULES.items()
    )
    return (
        "\n".join(
            (
                "| rule | component | severity | what must hold | otherwise | fix |",
                "| --- | --- | --- | --- | --- | --- |",
                *rows,
            )
        )
        + "\n"
    )
