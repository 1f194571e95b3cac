"""The views that people see, for reviewers: one file per view in `snapshots/`.

`UPDATE_SNAPSHOTS=1 pytest tests/bot/test_view_snapshots.py` writes them again; people review the diff.
"""

import dataclasses
import os
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.analysis.report import Day
from bot.domain.leases import Lease, Waiting
from bot.domain.operations import (
    BringUpOperation,
    ChangeOperation,
    Check,
    Note,
    PhaseRecord,
    SmokeOutcome,
    Status,
    Vote,
)
from bot.domain.plans import BringUpPlan, ChangePlan, OwnChange, Pull
from bot.domain.requests import BringUp, SwapModel
from bot.domain.values import Message
from bot.text.mrkdwn import md
from bot.views import View, because_form, card, reminder, thread
from bot.views.endpoint_list import Search, listing
from bot.views.endpoints import EndpointState
from bot.views.home import Overview, home, up_form
from bot.views.links import Links
from bot.views.modals import ChangeForm, advanced_form, change_form, extend_form
from manifests.contract import ModelEndpoint
from sandbox.slack import blocks as kit
from tests.bot.view_examples import NOW

SNAPSHOTS = Path(__file__).parent / "snapshots"
PEOPLE = {"U1": "dev", "U2": "lead", "C1": "gpu-ops"}
HF_ID = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"

UP = BringUpOperation(
    id="d293b0f46a",
    request=BringUp(model="coder-chat", actor="U1", channel="C1", at=NOW, hold=timedelta(hours=2), reason="demo"),
    status=Status.AWAITING,
    updated=NOW,
    expires=NOW + timedelta(hours=1),
    deciders="An approver other than the requester decides.",
    message=Message(channel="C1", ts="1795748400.000100"),
    plan=BringUpPlan(
        commit="6f5dab78701c",
        applications=("coder-chat",),
        rows=(
            ("Serves", f"{HF_ID} as qwen2.5-coder-7b-instruct"),
            ("Commit", "6f5dab7870"),
            ("Lease", "2 h from when it is ready"),
            ("Estimated cost", "$1.98: 2 h and about 20 min of boot and drain, at $0.85/h"),
        ),
        estimate_usd=1.84,
    ),
)
APPROVED = Vote(by="U2", at=NOW + timedelta(minutes=2), approve=True, reason="go ahead")


def phase(name: str, begins: int, ends: int | None = None, detail: str = "") -> PhaseRecord:
    at = NOW + timedelta(minutes=3)
    end = None if ends is None else at + timedelta(seconds=ends)
    return PhaseRecord(name=name, began=at + timedelta(seconds=begins), ended=end, detail=detail)


