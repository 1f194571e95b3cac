"""Reading and showing GuideLLM's output: the CSV files in this directory are from real runs against the sandbox's
engine.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.analysis.benchmark import (
    COLUMNS,
    Benchmark,
    Context,
    Unanswered,
    Unreadable,
    in_words,
    levels,
    markdown,
    picture,
    rows,
)

HERE = Path(__file__).parent
PRINTED = (HERE / "guidellm-0.8.1.csv").read_text(encoding="utf-8")
UNANSWERED = (HERE / "guidellm-0.8.1-unanswered.csv").read_text(encoding="utf-8")


def measured() -> Benchmark:
    context = Context(
        at=datetime(2026, 11, 20, 9, 30, tzinfo=UTC), model="Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", commit="c" * 40,
        gpu="1 × L4", machine="g2-standard-4", image="vllm/vllm-openai@sha256:1", arguments=("--max-model-len=16384", "--x=a|b"),
        tool="guidellm@sha256:2", chat=False, prompt_tokens=256, output_tokens=128, each=timedelta(seconds=10),
    )  # fmt: skip
    return Benchmark(endpoint="coder-chat", context=context, levels=levels(PRINTED))


def test_each_measurement_is_read() -> None:
    """The figures equal those on GuideLLM's own console for the run."""
    first, _, last = levels(PRINTED)
    assert (first.concurrency, first.answered, first.failed) == (1, 246, 0)
    assert (last.concurrency, last.answered) == (16, 1269)
    assert last.tokens_per_second == pytest.approx(1013.6)
    assert last.first_token_ms == pytest.approx(15.6, abs=0.05)
    assert last.first_token_ms_p95 == pytest.approx(47.8, abs=0.05)
    assert first.first_token_ms < last.first_token_ms < last.first_token_ms_p95


def test_a_run_without_an_answer_is_an_error() -> None:
    """GuideLLM ends successfully, but its output has no latencies."""
    with pytest.raises(Unanswered, match="The model answered no request at a concurrency of 1"):
        levels(UNANSWERED)


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("", "did not print GuideLLM's table"),
        ("Traceback (most recent call last):\n<!channel>\n", "its output begins with “Traceback"),
        (PRINTED.replace("Inter Token Latency", "Token Gap"), "no column Inter Token Latency · Successful ms · Median"),
        (PRINTED.replace("concurrent@4", "sweep@four"), "cannot be read"),
    ],
)
def test_any_other_output_is_refused(printed: str, message: str) -> None:
    """If the table has another version's form or is missing, the error names the missing part; no figure is invented."""
    with pytest.raises(Unreadable, match=message):
        levels(printed)


def test_the_table_has_a_line_for_each_measurement() -> None:
    table = rows(measured())
    assert {len(row) for row in table} == {len(COLUMNS)}
    assert [row[0] for row in table] == ["1", "4", "16"]
    assert table[-1][-1] == "0 of 1269"


def test_the_figures_of_the_picture_are_in_its_alternative_text() -> None:
    """The text fits into Slack's 1000 characters, even with a long name."""
    text = in_words(measured())
    assert "16 at a time: 1014 tokens per second" in text
    assert len(text) < 1000


def test_the_report_contains_the_conditions_of_the_measurement() -> None:
    """A pipe in an argument does not break the report's table."""
    text = markdown(measured(), asked_by="U0DEV", operation="0a1b2c")
    for fact in (
        "c" * 40,
        "g2-standard-4",
        "1 × L4",
        "vllm/vllm-openai@sha256:1",
        "`--max-model-len=16384`",
        "guidellm@sha256:2",
    ):
        assert fact in text
    assert "`--x=a\\|b`" in text
    assert "completion of 256 + 128 tokens, 10 s for each" in text


def test_the_picture_is_a_png() -> None:
    assert picture(measured()).startswith(b"\x89PNG")
