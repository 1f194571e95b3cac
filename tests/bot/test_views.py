"""The appearance of messages in Slack, within its limits."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.domain.kinds import Kind
from bot.domain.leases import Lease, Waiting
from bot.domain.operations import BringUpOperation, ChangeOperation, Check, PhaseRecord, Status, Vote
from bot.domain.plans import BringUpPlan, ChangePlan, OwnChange, Pull
from bot.domain.requests import BringUp, RequestFields, SwapModel
from bot.domain.values import Message
from bot.text.mrkdwn import md
from bot.views import (
    APPROVE,
    BECAUSE,
    CANCEL,
    DENY,
    ROLL_OUT,
    TAKE,
    KeepUntil,
    View,
    card,
    clock,
    escape,
    gpu_offer,
    keep_form,
    lines,
    metrics_unavailable,
    release_question,
    reminder,
    unmanaged_alert,
    unmarked,
)
from bot.views.gpu import free
from bot.views.home import Overview, home
from bot.views.modals import ChangeForm, change_form
from tests.bot import view_examples

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def within_limits(view: View) -> None:
    """Assert Slack's limits, which slack_sdk's models check when they are serialised."""
    assert 0 < len(view.blocks) <= 50
    for block in view.blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.to_dict()


def a_request(text: str) -> RequestFields:
    return RequestFields(actor="U1", channel="C1", at=NOW, reason=text)


def an_operation(status: Status = Status.AWAITING, text: str = "demo", rows: int = 3) -> BringUpOperation:
    plan = BringUpPlan(
        commit="a" * 40,
        rows=tuple((text or "x", text or "x") for _ in range(rows)),
        warnings=(text,),
        applications=(text,),
        estimate_usd=1.84,
    )
    return BringUpOperation(
        id="abc123",
        request=BringUp(model=text, **a_request(text)),
        status=status,
        updated=NOW,
        plan=plan,
        votes=(Vote(by="U2", at=NOW, approve=True, reason=text),),
        phases=tuple(PhaseRecord(name=text, began=NOW, detail=text) for _ in range(25)),
        checks=(Check(name=text, passed=False, evidence=text),) * 6,
        outcome=escape(text),
        expires=NOW + timedelta(hours=1),
    )


def a_swap(status: Status = Status.AWAITING, text: str = "demo", rows: int = 3, **pull: Any) -> ChangeOperation:
    """The change of an endpoint whose checks have passed, or whose pull request has these fields."""
    fields_of_pull = {"number": 7, "url": "https://example.com/7", "branch": "b", "head": "b" * 40, "checks": "success"}
    plan = ChangePlan(
        commit="a" * 40,
        rows=tuple((text or "x", text or "x") for _ in range(rows)),
        warnings=(text,),
        pull=Pull.model_validate(fields_of_pull | pull),
        pushed="b" * 40,
        own=OwnChange(),
    )
    return ChangeOperation(
        id="abc123",
        request=SwapModel(model=text, hf_id=text, **a_request(text)),
        status=status,
        updated=NOW,
        plan=plan,
        blocked=escape(text),
        expires=NOW + timedelta(hours=1),
    )


@given(text=st.text(min_size=1, max_size=4000), status=st.sampled_from(Status), rows=st.integers(0, 30))
def test_every_card_keeps_slacks_limits(text: str, status: Status, rows: int) -> None:
    """External text may be in every field, in every status."""
    within_limits(card(an_operation(status, text, rows), NOW))
    within_limits(card(a_swap(status, text, rows), NOW))


@given(text=st.text(min_size=1, max_size=12000))
def test_long_answers_are_cut_into_sections(text: str) -> None:
    """A list of hundreds of endpoints is still a message."""
    within_limits(lines(escape(text)))


def test_external_text_cannot_mention_the_channel() -> None:
    """`<!channel>` is shown as text everywhere."""
    visible = str(card(an_operation(text="<!channel> `*x*` \u202egpj"), NOW))
    assert "<!channel>" not in visible
    assert "\u202e" not in visible


def test_after_the_end_nothing_can_be_decided() -> None:
    """A card of an ended operation has no buttons except for a next step, and shows when the operation ended."""
    for status in Status:
        visible = str(card(an_operation(status), NOW).blocks)
        if status.final:
            assert not any(f"'{action}'" in visible for action in (APPROVE, DENY, ROLL_OUT, BECAUSE, CANCEL, TAKE))
            assert "Ended at" in visible


def test_the_roll_out_waits_for_the_checks() -> None:
    """While checks run, or if there is a conflict, there is no button to approve."""
    waits: list[dict[str, Any]] = [{"checks": "pending"}, {"checks": "failure"}, {"mergeable": False}]
    for changes in waits:
        assert "Approve & roll out" not in str(card(a_swap(**changes), NOW))
    assert "Approve & roll out" in str(card(a_swap(), NOW))


def test_a_required_review_is_shown_before_the_approval() -> None:
    """While checks run or fail, the card names them as the obstacle."""

    def visible(**changes: Any) -> str:
        return str(card(a_swap(**changes), NOW))

    assert "a review is required" in visible(blocked=True)
    assert "a review is required" not in visible(blocked=True, checks="pending")
    assert "a review is required" not in visible()


def a_reminder(*, keep: str = "1 h", last: bool = False) -> View:
    lease = Lease(model="m", op="o", holder="U1", fence=3, hold=timedelta(hours=1), claimed=NOW)
    return reminder(lease, "15 min", 0.2, down_at=md("12:00 UTC"), last=last, keep=keep)


def test_a_reminder_offers_keep_only_while_it_is_allowed() -> None:
    """The last reminder has one button."""
    assert "Keep 1 h" in str(a_reminder().blocks)
    assert "Keep" not in str(a_reminder(keep="").blocks)
    within_limits(a_reminder())


def test_the_last_reminder_announces_the_end() -> None:
    """The announcement has the time at which the model goes down, and how to prevent that."""
    visible = str(a_reminder(last=True).blocks)
    assert "It goes down at 12:00 UTC" in visible
    assert "$0.20" in visible
    within_limits(a_reminder(last=True))


def test_the_form_of_keep_until_names_the_end_of_the_lease() -> None:
    """The form belongs to one session, and answers one reminder."""
    lease = Lease(model="m", op="o", holder="U1", fence=3, hold=timedelta(hours=1), claimed=NOW, ends=NOW)
    form = keep_form(lease, NOW, Message(channel="C1", ts="1.0"))
    assert len(form["title"]["text"]) <= 24
    assert "when its lease ends" in str(form["blocks"])
    assert KeepUntil.model_validate_json(form["private_metadata"]).message.ts == "1.0"


def test_plain_words_have_no_markup() -> None:
    """A form's errors are shown unchanged."""
    assert unmarked(md("`m` is kept until {at}", at=clock(NOW))) == f"m is kept until {NOW:%H:%M} UTC"


