"""The contract's rows, as reviewers read them."""

import pytest

from manifests.contract import ModelEndpoint
from manifests.review import contract_rows


@pytest.mark.parametrize(
    ("price_in", "price_out", "expected"),
    [
        ("0.0000005", "0.0000015", "$0.50 / $1.50"),
        ("5e-9", "", "$0.005 / –"),
        ("", "", "– / –"),
        ("abc", "nan", "abc / nan"),
    ],
)
def test_prices_are_per_million_tokens(price_in: str, price_out: str, expected: str) -> None:
    """The card has prices per million tokens, like price lists; git has them per token."""
    endpoint = ModelEndpoint(
        name="a", kind="gpu-chat", hf_id="org/a", served_name="a", alias="a", gpus=1, price_in=price_in, price_out=price_out
    )  # fmt: skip
    assert dict(contract_rows(endpoint))["Price per million tokens, in / out"] == expected
