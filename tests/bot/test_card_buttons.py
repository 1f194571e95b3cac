"""The buttons of a card: their labels, their colours, and when they are shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.domain.kinds import Kind
from bot.domain.leases import Waiting
from bot.domain.operations import (
    OPERATIONS,
    BringUpOperation,
    ChangeOperation,
    Operation,
    PhaseRecord,
    SessionEnd,
    Status,
    Vote,
)
from bot.domain.outcomes import BroughtDown, Expired, Failed, LeftUp, Outcome, RolledOut, Started, StaysMerged
from bot.domain.plans import ChangePlan, OwnChange, Pull
from bot.domain.values import Message
from bot.text.mrkdwn import md
from bot.views import REPLACE, card, clock, gpu_offer, release_question
from bot.views.gpu import requested_line
from bot.views.home import Overview, home
from bot.views.links import Links
from bot.views.next_steps import BRING_UP, RETRY, REVERT, of_lease, superseded
from tests.bot.view_examples import NOW, a_lease, a_request


def an_operation(kind: Kind, status: Status = Status.AWAITING, **changes: Any) -> Operation:
    op = OPERATIONS[kind](id="abc123", request=a_request(kind, "coder-fim"), status=status, updated=NOW, quorum=1)
    return op.model_copy(update={"expires": NOW + timedelta(hours=1), **changes})


def a_bring_up(status: Status = Status.WAITING, **changes: Any) -> BringUpOperation:
    op = an_operation(Kind.GPU_UP, status, **changes)
    assert isinstance(op, BringUpOperation)
    return op


def a_plan(*, removes: bool = False) -> ChangePlan:
    pull = Pull(number=7, url="https://example.com/7", branch="b", head="b" * 40, checks="success")
    own_change = OwnChange(removes=removes)
    rows = (("Volume", "coder-fim-model-cache, 50Gi"),)
    return ChangePlan(commit="a" * 40, rows=rows, pull=pull, pushed=pull.head, own=own_change)


def buttons(blocks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    elements = [element for block in blocks if block["type"] == "actions" for element in block["elements"]]
    return {element["text"]["text"]: element for element in elements if element["type"] == "button"}


@pytest.mark.parametrize(
    ("kind", "removes"), [(Kind.MODEL_REMOVE, True), (Kind.MODEL_REMOVE, False), (Kind.MODEL_REVERT, True)]
)
def test_a_deletion_is_red_named_and_confirmed(kind: Kind, removes: bool) -> None:
    """It is red on the card and in Home; the dialog names the data that a revert does not restore."""
    op = an_operation(kind, plan=a_plan(removes=removes))
    overview = Overview(open=(op,), approvers=frozenset({"U2"}))
    for blocks in (card(op, NOW).blocks, home(overview, "U2", NOW)["blocks"]):
        visible = buttons(blocks)
        assert "Approve & roll out" not in visible
        assert visible["Approve deletion"]["style"] == "danger"
        assert "style" not in visible["Deny"]
        confirmation = visible["Approve deletion"]["confirm"]
        assert "coder-fim-model-cache, 50Gi with the weights" in confirmation["text"]["text"]
        assert "not the weights" in confirmation["text"]["text"]
        assert (confirmation["confirm"]["text"], confirmation["style"]) == ("Delete", "danger")


def test_another_roll_out_is_green_and_not_confirmed() -> None:
    visible = buttons(card(an_operation(Kind.MODEL_SWAP, plan=a_plan()), NOW).blocks)
    assert visible["Approve & roll out"]["style"] == "primary"
    assert "confirm" not in visible["Approve & roll out"]


def test_stopping_a_model_is_red_wherever_it_is_offered() -> None:
    op, lease = a_bring_up(waiting=Waiting(model="a", fence=3)), a_lease("a")
    assert buttons(release_question(op, lease, "U3").blocks)["Bring it down"]["style"] == "danger"


def test_a_queued_request_with_enough_approvals_needs_no_more() -> None:
    """The card shows that it is approved, and an approver can still deny it."""
    waiting = Waiting(model="coder-chat", holder="U3", fence=3, ahead=0)
    op = a_bring_up(waiting=waiting)
    assert "Approve" in buttons(card(op, NOW).blocks)
    op = op.model_copy(update={"votes": (Vote(by="U2", at=NOW, approve=True),)})
    view = card(op, NOW)
    assert "Approve" not in buttons(view.blocks)
    assert "Deny" in buttons(view.blocks)
    assert "Approved; starts when its turn comes" in str(view.blocks)
    offer = NOW + timedelta(minutes=5)
    op = op.model_copy(update={"waiting": waiting.model_copy(update={"offer": offer})})
    assert f"the GPU is offered until {clock(offer)}" in requested_line(op)
    view = card(op, NOW)
    assert f"press *Take it* by {clock(offer)}" in str(view.blocks)
    assert "Approved; starts when the offer is accepted" in str(view.blocks)


def test_two_approvals_are_needed_if_the_quorum_is_two() -> None:
    waiting = Waiting(model="coder-chat", holder="U3", fence=3, ahead=0)
    op = a_bring_up(waiting=waiting, votes=(Vote(by="U2", at=NOW, approve=True),))
    for quorum in (2, 0):  # 0: a record of an earlier version, without the number
        assert "Approve" in buttons(card(op.model_copy(update={"quorum": quorum}), NOW).blocks)


def test_nobody_is_asked_about_their_own_lease() -> None:
    """The card shows whose lease it is, and one button replaces the model."""
    for ahead in (None, 0):
        waiting = Waiting(model="coder-fim", holder="U3", fence=3, ahead=ahead)
        op = a_bring_up(waiting=waiting.model_copy(update={"holder": a_bring_up(waiting=waiting).request.actor}))
        view = card(op, NOW)
        visible = buttons(view.blocks)
        assert "Ask the holder" not in visible
        assert visible["Replace coder-fim"]["action_id"] == REPLACE
        assert "The requester holds it: *Replace coder-fim* brings that model down and this one up" in str(view.blocks)


def test_the_offer_is_not_a_lease() -> None:
    """The message shows which button to press, and until when."""
    op = a_bring_up(waiting=Waiting(ahead=0, offer=NOW))
    text = str(gpu_offer(op, approved=True).blocks)
    assert "press *Take it* by <!date^" in text
    assert "is yours" not in text


def test_a_card_shows_when_it_expires_and_counts_nothing_down() -> None:
    """Nobody edits a card each second, so a remaining time on it would be wrong."""
    footer = str(card(an_operation(Kind.GPU_UP), NOW).blocks[-1])
    assert "Expires at <!date^" in footer
    assert ", in 1 h" not in footer


LEFT_UP = LeftUp(reason=md("Smoke tests failed."), holder="U1", ends=NOW)
MERGED = StaysMerged(number=7, url="https://example.com/7")


@pytest.mark.parametrize(
    ("kind", "outcome", "labels"),
    [
        (Kind.GPU_UP, Started(holder="U1", ends=NOW), ["Extend …", "Bring down"]),
        (Kind.GPU_UP, LEFT_UP, ["Extend …", "Bring down"]),
        (Kind.GPU_UP, Failed(reason=md("No node.")), ["Retry"]),
        (Kind.GPU_UP, Expired(), ["Retry"]),
        (Kind.GPU_DOWN, BroughtDown(), ["Bring up"]),
        (Kind.MODEL_SWAP, RolledOut(serves="m", then="at zero"), ["Bring up", "Revert"]),
        (Kind.MODEL_SWAP, RolledOut(serves="m", then="answers"), ["Revert"]),
        (Kind.MODEL_SWAP, Failed(reason=md("No node."), undone=MERGED), ["Revert"]),
        (Kind.MODEL_REVERT, RolledOut(serves="m", then="answers"), []),
    ],
)
def test_an_ended_card_offers_the_next_steps(kind: Kind, outcome: Outcome, labels: list[str]) -> None:
    """Each button is shown only while it applies, and not if there is a newer card."""
    plan = a_plan()
    merged = plan.model_copy(update={"pull": plan.pull.model_copy(update={"merge_commit": "d" * 40})})
    op = an_operation(kind, outcome.status, result=outcome)
    op = op.model_copy(update={"plan": merged if isinstance(op, ChangeOperation) else None})
    assert list(buttons(card(op, NOW).blocks)) == labels
    op = op.model_copy(update={"obsolete": (BRING_UP, RETRY, REVERT)})
    if isinstance(op, BringUpOperation):
        op = op.model_copy(update={"session_end": SessionEnd(until=NOW)})
    assert list(buttons(card(op, NOW).blocks)) == []


def test_the_requests_of_stoker_itself_are_not_repeated() -> None:
    """The bot requested them, not a person."""
    op = an_operation(Kind.MODEL_STAGE, Status.FAILED, result=Failed(reason=md("No.")))
    op = op.model_copy(update={"request": op.request.model_copy(update={"actor": ""})})
    assert buttons(card(op, NOW).blocks) == {}


@pytest.mark.parametrize("outcome", [Started(holder="U1", ends=NOW), LEFT_UP])
def test_the_card_of_a_session_that_is_over_is_in_the_past(outcome: Outcome) -> None:
    """The card shows when the model was up and links to the receipt; it does not claim that somebody holds the GPU."""
    end = SessionEnd(since=NOW, until=NOW + timedelta(minutes=2), receipt=Message(channel="C1", ts="1.2"))
    op = an_operation(Kind.GPU_UP, outcome.status, result=outcome, session_end=end)
    text = str(card(op, NOW, Links(workspace="https://team.slack.com/")).blocks)
    assert f"was up {clock(NOW)}–{clock(NOW + timedelta(minutes=2))} · " in text
    assert "<https://team.slack.com/archives/C1/p12|receipt>" in text
    assert "holds the GPU" not in text
    assert "is up" not in text


def test_a_card_links_to_its_applications_if_argo_cd_has_an_address() -> None:
    """The card has the link only if `argocd.url` is set; the link contains the Applications' namespace."""
    op = an_operation(Kind.MODEL_SWAP, plan=a_plan().model_copy(update={"applications": ("coder-fim",)}))
    links = Links(argocd="https://argocd.example.com/", argocd_namespace="argocd")
    assert "<https://argocd.example.com/applications/argocd/coder-fim|coder-fim>" in str(card(op, NOW, links).blocks)
    assert "Argo CD" not in str(card(op, NOW).blocks)