def labels(view: View) -> list[str]:
    """The buttons of a message."""
    elements = [e for block in view.blocks if block["type"] == "actions" for e in block["elements"]]
    return [e["text"]["text"] for e in elements if e["type"] == "button"]


def waiting(text: str = "demo", **fields: object) -> BringUpOperation:
    defaults = {
        "model": text,
        "holder": "U2",
        "fence": 7,
        "since": NOW,
        "until": NOW + timedelta(hours=1),
        "reason": text,
    }
    state = Waiting.model_validate(defaults | fields)
    op = an_operation(Status.WAITING, text)
    plan = BringUpPlan(commit="a" * 40, applications=(text,), estimate_usd=1.84, lease=a_lease(text))
    return op.model_copy(update={"waiting": state, "plan": plan})


def a_lease(text: str = "m") -> Lease:
    return Lease(model=text, op="o", holder="U2", fence=7, hold=timedelta(hours=2), claimed=NOW, reason=text)


@given(text=st.text(min_size=1, max_size=3000), ahead=st.none() | st.integers(0, 99), offered_at=st.booleans())
def test_messages_to_waiting_people_keep_slacks_limits(text: str, ahead: int | None, offered_at: bool) -> None:
    """These are the card in the queue and after it, the offer, the question to the holder, and the alert."""
    op = waiting(text, ahead=ahead, free_at=NOW, offer=NOW if offered_at else None)
    for view in (
        card(op, NOW),
        gpu_offer(op, approved=True),
        release_question(op, a_lease(text), "U3"),
        unmanaged_alert(text, "name", can_scale=True, can_adopt=True),
    ):
        within_limits(view)