BOOT = (phase("syncing", 0, 4), phase("starting", 4, 5), phase("waiting for a node", 5, 125))
PULLING = UP.model_copy(
    update={
        "status": Status.RUNNING,
        "votes": (APPROVED,),
        "phases": (*BOOT, phase("pulling the image", 125, detail="vllm-openai, 8.2 GB")),
    }
)
CHECKS = (
    Check(name="direct: /health", passed=True, evidence="200"),
    Check(name="gateway: coder-chat", passed=True, evidence="answered by alias in 0.31 s, cost $0.0000220"),
)
SUCCEEDED = PULLING.model_copy(
    update={
        "status": Status.SUCCEEDED,
        "updated": NOW + timedelta(minutes=12),
        "phases": (*BOOT, phase("loading", 125, 480), phase("smoke tests", 480, 484)),
        "checks": CHECKS,
        "outcome": md("`coder-chat` is up and answers; all smoke tests passed. <@U1> holds the GPU until 05:12 UTC."),
    }
)
FAILED = PULLING.model_copy(
    update={
        "status": Status.FAILED,
        "updated": NOW + timedelta(minutes=14),
        "phases": (
            *BOOT,
            phase("loading", 125, 300).model_copy(update={"failed": True, "detail": "CUDA out of memory"}),
        ),
        "checks": (CHECKS[0], Check(name="gateway: coder-chat", passed=False, evidence="the call costs $0")),
        "outcome": md("Failed: CUDA ran out of memory. `coder-chat` is down again and the GPU is free."),
        "notes": (Note(title="The last log lines", text="INFO loading weights\nERROR CUDA out of memory <unk>"),),
    }
)
PULL = Pull(number=7, url="https://example.com/7", branch="b", head="b1db1cab6b42", checks="success")
SWAP_PLAN = ChangePlan(
    commit="a" * 40,
    rows=(("Model", HF_ID), ("Context", "32768"), ("Files", "3")),
    warnings=("The licence (qwen-research) does not allow commercial use.",),
    pull=PULL,
    pushed=PULL.head,
    own=OwnChange(),
)
SWAP = ChangeOperation(
    id=UP.id,
    request=SwapModel(model="coder-chat", hf_id=HF_ID, actor="U1", channel="C1", at=NOW),
    status=Status.AWAITING,
    updated=NOW,
    expires=UP.expires,
    deciders=UP.deciders,
    message=UP.message,
    plan=SWAP_PLAN,
)
CHECKS_RUN = SWAP_PLAN.model_copy(
    update={"rows": (), "warnings": (), "pull": PULL.model_copy(update={"checks": "pending"})}
)
BLOCKED = SWAP.model_copy(
    update={
        "status": Status.RUNNING,
        "votes": (APPROVED,),
        "phases": (phase("merging", 0, 2), phase("Argo CD: the gateway", 2, 20), phase("Argo CD: the endpoint", 20)),
        "blocked": md(
            "The group `lab` is off in `clusters/ai-dev/groups.generated.yaml`. Run the generator of that file."
        ),
    }
)
LEASE = Lease(
    model="coder-chat", op="d293b0f46a", holder="U1", reason="demo", fence=3, hold=timedelta(hours=2), claimed=NOW,
    ready=NOW + timedelta(minutes=9), ends=NOW + timedelta(hours=2, minutes=9),
)  # fmt: skip
FORM = ChangeForm(
    verb="add",
    commit="a" * 40,
    values={"name": "coder-mini", "hf_id": HF_ID, "like": "coder-chat"},
    options=(("storage", "30Gi"),),
    names=("coder-chat", "coder-fim"),
    summary=(("Served name", "qwen2.5-coder-7b-instruct"), ("Context", "32768")),
    verdict="fits",
    sizing=(("Weights, host memory", "5.2 GiB", "16.0 GiB", True), ("Weights, volume", "5.6 GiB", "30.0 GiB", True)),
    files=(("serving/coder-mini/deployment.yaml", 143, 0), ("platform/litellm/values.yaml", 7, 0)),
)
CHAT = ModelEndpoint(
    name="coder-chat", kind="gpu-chat", hf_id=HF_ID, served_name="qwen2.5-coder-7b-instruct", alias="coder-chat", gpus=1,
    price_in="0.0000005", price_out="0.0000015",
)  # fmt: skip
EMBEDDINGS = ModelEndpoint(
    name="embeddings", kind="cpu-embeddings", hf_id="BAAI/bge-base-en-v1.5", served_name="embeddings", alias="embed"
)
ENDPOINTS = (
    EndpointState(
        CHAT, "up", "OutOfSync", "not synced with the main branch", LEASE, PULL, SmokeOutcome(at=NOW, commit="")
    ),
    EndpointState(
        EMBEDDINGS, "up", "Synced", "", None, None, SmokeOutcome(at=NOW, commit="", failed=("direct: /health",))
    ),
)
QUEUED = UP.model_copy(
    update={
        "request": UP.request.model_copy(update={"model": "coder-fim", "actor": "U2"}),
        "status": Status.WAITING,
        "waiting": Waiting(model="coder-chat", holder="U1", fence=3, ahead=0, free_at=LEASE.ends),
    }
)
HERE = Overview(
    leases=(LEASE,),
    active={"coder-chat": NOW + timedelta(minutes=30)},
    spent={"coder-chat": 0.7},
    open=(SWAP, QUEUED),
    endpoints=ENDPOINTS,
    week=tuple(
        Day(date(2026, 11, 17 + n), hours, hours * 0.9, hours / 4, hours * 0.85)
        for n, hours in enumerate((0, 2, 5, 8, 1, 0, 3))
    ),
    approvers=frozenset({"U2"}),
    links=Links(workspace="https://acme.slack.com/"),
    silent=("Hugging Face does not answer",),
)

