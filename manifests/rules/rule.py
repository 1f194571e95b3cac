"""One rule of the model contract."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
"""An error breaks a boot, a call or a bill. A warning may be intended. A note names something that was not checked."""

Component = Literal["repository", "source", "engine", "gateway", "argocd"]
"""The part of a platform that a rule checks (`tables/`). A rule reports nothing if its component is not used."""


class Rule(NamedTuple):
    """One rule: what is checked, the consequence of a violation, the fix."""

    checks: str
    otherwise: str
    fix: str
    severity: Severity = "error"
    advice: bool = False
    """True if everything works without it, only slower: reported only on request."""
    component: Component = "repository"
    """Given by the table that has the rule."""
