"""The right to use the bot, through every entry point."""

from typing import Any

import pytest

from bot.policy import Home, Profile, may_use
from bot.settings.config import Config, PeopleSection
from bot.views.modals import BECAUSE_FORM, DOWN_FORM
from commands.gate import _only_stops, read

HOME = Home(team="T1", enterprise="", bot="UBOT")
GRID = Home(team="T1", enterprise="E1", bot="UBOT")
OURS = frozenset({"T1"})
ACTION = {"type": "block_actions", "actions": [{"action_id": "approve", "value": "x"}]}


@pytest.mark.parametrize(
    ("profile", "home", "reason"),
    [
        (Profile(id="U1", teams=OURS), HOME, ""),
        (Profile(id="U1", teams=frozenset({"T2"})), HOME, "another organisation"),
        (Profile(id="U1", teams=OURS, stranger=True), HOME, "another organisation"),
        (Profile(id="U1", teams=frozenset({"T2"}), enterprise="E1"), GRID, ""),
        (Profile(id="U1", teams=frozenset({"T2"}), enterprise="E2"), GRID, "another organisation"),
        (Profile(id="U1", teams=frozenset({"T2"}), enterprise=""), HOME, "another organisation"),
        (Profile(id="U1", teams=OURS, guest=True), HOME, "guests"),
        (Profile(id="U1", teams=OURS, bot=True), HOME, "apps and workflows"),
        (Profile(id="U1", teams=OURS, deleted=True), HOME, "no active account"),
        (None, HOME, "no active account"),
    ],
)
def test_only_full_members_may_use_the_bot(profile: Profile | None, home: Home, reason: str) -> None:
    """Full members belong to the workspace or its organisation; guests, apps and unknown users are refused."""
    verdict = may_use(profile, home, Config())
    assert verdict.allowed is (reason == "")
    assert reason in verdict.reason


def test_guests_and_apps_are_accepted_by_setting() -> None:
    """People of other organisations are still refused."""
    config = Config(people=PeopleSection(guests=True, bots=True))
    assert may_use(Profile(id="U1", teams=OURS, guest=True), HOME, config).allowed
    assert may_use(Profile(id="U1", teams=OURS, bot=True), HOME, config).allowed
    assert not may_use(Profile(id="U1", teams=frozenset({"T2"}), guest=True), HOME, config).allowed


@pytest.mark.parametrize(
    "body",
    [
        {"command": "/gpu", "text": "up m", "user_id": "U1", "team_id": "T2"},
        ACTION | {"user": {"id": "U1", "team_id": "T2"}, "team": {"id": "T1"}},
        {"type": "view_submission", "user": {"id": "U1", "team_id": "T2"}, "view": {"callback_id": "because"}},
        {"type": "view_closed", "user": {"id": "U1", "team_id": "T2"}},
        {"type": "block_suggestion", "user": {"id": "U1", "team_id": "T2"}, "action_id": "typed:hf_id"},
        {"type": "message_action", "user": {"id": "U1", "team_id": "T2"}, "callback_id": "tell"},
        {"type": "shortcut", "user": {"id": "U1", "team_id": "T2"}, "callback_id": "tell"},
        {"event": {"type": "app_mention", "user": "U1", "user_team": "T2", "team": "T1"}},
        {"event": {"type": "app_mention", "user": "U1", "source_team": "T2"}},
        {"event": {"type": "message", "channel_type": "im", "user": "U1", "user_team": "T2"}},
        {"event": {"type": "app_home_opened", "user": "U1", "user_team": "T2"}},
    ],
)
def test_a_delivery_that_names_another_workspace_is_refused(body: dict[str, Any]) -> None:
    """It is refused regardless of Slack's answer about the person. Each kind of delivery names the workspace in another field."""
    delivery = read(body)
    assert delivery
    assert delivery.user == "U1"
    refused = delivery.verdict(HOME)
    assert refused
    assert not refused.allowed


@pytest.mark.parametrize(
    "body",
    [
        {"command": "/gpu", "user_id": "U1", "team_id": "T2", "enterprise_id": "E1"},
        ACTION | {"user": {"id": "U1", "team_id": "T2"}, "enterprise": {"id": "E1"}},
        {"event": {"type": "app_mention", "user": "U1", "user_team": "E1"}},
    ],
)
def test_another_workspace_of_the_organisation_is_not_foreign(body: dict[str, Any]) -> None:
    """Workspaces of one Enterprise Grid organisation may use the bot."""
    delivery = read(body)
    assert delivery
    assert delivery.verdict(GRID) is None


def test_an_app_without_a_user_is_identified_by_its_bot_id() -> None:
    """A workflow's message has a bot_id and no user."""
    delivery = read({"event": {"type": "app_mention", "bot_id": "B1", "subtype": "bot_message"}})
    assert delivery
    assert delivery.user == "B1"


def test_events_without_a_request_are_ignored() -> None:
    """Edits, messages in a channel and events about people who join are ignored."""
    for event in (
        {"type": "message", "channel_type": "im", "subtype": "message_changed"},
        {"type": "message", "channel_type": "channel", "user": "U1"},
        {"type": "member_joined_channel", "user": "UBOT"},
    ):
        assert read({"event": event}) is None


def test_a_bring_down_can_be_confirmed_while_slack_returns_no_profile() -> None:
    """The form of `/gpu down` works then, like the command itself. A form for a decision does not work."""
    for form, stops in ((DOWN_FORM, True), (BECAUSE_FORM, False)):
        assert _only_stops({"type": "view_submission", "view": {"callback_id": form}, "user": {"id": "U1"}}) is stops


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("<@UBOT> down", True),
        ("<@UBOT> gpu down coder-chat", True),
        ("<@UBOT|stoker> GPU Down", True),
        ("<@UBOT> up coder-chat", False),
        ("<@UBOT> model down", False),
        ("<@UBOT> gpu up down", False),
        ("<@UBOT>", False),
    ],
)
def test_a_mention_can_stop_a_model_while_slack_returns_no_profile(text: str, stops: bool) -> None:
    """A direct message can also stop it."""
    for event in ({"type": "app_mention"}, {"type": "message", "channel_type": "im"}):
        assert _only_stops({"event": event | {"user": "U1", "text": text}}) is stops
