"""Examples of the contents of every view, and Slack's validation of them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from slack_sdk.models.blocks import Block

from bot.analysis.report import Day
from bot.domain.kinds import Kind
from bot.domain.leases import Lease, Waiting
from bot.domain.operations import (
    OPERATIONS,
    BringUpOperation,
    Check,
    Note,
    Operation,
    PhaseRecord,
    SmokeOutcome,
    Status,
    Vote,
)
from bot.domain.plans import OwnChange, Pull
from bot.domain.requests import AnyRequest, Request
from bot.domain.values import Message
from bot.text.mrkdwn import md
from bot.views import (
    View,
    because_form,
    card,
    escape,
    gpu_offer,
    keep_form,
    lines,
    metrics_unavailable,
    reminder,
    thread,
    unmanaged_alert,
)
from bot.views.endpoint_list import Search, listing
from bot.views.endpoints import EndpointState, details, disagreements
from bot.views.home import Overview, home, up_form
from bot.views.links import Links
from bot.views.modals import (
    ChangeForm,
    advanced_form,
    change_form,
    extend_form,
    loading,
    model_options,
    unfillable_form,
)
from bot.views.older import newer_in, older
from bot.views.rollout import Tenant, keys_form, keys_offer
from bot.views.setup import SetupNeeded, setup_form, setup_needed, to_copy
from manifests.contract import ModelEndpoint
from manifests.rules import RULES, Finding
from sandbox.slack import blocks as kit

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
UNPLANNED = (Kind.GPU_DOWN, Kind.GPU_RESTART, Kind.MODEL_SMOKE)
"""The kinds that need no approval, and whose card shows no plan."""
REQUEST = TypeAdapter[AnyRequest](Request)


def a_request(kind: Kind, text: str) -> AnyRequest:
    """Return a request of this kind; its type ignores the fields that it does not have."""
    fields = {"model": text, "actor": "U1", "channel": "C1", "at": NOW, "hold": timedelta(hours=2), "reason": text}
    return REQUEST.validate_python(fields | {"kind": kind, "hf_id": text, "reverts": "abc123"})


def a_setup(text: str, count: int) -> SetupNeeded:
    report = (
        "Endpoints: 1",
        f"  {text}: {text}",
        f"    started and stopped {text}",
        f"Gateway: {text}",
        *[f"  {text}"] * count,
    )
    return SetupNeeded(report, True, frozenset({"U1"}), text if count > 3 else "")


def an_operation(
    status: Status = Status.AWAITING, kind: Kind = Kind.GPU_UP, text: str = "demo", count: int = 3
) -> Operation:
    """An operation with this text in every field that a person or an API can fill, `count` times."""
    pull = Pull(
        number=7, url="https://example.com/7", branch="b", head="b" * 40, checks="failure", failing=(text,) * count,
        merged_by=text,
    )  # fmt: skip
    plan = {
        "commit": "a" * 40,
        "rows": ((text, text),) * count,
        "warnings": (text,) * count,
        "problems": (text,) * count,
        "applications": (text,),
        "estimate_usd": 1.84,
        "pull": pull,
        "pushed": pull.head,
        "own": OwnChange(),
        "displaced": escape(text),
        "lease": a_lease(text),
    }
    fields = {
        "id": "abc123",
        "request": a_request(kind, text),
        "status": status,
        "updated": NOW + timedelta(minutes=12),
        "plan": None if kind in UNPLANNED else plan,
        "votes": tuple(Vote(by="U2", at=NOW, approve=n % 2 == 0, reason=text) for n in range(count)),
        "phases": tuple(PhaseRecord(name=text, began=NOW, ended=NOW if n else None, detail=text) for n in range(count)),
        "checks": tuple(Check(name=text, passed=n % 2 == 0, evidence=text) for n in range(count)),
        "notes": (Note(title=text, text=text),) * count,
        "outcome": escape(text),
        "failure": escape(text) if status is Status.RUNNING else "",
        "expires": NOW + timedelta(hours=1),
        "waiting": Waiting(model=text, holder="U3", fence=3, reason=text, ahead=count),
        "blocked": escape(text),
        "message": Message(channel="C1", ts="1.2"),
    }
    return OPERATIONS[kind].model_validate(fields)


def a_lease(text: str) -> Lease:
    hour = timedelta(hours=1)
    return Lease(
        model=text, op="o", holder="U1", reason=text, fence=3, hold=hour, claimed=NOW, ready=NOW, ends=NOW + hour
    )


def a_change(text: str, count: int) -> ChangeForm:
    return ChangeForm(
        verb="swap" if count % 2 else "add",
        commit="a" * 40,
        values=dict.fromkeys(("name", "hf_id", "like", "context", "served", "reason"), text),
        options=(("arg", text[:900]),),
        names=(text,) * count,
        summary=((text, text),) * count,
        verdict=text,
        sizing=((text, text, text, False),) * count,
        files=((text, 1, 1),) * count,
        warnings=(text,) * count,
        figures=((text[:50] or "x", text, text),),
    )


def an_endpoint(text: str) -> EndpointState:
    served = ModelEndpoint(
        name=text, kind="gpu-chat", hf_id=text, served_name=text, alias=text, gpus=1, price_in=text, price_out=text,
        quantization=text, pvc_name=text, pvc_size=text, group=text,
    )  # fmt: skip
    smoke = SmokeOutcome(at=NOW, commit="a" * 40, failed=(text,))
    pull = Pull(number=7, url="https://example.com/7", branch="b", head="b" * 40)
    return EndpointState(served, "up", text, text, a_lease(text), pull, smoke)


def a_finding(text: str) -> Finding:
    return Finding(rule=next(iter(RULES)), path=text, line=1, message=text, fix=text)


def an_overview(text: str, count: int) -> Overview:
    return Overview(
        leases=(a_lease(text),),
        active={text: NOW},
        spent={text: 1.5},
        strangers=(text,) * count,
        open=tuple(an_operation(status, text=text) for status in Status for _ in range(count // 10 + 1)),
        endpoints=(an_endpoint(text),) * count,
        links=Links(workspace="https://slack.com/"),
        week=tuple(Day(date(2026, 11, 17 + n), 5.5, 5.0, 1.5, 4.675) for n in range(7)),
        approvers=frozenset({"U2"}),
        silent=(text,) * count,
    )


def messages(text: str, count: int, cards: Iterable[tuple[Status, Kind]]) -> list[View]:
    """Every message with this text, and cards in these statuses and of these kinds."""
    lease, op = a_lease(text), an_operation(text=text, count=count)
    assert isinstance(op, BringUpOperation)
    tenants = [Tenant(hash="h" * 64, name=text, owner=text)] * count
    views = [card(an_operation(status, kind, text, count), NOW) for status, kind in cards]
    views += [view for _, view in thread(op)]
    views += [
        reminder(lease, "15 min", 0.2, down_at=md("04:00"), last=False, keep="1 h"),
        metrics_unavailable(lease, NOW, NOW),
        gpu_offer(op, approved=False),
        keys_offer("abc123", text, tenants),
        unmanaged_alert(text, text, can_scale=True, can_adopt=True),
        lines(md("\n").join([escape(text)] * count)),
        listing((an_endpoint(text),) * count, "a" * 40),
        listing((an_endpoint(text),) * count, "a" * 40, Search((text[:60].lower(),), 1)),
        listing((an_endpoint(text),) * count, "a" * 40, Search(("missing",))),
        lines(details(an_endpoint(text), "a" * 40, ())),
        setup_needed(a_setup(text, count), "U1"),
        setup_needed(a_setup(text, count), "U2"),
        to_copy(text, [text] * count),
        lines(disagreements([(a_finding(text), "https://example.com/7")] * count, text, "a" * 40)),
    ]
    return views


def forms(text: str, count: int) -> list[dict[str, Any]]:
    """Every form and Home with this text."""
    op = an_operation(text=text, count=count)
    return [
        because_form(op, "deny", op.shown),
        keys_form("abc123", text, [Tenant(hash=f"{n:064}", name=text, owner=text) for n in range(count)]),
        keep_form(a_lease(text[:500].encode(errors="replace").decode()), NOW, Message(channel="C1", ts="1.2")),
        extend_form(a_lease(text), "8 h"),
        loading("Add a model"),
        unfillable_form("Add a model", escape(text)),
        change_form(a_change(text, count)),
        change_form(ChangeForm(verb="add", problem=text)),
        advanced_form("add", (("arg", text), ("storage", text)), "{}"),
        up_form((text,) * count or ("x",), "2 h", "8 h"),
        home(an_overview(text, count), "U2", NOW),
        home(Overview(setup=a_setup(text, count)), "U1", NOW),
        home(Overview(setup=a_setup(text, count)), "U2", NOW),
        setup_form(a_setup(text, count).report, [("gpu.name", "Which GPU", "L4", text[:200])]),
        home(an_overview(text, count), "U1", NOW),
        home(an_overview(text, count), "U1", NOW, Search(("up",), 1)),
    ]


def complaints(view: View) -> list[str]:
    """Return Slack's objections to a message, according to slack_sdk's models and the stand-in's rules from the reference."""
    objections = kit.complaints(view.blocks) + _by_the_models(view.blocks) + _unnamed(view.blocks)
    objections += kit.complaints(older(view.blocks)) + [f"older: {kind}" for kind in newer_in(older(view.blocks))]
    if kit.characters(view.blocks) > kit.MESSAGE_CHARACTERS:
        objections.append("msg_blocks_too_long")
    return objections if view.text else [*objections, "no_text"]


def form_complaints(view: dict[str, Any]) -> list[str]:
    return kit.view_complaints(view) + _by_the_models(view["blocks"]) + _unnamed(view["blocks"])


def _unnamed(blocks: Sequence[dict[str, Any]]) -> list[str]:
    """Return the buttons whose label for screen readers does not name their target."""
    return [
        f"the label of the button {control.label} does not name its target"
        for control in kit.controls(blocks)
        if control.element["type"] == "button"
        and not control.element.get("accessibility_label", "").startswith(f"{control.label}: ")
    ]


def _by_the_models(blocks: Sequence[dict[str, Any]]) -> list[str]:
    """Return the blocks that slack_sdk cannot parse; its models raise an error if a block exceeds Slack's limits."""
    objections = []
    for block in blocks:
        if block["type"] in ("data_table", "data_visualization"):
            continue  # slack_sdk has no model of these blocks yet
        parsed = Block.parse(block)
        if parsed is None:
            objections.append(f"slack_sdk cannot parse {json.dumps(block)[:200]}")
            continue
        parsed.to_dict()
    return objections


def suggestions(text: str) -> list[dict[str, Any]]:
    return model_options((text,), text)
