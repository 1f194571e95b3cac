"""How things look in Slack, within its limits."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.domain import Check, Kind, Lease, Message, Operation, Phase, Plan, Pull, Request, Status, Vote, Waiting
from bot.views import (
    KeepUntil,
    View,
    blind,
    card,
    clock,
    escape,
    keep_form,
    lines,
    offered,
    please_release,
    reminder,
    unmanaged,
    unmarked,
)
from bot.views.gpu import free
from bot.views.home import Overview, home

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def within_limits(view: View) -> None:
    """Slack's limits, as slack_sdk's models check them when they are serialised."""
    assert 0 < len(view.blocks) <= 50
    for block in view.blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.to_dict()


def an_operation(status: Status = Status.AWAITING, text: str = "demo", rows: int = 3) -> Operation:
    plan = Plan(
        commit="a" * 40,
        rows=tuple((text or "x", text or "x") for _ in range(rows)),
        warnings=(text,),
        pull=Pull(number=7, url="https://example.com/7", branch="b", head="b" * 40, checks="success"),
    )
    return Operation(
        id="abc123",
        request=Request(kind=Kind.GPU_UP, model=text, actor="U1", channel="C1", at=NOW, reason=text),
        status=status,
        updated=NOW,
        plan=plan,
        votes=(Vote(by="U2", at=NOW, approve=True, reason=text),),
        phases=tuple(Phase(name=text, began=NOW, detail=text) for _ in range(25)),
        checks=(Check(name=text, passed=False, evidence=text),) * 6,
        outcome=escape(text),
        expires=NOW + timedelta(hours=1),
    )


@given(text=st.text(min_size=1, max_size=4000), status=st.sampled_from(Status), rows=st.integers(0, 30))
def test_every_card_keeps_slacks_limits(text: str, status: Status, rows: int) -> None:
    """Whatever a person or an API wrote, in every field, in every status."""
    within_limits(card(an_operation(status, text, rows), NOW))


@given(text=st.text(min_size=1, max_size=12000))
def test_long_answers_are_cut_into_sections(text: str) -> None:
    """A list of hundreds of endpoints is still a message."""
    within_limits(lines(text))


def test_foreign_text_cannot_call_the_channel() -> None:
    """`<!channel>` is shown as text, wherever it stands."""
    shown = str(card(an_operation(text="<!channel> `*x*` \u202egpj"), NOW))
    assert "<!channel>" not in shown
    assert "\u202e" not in shown


def test_after_the_end_there_are_no_buttons() -> None:
    """What is over cannot be clicked; it says when it ended."""
    for status in Status:
        shown = str(card(an_operation(status), NOW).blocks)
        if status.final:
            assert "'button'" not in shown
            assert "Ended at" in shown


def test_the_roll_out_waits_for_green() -> None:
    """While checks run, or when there is a conflict, there is no button to approve."""
    op = an_operation()
    assert op.plan
    assert op.plan.pull
    for changes in ({"checks": "pending"}, {"checks": "failure"}, {"mergeable": False}):
        pull = op.plan.pull.model_copy(update=changes)
        waiting = op.model_copy(update={"plan": op.plan.model_copy(update={"pull": pull})})
        assert "Approve & roll out" not in str(card(waiting, NOW))
    assert "Approve & roll out" in str(card(op, NOW))


def test_a_review_that_github_waits_for_is_said_before_somebody_approves() -> None:
    """As long as checks run or fail, they are what is in the way."""
    op = an_operation()

    def shown(**changes: object) -> str:
        assert op.plan
        assert op.plan.pull
        pull = op.plan.pull.model_copy(update=changes)
        return str(card(op.model_copy(update={"plan": op.plan.model_copy(update={"pull": pull})}), NOW))

    assert "a review that is required" in shown(blocked=True)
    assert "a review that is required" not in shown(blocked=True, checks="pending")
    assert "a review that is required" not in shown()


def a_reminder(*, keep: str = "1 h", last: bool = False) -> View:
    lease = Lease(model="m", op="o", holder="U1", fence=3, hold=timedelta(hours=1), claimed=NOW)
    return reminder(lease, "15 min", 0.2, down_in="45 min", down_at="12:00 UTC", last=last, keep=keep)


def test_a_reminder_offers_to_keep_only_while_one_may() -> None:
    """The last reminder has one button."""
    assert "Keep 1 h" in str(a_reminder().blocks)
    assert "Keep" not in str(a_reminder(keep="").blocks)
    within_limits(a_reminder())


def test_the_last_reminder_announces_the_end() -> None:
    """With the moment at which it goes down, and what would stop that."""
    shown = str(a_reminder(last=True).blocks)
    assert "It goes down at 12:00 UTC" in shown
    assert "$0.20" in shown
    within_limits(a_reminder(last=True))


def test_the_form_of_keep_until_names_the_end_of_the_lease() -> None:
    """It is about one session and one reminder, which it answers."""
    lease = Lease(model="m", op="o", holder="U1", fence=3, hold=timedelta(hours=1), claimed=NOW, ends=NOW)
    form = keep_form(lease, NOW, Message(channel="C1", ts="1.0"))
    assert len(form["title"]["text"]) <= 24
    assert "when its lease ends" in str(form["blocks"])
    assert KeepUntil.model_validate_json(form["private_metadata"]).message.ts == "1.0"


def test_plain_words_have_no_markup() -> None:
    """A form's errors are shown as they are."""
    assert unmarked(f"`m` is kept until {clock(NOW)}") == f"m is kept until {NOW:%H:%M} UTC"


