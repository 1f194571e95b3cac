"""The catalogue of errors is complete and correct."""

from pathlib import Path

import pytest

from bot.cli import boots
from bot.cli.errors import error_classes, reference

BOOTS = Path(__file__).parents[2] / "docs" / "boots.md"
DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_catalogue_is_up_to_date() -> None:
    """`make docs` writes it from the code."""
    assert DOCS.read_text(encoding="utf-8") == reference(), "run `make docs`"


@pytest.mark.parametrize("each", error_classes(), ids=lambda each: each.__name__)
def test_every_error_has_a_meaning_and_a_remedy(each: type[Exception]) -> None:
    """Each has its own docstring and remedy, not the family's."""
    assert each.__doc__
    assert each.__dict__.get("remedy"), f"{each.__name__} in {each.__module__} needs a `remedy`"
    assert f"### {each.__name__} — " in DOCS.read_text(encoding="utf-8")


def test_the_messages_are_in_the_catalogue() -> None:
    """The texts come from where they are raised, below the class that is raised there."""
    _, _, told = DOCS.read_text(encoding="utf-8").partition("### UnknownModel — `bot/platform/endpoints.py`")
    assert "- Unknown model …" in told.partition("### ")[0]


def test_the_page_about_boots_is_the_codes() -> None:
    """Its tables are generated from the tables that a diagnosis uses."""
    assert BOOTS.read_text(encoding="utf-8") == boots.reference(), "run `make docs`"