def test_a_taken_gpu_offers_to_queue_to_ask_and_to_replace() -> None:
    """A queued request can be approved early; an offered GPU can be taken; there is no button without effect."""
    assert labels(card(waiting(), NOW)) == ["Queue", "Ask the holder", "Replace", "Cancel"]
    assert labels(card(waiting(ahead=1), NOW)) == ["Approve", "Deny", "Ask the holder", "Replace", "Leave the queue"]
    offer = waiting(ahead=0, offer=NOW)  # the blocking lease has ended
    assert labels(card(offer, NOW)) == ["Take it", "Approve", "Deny", "Leave the queue"]
    assert labels(card(waiting(fence=0), NOW)) == ["Queue", "Cancel"]


def test_an_override_is_on_the_card() -> None:
    """The card shows the admin and the reason."""
    vote = Vote(by="U9", at=NOW, approve=True, reason="everybody is at lunch", override=True)
    visible = str(card(an_operation(Status.RUNNING).model_copy(update={"votes": (vote,)}), NOW))
    assert "overridden in an emergency by <@U9>" in visible
    assert "everybody is at lunch" in visible


def test_only_a_workload_that_stoker_may_scale_has_buttons() -> None:
    """A notebook in another namespace is reported, but Stoker offers no button for it."""
    assert labels(unmanaged_alert("Deployment serving/a", "a", can_scale=True, can_adopt=True)) == [
        "Adopt",
        "Bring down",
    ]
    assert labels(unmanaged_alert("Deployment serving/b", "b", can_scale=True, can_adopt=False)) == ["Bring down"]
    assert labels(unmanaged_alert("Pod research/c", "c", can_scale=False, can_adopt=False)) == []


def test_a_waiting_card_names_the_gpu_and_only_existing_buttons() -> None:
    """The card writes GPU in capitals, and does not mention *Cancel*, because people leave a queue."""
    visible = str(card(waiting(ahead=1), NOW))
    assert "Waiting for the GPU" in visible
    assert "Cancel works" not in visible
    assert "Operation abc123" in visible


def test_the_buttons_about_a_session_carry_its_operation_and_nothing_else() -> None:
    """The state is on the server: an old button cannot affect a later session of the same model."""
    lease = a_lease("coder-chat")
    views = [
        reminder(lease, "15 min", 0.2, down_at=md("04:00"), last=False, keep="1 h"),
        metrics_unavailable(lease, NOW, NOW),
    ]
    assert set().union(*map(values_of, views)) == {lease.op}
    assert values_of(release_question(waiting(), lease, "U2")) == {lease.op, "abc123"}


def values_of(view: View) -> set[str]:
    return {element["value"] for block in view.blocks for element in block.get("elements", [])}


def test_home_calls_the_gpu_free_only_if_that_is_known() -> None:
    """If no system answers, it is unknown whether somebody uses the GPU."""
    assert "The GPU is free" in str(home(Overview(), "U1", NOW))
    assert "The GPU is free" not in str(home(Overview(users_known=False), "U1", NOW))


def test_no_error_mentions_the_whole_channel() -> None:
    """Errors are Stoker's own text with a quote from a system; a log line may contain anything."""
    error = md("vLLM said: {log}", log="<!channel> <!subteam^S1|x> bye.")
    op = an_operation(Status.RUNNING).model_copy(update={"failure": error})
    visible = str(card(op, NOW))
    assert "<!channel>" not in visible
    assert "<!subteam" not in visible
    assert "&lt;!channel&gt;" in visible
    assert clock(NOW) in str(card(an_operation().model_copy(update={"expires": NOW}), NOW))


def test_a_free_gpu_whose_node_is_still_billed_is_described_as_such() -> None:
    """Ten minutes of drain cost money although nothing runs, and so does a node that drains longer than usual."""
    earlier, later = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
    assert "nothing is billed" in free(None, NOW)
    assert "nothing is billed" not in str(home(Overview(drains=later), "U1", NOW))
    assert f"is billed until about {clock(later)}" in free(later, NOW)
    assert "longer than usual, and is billed until it is removed" in free(earlier, NOW)


def test_a_button_names_its_target_for_screen_readers() -> None:
    """A screen reader reads "Approve: Bring up demo"; ten buttons with the label *Approve* in Home differ."""
    op = an_operation(text="demo")
    (row,) = [block for block in card(op, NOW).blocks if block["type"] == "actions"]
    labels = [element.get("accessibility_label") for element in row["elements"] if element["type"] == "button"]
    assert "Deny: Bring up demo" in labels
    assert "Cancel: Bring up demo" in labels


