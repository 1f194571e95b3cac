"""The outcome of an operation is stored as a value, and becomes text when it is shown."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.domain.operations import OPERATION, BringUpOperation, Check, Operation, Status
from bot.domain.outcomes import (
    BackAtZero,
    Benchmarked,
    BroughtDown,
    Cancelled,
    ClosedOnGitHub,
    Denied,
    DownloadKept,
    Expired,
    Extended,
    Failed,
    JobDeleted,
    LeaseUnchanged,
    LeftQueue,
    LeftUp,
    NothingStarted,
    NotRestored,
    Outcome,
    PullClosed,
    Restored,
    RolledOut,
    SmokeTested,
    Started,
    StaysMerged,
    TryAgain,
    VolumeGrew,
    WeightsStaged,
    with_bill,
)
from bot.domain.requests import BringUp
from bot.domain.sessions import Bill, Node
from bot.text.mrkdwn import md, unmarked
from bot.views.outcomes import outcome_text

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
WRITTEN = json.loads(
    (Path(__file__).parents[1] / "operations" / "written_by_an_earlier_version.json").read_text(encoding="utf-8")
)
BILL = Bill(
    fence=1, op="abc", model="coder-chat", holder="U1", claimed=NOW, ready=NOW, down=NOW + timedelta(hours=1),
    node=Node(name="gpu-1", since=NOW), drain=timedelta(minutes=10), price_per_hour=0.85,
)  # fmt: skip
EXACT = BILL.model_copy(update={"gone": NOW + timedelta(hours=2)})


def operation(**changes: object) -> Operation:
    request = BringUp(model="coder-chat", actor="U1", channel="C1", at=NOW)
    return BringUpOperation(id="abc", request=request, status=Status.RUNNING, updated=NOW).model_copy(update=changes)


def text_of_earlier_version(kind: str, status: str) -> str:
    """Return the text of an end in the record of an earlier version."""
    records = (record["record"] for record in WRITTEN["records"])
    return str(
        next(r["outcome"] for r in records if (r["request"]["kind"], r["status"]) == (kind, status) and r["outcome"])
    )


@pytest.mark.parametrize(
    ("outcome", "kind", "status"),
    [
        (Started(holder="U0DEV", ends=datetime.fromtimestamp(1795947307, UTC)), "gpu up", "succeeded"),
        (SmokeTested(), "model smoke", "succeeded"),
        (Benchmarked(tokens_per_second=506.1, concurrency=2, first_token_ms=5.2), "model bench", "succeeded"),
        (LeftQueue(by="U0LEAD"), "gpu up", "cancelled"),
    ],
)
def test_an_end_is_worded_as_in_an_earlier_version(outcome: Outcome, kind: str, status: str) -> None:
    assert outcome.status == status
    assert outcome_text(operation(result=outcome)) == text_of_earlier_version(kind, status)


def test_an_extension_reports_the_change_and_nothing_else() -> None:
    """The session may be over when somebody reads the card."""
    text = outcome_text(operation(result=Extended(holder="U0DEV", ends=datetime.fromtimestamp(1795950907, UTC))))
    assert unmarked(text) == "The lease of <@U0DEV> for coder-chat was extended to 11:15 UTC."


WHY = md("Smoke test failed.")


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Failed(reason=WHY), "Smoke test failed."),
        (Failed(reason=WHY, undone=TryAgain()), "Smoke test failed. Try `/gpu down coder-chat` again."),
        (Failed(reason=WHY, undone=LeaseUnchanged()), "Failed: Smoke test failed. The lease ends as before."),
        (Failed(reason=WHY, undone=JobDeleted(existed=True)), "Smoke test failed. Its Job is deleted."),
        (
            Failed(reason=WHY, undone=StaysMerged(number=7, url="https://example.com/7")),
            "Smoke test failed. <https://example.com/7|Pull request #7> is merged; revert it to undo.",
        ),
        (
            Failed(reason=WHY, undone=BackAtZero(replaced=Restored(model="coder-fim", holder="U2"))),
            "Smoke test failed. `coder-chat` is down again.\n`coder-fim` is restored: <@U2> holds the GPU again.",
        ),
        (
            LeftUp(reason=WHY, holder="U1"),
            "Smoke test failed. `coder-chat` stays up because of `keep`; <@U1> holds the GPU. `/gpu down` ends it.",
        ),
        (BroughtDown(), "`coder-chat` is down and the GPU is free.\nNobody held a lease, so there is no receipt."),
        (Cancelled(by="U2", undone=NothingStarted()), "Cancelled by <@U2>. Nothing was started."),
        (Cancelled(by="U2", undone=PullClosed()), "Cancelled by <@U2>."),
        (
            Cancelled(by="stoker", undone=DownloadKept()),
            "Cancelled, because the endpoint has changed. Downloaded files stay on the volume.",
        ),
        (
            Denied(undone=PullClosed(number=7)),
            "Nothing was rolled out. Pull request #7 is closed and its branch deleted.",
        ),
        (Denied(undone=NothingStarted()), "Nothing was started."),
        (
            Expired(pull_left_open=True),
            "Nobody decided in time, so nothing was started. Its pull request is left open. Request it again.",
        ),
        (
            ClosedOnGitHub(number=7, by="octo_cat"),
            "Pull request #7 was closed on GitHub by octo_cat. Nothing was rolled out.",
        ),
        (
            RolledOut(serves="a/b", then="restarted", downtime=timedelta(minutes=2), drifts=(md("`x`: differs"),)),
            "`coder-chat` now serves `a/b` and answers. Downtime: 2 min, from the merge until it answered.\n⚠️ `x`: differs",
        ),
        (
            RolledOut(serves="a/b", then="at zero"),
            "`coder-chat` is rolled out with `a/b` and is down. `/gpu up coder-chat` brings it up.",
        ),
        (
            WeightsStaged(hf_id="a/b", bytes=2_100_000_000),
            "The weights of `a/b` (2.1 GB) are on the volume of `coder-chat`, and no GPU was billed for the download."
            " `/gpu up coder-chat` only has to load them.",
        ),
    ],
)
def test_the_wording_of_an_end(outcome: Outcome, text: str) -> None:
    assert outcome_text(operation(result=outcome)) == text


def test_a_volume_that_grew_is_reported_when_its_change_ends() -> None:
    closed = PullClosed(number=7, grew=VolumeGrew(claim="weights", before="30Gi", size="60Gi"))
    text = outcome_text(operation(result=Denied(undone=closed)))
    assert text.startswith(
        "Nothing was rolled out. Pull request #7 is closed and its branch deleted. ⚠️ The volume `weights`"
    )
    assert "from 30Gi to 60Gi" in text


def test_an_unreachable_gateway_is_reported() -> None:
    doubt = Check(name="gateway: chat", passed=True, warning=True, evidence="LiteLLM could not be reached.")
    text = outcome_text(operation(result=SmokeTested(), checks=(doubt,)))
    assert text == "`coder-chat` answers; ⚠️ LiteLLM could not be reached. `/model smoke coder-chat` tests it again."


@pytest.mark.parametrize(
    "outcome",
    [
        BroughtDown(bill=BILL),
        Failed(reason=WHY, undone=BackAtZero(bill=BILL)),
        Failed(reason=WHY, undone=BackAtZero(replaced=NotRestored(model="m", holder="U2", why=WHY, bill=BILL))),
    ],
)
def test_a_bill_becomes_exact_in_every_outcome(outcome: Outcome) -> None:
    """The rest of the outcome does not change, and another session's bill has no effect."""
    assert "(an estimate)" in outcome_text(operation(result=outcome))
    text = outcome_text(operation(result=with_bill(outcome, EXACT)))
    assert "cost $1.70." in text
    assert with_bill(outcome, EXACT.model_copy(update={"fence": 2})) == outcome


def test_an_end_is_stored_and_read_again() -> None:
    op = operation().ended(Failed(reason=WHY, undone=BackAtZero(bill=BILL)), NOW)
    again = OPERATION.validate_json(op.model_dump_json())
    assert again == op
    assert again.status is Status.FAILED
