"""The rights of requesters, approvers and admins."""

from datetime import UTC, datetime, timedelta

from bot.domain.operations import BringUpOperation, Operation, Status, Vote
from bot.domain.requests import BringUp
from bot.policy import (
    People,
    approval_stands,
    can_be_approved,
    is_approved,
    may_cancel,
    may_deny,
    may_keep,
    may_override,
    may_release,
    may_request,
    may_vote,
    must_notify,
)
from bot.settings.config import Approvals, Config, Roles

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
PEOPLE = People(requesters=frozenset(), approvers=frozenset({"LEAD", "ADMIN"}), admins=frozenset({"ADMIN"}))


def requested_by(actor: str, *votes: str) -> Operation:
    request = BringUp(model="m", actor=actor, channel="C1", at=NOW)
    return BringUpOperation(
        id="a", request=request, updated=NOW, votes=tuple(Vote(by=v, at=NOW, approve=True) for v in votes)
    )


def test_a_teammate_approves() -> None:
    """The approver is not the requester."""
    assert may_vote(requested_by("DEV"), "LEAD", PEOPLE, Config()).allowed


def test_nobody_approves_their_own_request() -> None:
    """This includes approvers, unless the configuration allows it."""
    refused = may_vote(requested_by("LEAD"), "LEAD", PEOPLE, Config())
    assert (refused.allowed, refused.reason) == (False, "You requested this yourself, so a teammate must approve it.")
    assert may_vote(requested_by("LEAD"), "LEAD", PEOPLE, Config(approvals=Approvals(self_approval=True))).allowed


def test_the_refusal_names_the_approvers() -> None:
    """The refusal names the approvers, without the requester."""
    assert may_vote(requested_by("LEAD"), "DEV", PEOPLE, Config()).reason == "Only approvers can decide this: <@ADMIN>."
    assert "<@LEAD>" in may_deny(requested_by("DEV"), "DEV", PEOPLE).reason


def test_one_person_has_one_vote() -> None:
    """With a quorum of two, the same approver counts once."""
    refused = may_vote(requested_by("DEV", "LEAD"), "LEAD", PEOPLE, Config(approvals=Approvals(quorum=2)))
    assert (refused.allowed, refused.reason) == (
        False,
        "You have already approved this; another approver is needed too.",
    )


def test_an_approved_request_in_the_queue_needs_no_more_votes() -> None:
    """The refusal explains that the request starts at its turn."""
    refused = may_vote(requested_by("DEV", "LEAD"), "LEAD", PEOPLE, Config())
    assert (refused.allowed, refused.reason) == (False, "You have already approved this; it starts at its turn.")


def test_without_approvers_no_request_is_accepted() -> None:
    """Every request is refused with the reason."""
    nobody = People(frozenset(), frozenset(), frozenset())
    assert not can_be_approved(nobody).allowed
    assert "roles.approvers" in can_be_approved(nobody).reason


def test_everybody_may_request_unless_there_is_a_list() -> None:
    """A list in the settings restricts the requests."""
    closed = Config(roles=Roles(requesters=("U0DEV",)))
    assert may_request("ANY", PEOPLE, Config()).allowed
    assert not may_request("ANY", PEOPLE, closed).allowed
    assert may_request("DEV", People(frozenset({"DEV"}), frozenset(), frozenset()), closed).allowed


def test_requester_holder_and_approvers_may_cancel_and_keep() -> None:
    """Other people may do neither."""
    assert may_cancel(requested_by("DEV"), "DEV", PEOPLE).allowed
    assert may_cancel(requested_by("DEV"), "LEAD", PEOPLE).allowed
    assert not may_cancel(requested_by("DEV"), "ANY", PEOPLE).allowed
    assert may_keep("DEV", "DEV", PEOPLE).allowed
    assert not may_keep("DEV", "ANY", PEOPLE).allowed


def test_only_an_admin_may_override_with_a_reason() -> None:
    """Neither an approver nor an admin without a reason may override; an admin may override on their own request."""
    assert "Only an admin" in may_override("LEAD", "fire", PEOPLE).reason
    assert "Give a reason" in may_override("ADMIN", "", PEOPLE).reason
    assert may_override("ADMIN", "fire", PEOPLE).allowed


def test_an_override_replaces_the_quorum() -> None:
    """One override replaces all required votes."""
    config = Config(approvals=Approvals(quorum=3))
    op = requested_by("DEV", "LEAD")
    assert not is_approved(op, config)
    vote = Vote(by="ADMIN", at=NOW, approve=True, reason="fire", override=True)
    assert is_approved(op.model_copy(update={"votes": (*op.votes, vote)}), config)


def test_an_approval_given_while_waiting_is_valid_until_it_expires() -> None:
    """It is valid for an hour by default."""
    op = requested_by("DEV", "LEAD")
    assert approval_stands(op, Config(), NOW + timedelta(minutes=59))
    assert not approval_stands(op, Config(), NOW + timedelta(minutes=61))
    assert not approval_stands(requested_by("DEV"), Config(), NOW)


def test_only_an_admin_may_break_a_lease_with_a_reason() -> None:
    """The holder cannot do this, and brings the model down instead."""
    assert "Only an admin" in may_release("LEAD", "why not", PEOPLE).reason
    assert "Give a reason" in may_release("ADMIN", "", PEOPLE).reason
    assert may_release("ADMIN", "nobody answers", PEOPLE).allowed


def test_everybody_may_end_a_boot_and_its_requester_is_notified() -> None:
    """Cancel and `/gpu down` have the same rule. A waiting request can be cancelled by its requester and the approvers."""
    for status in (Status.APPROVED, Status.RUNNING):
        assert may_cancel(requested_by("DEV").model_copy(update={"status": status}), "ANY", PEOPLE).allowed
    assert not may_cancel(requested_by("DEV").model_copy(update={"status": Status.AWAITING}), "ANY", PEOPLE).allowed
    assert must_notify("DEV", "ANY")
    assert not must_notify("DEV", "DEV")
    assert not must_notify("DEV", "")
