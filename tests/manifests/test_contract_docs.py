"""The document of the contract is complete."""

from pathlib import Path

from manifests.rules import RULES, reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "contract.md"


def test_the_document_holds_every_rule() -> None:
    """`make docs` writes the table."""
    assert reference() in DOCUMENT.read_text(encoding="utf-8")


def test_a_rule_says_what_happens_otherwise_and_how_to_mend_it() -> None:
    """Each rule is described, and none is omitted."""
    for name, rule in RULES.items():
        assert all(rule._replace(advice=True)), name
