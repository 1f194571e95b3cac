"""Options of a change as people type them, and as the plan receives them."""

import pytest

from bot.errors import BotError
from bot.platform.change_planning import read_options


@pytest.mark.parametrize(
    ("typed", "per_token"),
    [
        ("0.50", "0.0000005"),
        ("$15", "0.000015"),
        ("0", "0.0"),
        ("1e-1", "0.0000001"),
        ("0.0000005", "0.0000005"),
        ("5e-7", "0.0000005"),
    ],
)
def test_a_price_is_per_million_tokens(typed: str, per_token: str) -> None:
    """A price that is too low for a million tokens counts as the price of one token, as in LiteLLM's file."""
    assert read_options("add", (("price-in", typed),)) == {"price_in": per_token}


@pytest.mark.parametrize("typed", ["cheap", "-1", "nan", "inf", "10000", "1e400", ""])
def test_an_invalid_price_is_refused(typed: str) -> None:
    with pytest.raises(BotError, match="use dollars per million tokens"):
        read_options("swap", (("price-out", typed),))