PAGES = Links(
    logs="https://logs.example.com/?q=%7Bapp={model},ns={namespace}&from={from}",
    dashboard="https://grafana.example.com/d/1/{model}",
    namespace="serving",
)
BEGUN = (PhaseRecord(name="starting", began=datetime(2026, 11, 29, 12, tzinfo=UTC)),)


@pytest.mark.parametrize("kind", [Kind.GPU_UP, Kind.GPU_RESTART, Kind.MODEL_SMOKE, Kind.MODEL_BENCH, Kind.MODEL_SWAP])
@pytest.mark.parametrize("status", [Status.RUNNING, Status.FAILED])
def test_a_card_links_to_the_log_and_the_dashboard_once_it_works_with_the_model(kind: Kind, status: Status) -> None:
    """The link begins at the operation's start; before that, and for a request that starts nothing, there is no link."""
    op = an_operation(kind, status, phases=BEGUN)
    text = str(card(op, NOW, PAGES).blocks)
    assert "<https://logs.example.com/?q=%7Bapp=coder-fim,ns=serving&amp;from=1795953600000|Log>" in text
    assert "<https://grafana.example.com/d/1/coder-fim|Dashboard>" in text
    for unrelated in (an_operation(kind), an_operation(Kind.GPU_EXTEND, status, phases=BEGUN)):
        assert "example.com" not in str(card(unrelated, NOW, PAGES).blocks)
    assert "Dashboard" not in str(card(op, NOW, Links(logs=PAGES.logs)).blocks)


