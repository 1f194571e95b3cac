"""The comparison of a smoke-test run with the previous one."""

from datetime import UTC, datetime, timedelta

from bot.domain.operations import Check, SmokeRun
from bot.platform.smoke_tests import compare, is_slower

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def a_run(**changes: object) -> SmokeRun:
    fields: dict[str, object] = {
        "at": NOW, "model": "Qwen/A", "image": "vllm@sha256:1", "answer": "Hello!", "seconds": 1.2,
        "first_token_seconds": 0.2, "tokens_per_second": 40.0,
    }  # fmt: skip
    return SmokeRun.model_validate(fields | changes)


def differences(run: SmokeRun, last: SmokeRun) -> Check:
    check = compare(run, last)
    assert check
    return check


def test_the_same_result_is_not_a_warning() -> None:
    """The evidence contains both speeds."""
    check = differences(a_run(tokens_per_second=38.0), a_run())
    assert not check.warning
    assert "38 tokens/s" in check.evidence
    assert "40 tokens/s" in check.evidence


def test_less_than_half_the_speed_is_a_warning() -> None:
    """The speed is the tokens per second or the time to the first token; exactly half causes no warning."""
    last = a_run()
    assert not is_slower(a_run(tokens_per_second=20.0, seconds=2.4), last)
    assert differences(a_run(tokens_per_second=19.9, seconds=2.4), last).warning
    assert not is_slower(a_run(first_token_seconds=0.4), last)
    slow = differences(a_run(first_token_seconds=0.8), last)
    assert (slow.passed, slow.warning) == (True, True)
    assert "less than half as fast" in slow.evidence


def test_a_difference_of_milliseconds_is_not_a_warning() -> None:
    """A machine that is briefly busy is not a regression."""
    last = a_run(first_token_seconds=0.02, tokens_per_second=400, seconds=0.12)
    assert not is_slower(a_run(first_token_seconds=0.06, tokens_per_second=150, seconds=0.3), last)


def test_another_answer_to_the_same_question_is_a_warning() -> None:
    """At temperature 0, the weights, the engine or the machine must have changed."""
    check = differences(a_run(answer="Goodbye."), a_run())
    assert check.warning
    assert "“Goodbye.”, previously “Hello!”" in check.evidence
    assert "with another image" in differences(a_run(answer="Goodbye.", image="vllm@sha256:2"), a_run()).evidence


def test_after_a_swap_nothing_is_compared() -> None:
    """Another model answers differently and at another speed; that is the purpose of a swap."""
    assert compare(a_run(model="Qwen/B", answer="?", tokens_per_second=4), a_run(at=NOW - timedelta(days=3))) is None
