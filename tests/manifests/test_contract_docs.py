"""The document of the contract is complete."""

from pathlib import Path

from manifests.rules import RULES, reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "contract.md"


def test_the_document_contains_every_rule() -> None:
    """`make docs` writes the table of the rules."""
    assert reference() in DOCUMENT.read_text(encoding="utf-8")


def test_every_rule_has_a_consequence_and_a_fix() -> None:
    """Each rule is described, and none is omitted."""
    for name, rule in RULES.items():
        assert all(rule._replace(advice=True)), name
