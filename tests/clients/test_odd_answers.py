"""Fields of the Hub, LiteLLM and Slack with undocumented types count as unknown and cause no unexpected error."""

import pytest

from bot.clients.huggingface import _base_model, _licence
from bot.clients.litellm import _tenant_key
from bot.slack.directory import _profile

ODD: list[object] = [None, 7, "x", [], [None, 7], {}, {"x": None}, True]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_fields_of_other_types_are_unknown(odd: object) -> None:
    assert _base_model({"cardData": odd, "tags": odd}) == ""
    assert _licence({"cardData": odd, "tags": odd}) is None
    _tenant_key({"token": "hash", "models": odd, "user_id": odd})
    profile = _profile({"id": "U1", "team_id": "T1", "enterprise_user": odd})
    assert profile.teams == {"T1"}
    assert _profile({"id": "U1", "enterprise_user": {"teams": odd}}).enterprise == ""