def test_a_change_shows_the_outage_and_the_model_first() -> None:
    """The outage and the model are on the card; its endpoint, its files and its Application are in a closed container."""
    rows = (
        ("Endpoint", "coder-chat (gpu-chat)"), ("Model", "Qwen/Qwen3-8B"), ("--trust-remote-code", "new"), ("Files", "3"),
        ("Application", "serving-coder-chat (manual sync)"), ("Downtime", "about 2 min"),
    )  # fmt: skip
    op = view_examples.an_operation(kind=Kind.MODEL_SWAP, text="coder-chat")
    assert op.plan
    blocks = card(op.model_copy(update={"plan": op.plan.model_copy(update={"rows": rows})}), NOW).blocks
    (more,) = [block for block in blocks if block["type"] == "container"]
    assert (more["is_collapsible"], more["default_collapsed"]) == (True, True)
    (visible,) = [block["fields"] for block in blocks if "fields" in block]
    labels = [field["text"].split("\n")[0] for field in visible]
    assert labels == ["*Downtime*", "*Model*", "*--trust-remote-code*"]
    assert "serving-coder-chat" in str(more)


def test_a_change_shows_the_old_and_the_new_values() -> None:
    """The differences are on the card; unchanged facts, even important ones, are in the container."""
    rows = (("Model", "org/new"), ("Context", "32768"), ("Served name", "new"), ("Sizing", "fits"), ("Files", "3"))
    before = (("Model", "org/old"), ("Context", "32768"), ("Served name", "old"))
    op = view_examples.an_operation(kind=Kind.MODEL_SWAP, text="coder-chat")
    assert isinstance(op.plan, ChangePlan)
    plan = op.plan.model_copy(update={"rows": rows, "before": before, "displaced": md("It is up.")})
    blocks = card(op.model_copy(update={"plan": plan}), NOW).blocks
    (visible,) = [block["fields"] for block in blocks if "fields" in block]
    assert [field["text"] for field in visible] == [
        "*Sizing*\nfits",
        "*Model*\norg/old → org/new",
        "*Served name*\nold → new",
    ]
    (more,) = [block for block in blocks if block["type"] == "container"]
    assert "32768" in str(more)
    assert str(blocks).index("It is up.") < str(blocks).index("org/old"), "the outage is not first"


def test_a_bring_up_shows_its_cost_first() -> None:
    """The commit and the application are irrelevant for the decision, so they are in a container that opens on a click."""
    labels = ("Serves", "Commit", "Application", "Deploys", "Lease", "Before", "Estimated cost")
    plan = BringUpPlan(
        commit="a" * 40, applications=("x",), estimate_usd=1, rows=tuple((label, "…") for label in labels)
    )
    blocks = card(an_operation().model_copy(update={"plan": plan}), NOW).blocks
    (visible,) = [[text["text"].split("\n")[0] for text in block["fields"]] for block in blocks if "fields" in block]
    assert visible == ["*Estimated cost*", "*Lease*", "*Before*", "*Serves*"]
    (closed,) = [block for block in blocks if block["type"] == "container"]
    assert closed["title"]["text"] == "Details: Commit, Application, Deploys"


def test_an_unchanged_value_has_no_arrow() -> None:
    """A single unchanged value gets no container."""
    op = view_examples.an_operation(kind=Kind.MODEL_SWAP, text="coder-chat")
    assert op.plan
    same = {
        "rows": (("Model", "org/new"), ("Context", "32768")),
        "before": (("Model", "org/old"), ("Context", "32768")),
    }
    blocks = card(op.model_copy(update={"plan": op.plan.model_copy(update=same)}), NOW).blocks
    (visible,) = [[field["text"] for field in block["fields"]] for block in blocks if "fields" in block]
    assert visible == ["*Model*\norg/old → org/new", "*Context*\n32768"]


def test_a_sizing_row_of_a_form_is_not_cut_before_its_limit() -> None:
    """The GPU's row names weights, cache and the boots that its figures come from."""
    value = (
        "18.2 GiB (weights 9.3 GiB, cache for 16384 tokens 3.0 GiB at 196608 bytes, overhead 1.4 GiB, observed at 12 boots of "
        "vLLM 0.32.0)"
    )
    form = ChangeForm(verb="add", summary=(("Model", "m"),), verdict="fits", sizing=(("GPU", value, "19.8 GiB", True),))
    assert f"GPU: {value} of 19.8 GiB" in str(change_form(form))