def test_a_name_can_change_no_other_part_of_a_link() -> None:
    """The name is escaped as a part of an address."""
    text = PAGES.about("a/../b?x=1&y#|>{from}", NOW)
    assert "https://grafana.example.com/d/1/a%2F..%2Fb%3Fx%3D1%26y%23%7C%3E%7Bfrom%7D|Dashboard" in text


def test_home_links_to_the_log_of_a_session() -> None:
    """The link begins at the claim of the GPU."""
    overview = Overview(leases=(a_lease("demo"),), links=PAGES)
    assert f"from={a_lease('demo').claimed.timestamp() * 1000:.0f}|Log>" in str(home(overview, "U1", NOW)["blocks"])


def test_a_roll_out_without_a_merge_commit_has_nothing_to_revert() -> None:
    """The record of an earlier version may lack the merge commit."""
    op = an_operation(Kind.MODEL_SWAP, Status.SUCCEEDED, result=RolledOut(serves="m", then="answers"), plan=a_plan())
    assert "Revert" not in buttons(card(op, NOW).blocks)


def test_a_newer_card_removes_the_buttons_of_older_ones() -> None:
    """After a bring-up, the card of the roll-out no longer offers one; the roll-out can still be reverted."""
    assert superseded(Kind.GPU_UP) == {"gpu": (BRING_UP, RETRY), "change": (BRING_UP,)}
    assert superseded(Kind.MODEL_SWAP) == {"change": (BRING_UP, RETRY)}


def test_the_lease_of_a_booting_model_cannot_be_extended() -> None:
    """Its lease has no end yet; it can be brought down, after a confirmation."""
    ready, booting = a_lease("demo"), a_lease("demo").model_copy(update={"ends": None, "ready": None})
    assert [button["text"]["text"] for button in of_lease(ready)] == ["Extend …", "Bring down"]
    (down,) = of_lease(booting)
    assert down["confirm"]["confirm"]["text"] == "Bring down"


def test_a_session_that_was_left_up_is_not_retried_after_its_end() -> None:
    """The model was up, and its card is about a past session."""
    op = an_operation(Kind.GPU_UP, Status.FAILED, result=LEFT_UP, session_end=SessionEnd(until=NOW))
    assert "Retry" not in buttons(card(op, NOW).blocks)