VIEWS: Mapping[str, View | dict[str, Any]] = {
    "card-awaiting-approval": card(UP, NOW),
    "card-running": card(PULLING, NOW + timedelta(minutes=6)),
    "card-succeeded": card(SUCCEEDED, NOW + timedelta(minutes=12)),
    "card-failed": card(FAILED, NOW + timedelta(minutes=14)),
    "card-denied": card(
        UP.model_copy(
            update={
                "status": Status.DENIED,
                "votes": (APPROVED.model_copy(update={"approve": False, "reason": "not tonight"}),),
                "outcome": md("Nothing was started."),
            }
        ),
        NOW,
    ),
    "card-roll-out": card(SWAP, NOW),
    "card-checks-run": card(SWAP.model_copy(update={"plan": CHECKS_RUN}), NOW),
    "card-waiting": card(QUEUED, NOW),
    "card-roll-out-blocked": card(BLOCKED, NOW + timedelta(minutes=5)),
    "thread-smoke-and-logs": View(md(""), [block for _, view in thread(FAILED) for block in view.blocks]),
    "reminder": reminder(LEASE, "15 min", 0.21, down_at=md("04:00 UTC"), last=False, keep="1 h"),
    "form-because": because_form(UP, "deny", UP.shown),
    "form-add": change_form(FORM),
    "form-add-without-hugging-face": change_form(
        ChangeForm(
            verb="add",
            values=FORM.values,
            names=FORM.names,
            problem="It is unknown whether it fits: Hugging Face did not return the size of the weights.",
            figures=(("weights", "the size of the weights", "5.6GB"),),
        )
    ),
    "form-advanced": advanced_form("add", (("storage", "30Gi"), ("arg", "--enable-prefix-caching")), "{}"),
    "form-extend": extend_form(LEASE, "8 h"),
    "form-up": up_form(("coder-chat", "coder-fim"), "2 h", "8 h"),
    "home-of-an-approver": home(HERE, "U2", NOW),
    "list": listing(ENDPOINTS, "a" * 40),
    "list-without-redis": (
        listing([dataclasses.replace(ENDPOINTS[0], pull=None, smoke=None, remembered=False)], "a" * 40)
    ),
    "list-filtered": listing(ENDPOINTS, "a" * 40, Search(("coder", "up"))),
    "list-without-a-match": listing(ENDPOINTS, "a" * 40, Search(("llama",))),
    "home-when-all-is-quiet": home(Overview(endpoints=HERE.endpoints), "U1", NOW),
}


def rendered(view: View | dict[str, Any]) -> str:
    """Return one line per block, as a person reads it, with buttons in brackets."""
    blocks = view.blocks if isinstance(view, View) else view["blocks"]
    head = "" if isinstance(view, View) or "title" not in view else f"── {view['title']['text']} ──\n"
    foot = "" if isinstance(view, View) or "submit" not in view else f"\n[{view['submit']['text']}]"
    return head + kit.visible_text(blocks, lambda name: PEOPLE.get(name, name)) + foot + "\n"


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_equals_its_snapshot(name: str) -> None:
    """Every change of a view shows in the diff of its snapshot."""
    path, text = SNAPSHOTS / f"{name}.txt", rendered(VIEWS[name])
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_no_snapshot_is_left_over() -> None:
    """If a view is deleted, its snapshot must also be deleted."""
    assert {path.stem for path in SNAPSHOTS.glob("*.txt")} == set(VIEWS)
