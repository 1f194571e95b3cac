"""One type of operation per kind: mypy and the reader of records reject fields that a kind does not have."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bot.domain.kinds import Kind
from bot.domain.operations import OPERATION, OPERATIONS, ChangeOperation, NotPlanned, Operation, plan_of
from bot.domain.plans import WITHOUT_LEASE, ChangePlan
from bot.text.mrkdwn import Mrkdwn
from tests.bot.view_examples import UNPLANNED, an_operation

ROOT = Path(__file__).parents[2]
WRITTEN: dict[str, Any] = json.loads(
    (ROOT / "tests/operations/written_by_an_earlier_version.json").read_text(encoding="utf-8")
)
SNIPPET = """
from bot.domain.operations import *

def wrong(up: BringUpOperation, down: BringDownOperation, swap: ChangeOperation, longer: ExtendOperation) -> None:
    down.plan.rows  # 0: it has no plan
    longer.request.hf_id  # 1: it brings no model
    plan_of(longer).pull  # 2: it has no pull request
    plan_of(swap).lease  # 3: it concerns no lease
    swap.waiting  # 4: it does not wait for the GPU
    up.blocked  # 5: it waits for nobody
    down.checks  # 6: it has no smoke tests
    swap.plan.pull  # 7: it may have no plan yet

def right(up: BringUpOperation, swap: ChangeOperation, longer: ExtendOperation) -> tuple[object, ...]:
    plan = plan_of(longer)
    return plan.lease.holder, plan_of(swap).pull.url, up.request.hold, up.checks, plan_of(up).estimate_usd
"""


def test_mypy_rejects_a_field_that_the_kind_does_not_have(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(file)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    first = SNIPPET[: SNIPPET.index("down.plan")].count("\n") + 1
    rejected = [int(line.split(":")[1]) - first for line in output.splitlines() if ": error:" in line]
    assert sorted(set(rejected)) == list(range(8)), output


@pytest.mark.parametrize("kind", Kind)
def test_a_record_is_read_as_the_type_of_its_kind(kind: Kind) -> None:
    """The text and its markup are unchanged."""
    op = an_operation(kind=kind, text="<b> & *x*")
    again = OPERATION.validate_json(op.model_dump_json())
    assert type(again) is OPERATIONS[kind]
    assert again == op
    assert (again.plan is None) == (kind in UNPLANNED)


@pytest.mark.parametrize("earlier", WRITTEN["records"])
def test_an_earlier_version_reads_what_this_one_writes(earlier: dict[str, Any]) -> None:
    """A roll-back needs no migration: records have the same fields in the same form, without fields that have no value.

    The earlier version ignores unknown fields.
    """
    op = OPERATION.validate_json(json.dumps(earlier["record"]))
    assert type(op) is OPERATIONS[op.request.kind]
    assert (op.plan.mark if op.plan else "") == earlier["mark"]
    compare(json.loads(op.model_dump_json()), earlier["record"])


def compare(now: Any, before: Any) -> None:
    if isinstance(before, dict):
        for name, value in before.items():
            if name in now:
                compare(now[name], value)
            else:
                assert value in (None, "", [], False)
    elif isinstance(before, list):
        for new, old in zip(now, before, strict=True):
            compare(new, old)
    else:
        assert now == before


@pytest.mark.parametrize(
    ("holder", "holder_of_plan"),
    [("", None), ("-", WITHOUT_LEASE), ("U0DEV", "U0DEV")],
    ids=["down", "without a lease", "held"],
)
def test_the_holder_of_a_restarted_endpoint_is_stored_as_before(holder: str, holder_of_plan: object) -> None:
    """An earlier version stored a string for each case. The warning is markup, and is not escaped again."""
    record = json.loads(an_operation(kind=Kind.MODEL_SWAP).model_dump_json())
    record["plan"] |= {"holder": holder, "displaced": "<@U0DEV> & `x`"}
    op = OPERATION.validate_json(json.dumps(record))
    assert isinstance(op, ChangeOperation)
    plan = plan_of(op)
    assert plan.holder == holder_of_plan
    assert plan.displaced == "<@U0DEV> & `x`"
    assert isinstance(plan.displaced, Mrkdwn)
    stored = json.loads(op.model_dump_json())["plan"]
    assert (stored["holder"], stored["displaced"]) == (holder, plan.displaced)


def test_a_record_without_its_own_change_is_read() -> None:
    """The earliest versions did not store the bot's own change."""
    record = json.loads(an_operation(kind=Kind.MODEL_SWAP).model_dump_json())
    record["plan"]["own"] = None
    plan = OPERATION.validate_json(json.dumps(record)).plan
    assert isinstance(plan, ChangePlan)
    assert not plan.own.files


@pytest.mark.parametrize("request_", [{"kind": "gpu fly"}, {}, [], None])
def test_a_record_of_an_unknown_kind_is_refused(request_: object) -> None:
    with pytest.raises(ValidationError, match="an operation of an unknown kind"):
        OPERATION.validate_json(json.dumps({"id": "abc", "request": request_}))


def test_work_without_a_plan_is_refused() -> None:
    op: Operation = an_operation(kind=Kind.MODEL_SWAP).model_copy(update={"plan": None})
    assert isinstance(op, ChangeOperation)
    with pytest.raises(NotPlanned):
        plan_of(op)
    assert not op.lacks
    assert op.open_pull is None
