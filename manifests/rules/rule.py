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
    """True if a violation only makes something slower. It is reported only on request."""
    component: Component = "repository"
    """Set from the table that contains the rule."""
