"""The catalogue of errors is whole and true."""

from pathlib import Path

import pytest

from bot.cli.errors import error_classes, reference

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_catalogue_is_up_to_date() -> None:
    """`make docs` writes it from the code."""
    assert DOCS.read_text(encoding="utf-8") == reference(), "run `make docs`"


@pytest.mark.parametrize("each", error_classes(), ids=lambda each: each.__name__)
def test_every_error_says_what_it_means_and_what_to_do(each: type[Exception]) -> None:
    """A docstring and a remedy of its own, not the family's."""
    assert each.__doc__
    assert each.__dict__.get("remedy"), f"{each.__name__} in {each.__module__} needs a `remedy`"
    assert f"### {each.__name__} — " in DOCS.read_text(encoding="utf-8")


def test_what_is_said_is_in_the_catalogue() -> None:
    """The sentences come from where they are raised, below the class that is raised there."""
    _, _, told = DOCS.read_text(encoding="utf-8").partition("### UnknownModel — `bot/operations/endpoints.py`")
    assert "- Unknown model …" in told.partition("### ")[0]