def labels(view: View) -> list[str]:
    """The buttons that a message has."""
    elements = [e for block in view.blocks if block["type"] == "actions" for e in block["elements"]]
    return [e["text"]["text"] for e in elements if e["type"] == "button"]


def waiting(text: str = "demo", **fields: object) -> Operation:
    held = {"model": text, "holder": "U2", "fence": 7, "since": NOW, "until": NOW + timedelta(hours=1), "reason": text}
    found = Waiting.model_validate(held | fields)
    op = an_operation(Status.WAITING, text)
    return op.model_copy(update={"waiting": found, "plan": Plan(commit="a" * 40, lease=a_lease(text))})


def a_lease(text: str = "m") -> Lease:
    return Lease(model=text, op="o", holder="U2", fence=7, hold=timedelta(hours=2), claimed=NOW, reason=text)


@given(text=st.text(min_size=1, max_size=3000), ahead=st.none() | st.integers(0, 99), offered_at=st.booleans())
def test_what_is_said_to_those_who_wait_keeps_slacks_limits(text: str, ahead: int | None, offered_at: bool) -> None:
    """The card in the queue and out of it, the offer, the question to the holder, the alert."""
    op = waiting(text, ahead=ahead, free_at=NOW, offer=NOW if offered_at else None)
    for view in (
        card(op, NOW),
        offered(op, approved=True),
        please_release(op, a_lease(text), "U3"),
        unmanaged(text, "name", ours=True, can_adopt=True),
    ):
        within_limits(view)


def test_a_taken_gpu_offers_to_queue_to_ask_and_to_replace() -> None:
    """In the queue one may be approved early; when the GPU is offered it can be taken; nothing offers what is not there."""
    assert labels(card(waiting(), NOW)) == ["Queue", "Ask the holder", "Replace", "Cancel"]
    assert labels(card(waiting(ahead=1), NOW)) == ["Approve", "Deny", "Ask the holder", "Replace", "Leave the queue"]
    offer = waiting(ahead=0, offer=NOW)  # the lease that was in its way is over
    assert labels(card(offer, NOW)) == ["Take it", "Approve", "Deny", "Leave the queue"]
    assert labels(card(waiting(fence=0), NOW)) == ["Queue", "Cancel"]


def test_an_override_is_seen_by_everybody() -> None:
    """By whom, and why."""
    vote = Vote(by="U9", at=NOW, approve=True, reason="everybody is at lunch", override=True)
    shown = str(card(an_operation(Status.RUNNING).model_copy(update={"votes": (vote,)}), NOW))
    assert "overridden in an emergency by <@U9>" in shown
    assert "everybody is at lunch" in shown


def test_only_what_stoker_may_scale_has_buttons() -> None:
    """Somebody's notebook in another namespace is told, and left alone."""
    assert labels(unmanaged("Deployment serving/a", "a", ours=True, can_adopt=True)) == ["Adopt", "Bring down"]
    assert labels(unmanaged("Deployment serving/b", "b", ours=True, can_adopt=False)) == ["Bring down"]
    assert labels(unmanaged("Pod research/c", "c", ours=False, can_adopt=False)) == []


def test_a_card_that_waits_names_the_gpu_and_promises_no_button_that_it_lacks() -> None:
    """GPU is an abbreviation; a place in the queue is left, not cancelled."""
    shown = str(card(waiting(ahead=1), NOW))
    assert "Waiting for the GPU" in shown
    assert "Cancel works" not in shown
    assert "Operation abc123" in shown


def test_the_buttons_about_a_session_carry_its_operation_and_nothing_else() -> None:
    """The state is on the server: an old button cannot act on a later session of the same model."""
    lease = a_lease("coder-chat")
    asked = [
        reminder(lease, "15 min", 0.2, down_in="45 min", down_at="04:00", last=False, keep="1 h"),
        blind(lease, NOW, NOW),
    ]
    assert set().union(*map(values_of, asked)) == {lease.op}
    assert values_of(please_release(waiting(), lease, "U2")) == {lease.op, "abc123"}


def values_of(view: View) -> set[str]:
    return {element["value"] for block in view.blocks for element in block.get("elements", [])}


def test_home_calls_the_gpu_free_only_if_that_is_known() -> None:
    """Nobody answers is not the same as nobody uses it."""
    assert "The GPU is free" in str(home(Overview(), "U1", NOW))
    assert "The GPU is free" not in str(home(Overview(known=False), "U1", NOW))


def test_no_error_calls_the_whole_channel() -> None:
    """Errors are our own words with what a system said in them; a log line may say anything."""
    op = an_operation(Status.RUNNING).model_copy(update={"failure": "vLLM said: <!channel> <!subteam^S1|x> bye."})
    shown = str(card(op, NOW))
    assert "<!channel>" not in shown
    assert "<!subteam" not in shown
    assert "&lt;!channel>" in shown
    assert clock(NOW) in str(card(an_operation().model_copy(update={"expires": NOW}), NOW))


def test_a_free_gpu_whose_node_still_bills_says_so() -> None:
    """Ten minutes of drain cost money although nothing runs, and so does a node that takes longer than usual."""
    earlier, later = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
    assert "nothing is billed" in free(None, NOW)
    assert "nothing is billed" not in str(home(Overview(drains=later), "U1", NOW))
    assert f"bills until about {clock(later)}" in free(later, NOW)
    assert "longer than usual, and bills until it is gone" in free(earlier, NOW)
