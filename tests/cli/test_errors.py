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


@pytest.mark.parametrize("error_class", error_classes(), ids=lambda error_class: error_class.__name__)
def test_every_error_has_a_meaning_and_a_remedy(error_class: type[Exception]) -> None:
    """Each error has its own docstring and remedy, not those of its base class."""
    assert error_class.__doc__
    assert error_class.__dict__.get("remedy"), f"{error_class.__name__} in {error_class.__module__} needs a `remedy`"
    assert f"### {error_class.__name__} — " in DOCS.read_text(encoding="utf-8")


def test_the_messages_are_in_the_catalogue() -> None:
    """The texts are those in the code that raises the errors, below the raised class."""
    _, _, section = DOCS.read_text(encoding="utf-8").partition("### UnknownModel — `bot/platform/endpoints.py`")
    assert "- Unknown model …" in section.partition("### ")[0]


def test_the_page_about_boots_is_up_to_date() -> None:
    """Its tables are generated from the tables that a diagnosis uses."""
    assert BOOTS.read_text(encoding="utf-8") == boots.reference(), "run `make docs`"
