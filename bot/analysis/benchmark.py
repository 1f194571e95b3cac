"""Benchmark results: parses GuideLLM's output, and renders it as a table, a chart and a report. Pure functions.

The input is the CSV of GuideLLM 0.8. Its size does not depend on the number of requests, and it does not contain the
API key. The first three rows describe each column (quantity, subject or unit, statistic); each other row is one
measurement.
"""

import csv
import io
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from bot.errors import BotError
from bot.text.durations import show_duration
from bot.text.markdown import cell, code, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_P95 = 8
"""Index of the 95th percentile: GuideLLM lists the percentiles 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99 and 99.9."""
_HEADER_ROWS = 3
_INCHES, _DPI = (11, 4.2), 110

Column = tuple[str, str, str]


class Unreadable(BotError):
    """The benchmark succeeded, but its output is not in the expected format."""

    remedy = "Pin an image of GuideLLM 0.8 in `bench.image`: other versions print another table."


class Unanswered(BotError):
    """The model answered no request of the benchmark."""

    remedy = "Smoke-test the model (`/model smoke`) and read its log; the benchmark's own log is in the thread."


class Level(BaseModel, frozen=True, defer_build=True):
    """The results for one number of concurrent requests. Latencies are the median and the 95th percentile of the
    answered requests.
    """

    concurrency: int
    answered: int
    failed: int
    requests_per_second: float
    tokens_per_second: float
    """Generated tokens, over all requests."""
    first_token_ms: float
    first_token_ms_p95: float
    next_token_ms: float
    next_token_ms_p95: float
    seconds: float
    seconds_p95: float


class Context(BaseModel, frozen=True, defer_build=True):
    """The conditions of a measurement."""

    at: datetime
    model: str
    """The served model: an id on the Hub, or a path."""
    commit: str
    """The commit of the platform's repository."""
    gpu: str
    machine: str
    image: str
    """The engine's image."""
    arguments: tuple[str, ...]
    """The engine's arguments, without a key."""
    tool: str
    """The benchmark's image."""
    chat: bool
    prompt_tokens: int
    output_tokens: int
    each: timedelta


class Benchmark(BaseModel, frozen=True, defer_build=True):
    endpoint: str
    context: Context
    levels: tuple[Level, ...]

    @property
    def best(self) -> Level:
        """The level with the most tokens per second."""
        return max(self.levels, key=lambda level: level.tokens_per_second)


def levels(text: str) -> tuple[Level, ...]:
    """Parse the measurements. Raises Unreadable for an unexpected format, and Unanswered if no request was answered."""
    rows = list(csv.reader(io.StringIO(text)))
    if len(rows) <= _HEADER_ROWS or len({len(row) for row in rows}) != 1:
        raise Unreadable(f"The benchmark did not print GuideLLM's table; its output begins with “{text.strip()[:80]}”.")
    columns: list[Column] = [(a, b, c) for a, b, c in zip(*rows[:_HEADER_ROWS], strict=True)]
    return tuple(_level(dict(zip(columns, row, strict=True))) for row in rows[_HEADER_ROWS:])


def _level(row: Mapping[Column, str]) -> Level:
    def number(quantity: str, unit: str, statistic: str) -> float:
        return float(row[quantity, unit, statistic])

    def p95(quantity: str, unit: str) -> float:
        return float(json.loads(row[quantity, unit, "Percentiles"])[_P95])

    try:
        concurrency = int(row["Benchmark", "Strategy", ""].partition("@")[2])
        answered = int(row["Request Counts", "Successful", ""])
        if not answered:  # without answers there are no latencies
            raise Unanswered(f"The model answered no request at a concurrency of {concurrency}.")
        return Level(
            concurrency=concurrency,
            answered=answered,
            failed=int(row["Request Counts", "Errored", ""]),
            requests_per_second=number("Server Throughput", "Successful Requests/Sec", "Mean"),
            tokens_per_second=number("Token Throughput", "Successful Output Tokens/Sec", "Mean"),
            first_token_ms=number("Time to First Token", "Successful ms", "Median"),
            first_token_ms_p95=p95("Time to First Token", "Successful ms"),
            next_token_ms=number("Inter Token Latency", "Successful ms", "Median"),
            next_token_ms_p95=p95("Inter Token Latency", "Successful ms"),
            seconds=number("Request Latency", "Successful Sec", "Median"),
            seconds_p95=p95("Request Latency", "Successful Sec"),
        )
    except KeyError as error:
        raise Unreadable(f"The benchmark's table has no column {' · '.join(filter(None, error.args[0]))}.") from error
    except (ValueError, IndexError) as error:
        raise Unreadable(f"The benchmark's table cannot be read: {error}.") from error


COLUMNS = ("concurrent", "req/s", "tokens/s", "first token, ms", "next token, ms", "answer, s", "failed")


def _row(level: Level) -> tuple[str, ...]:
    return (
        str(level.concurrency),
        f"{level.requests_per_second:.2f}",
        f"{level.tokens_per_second:.0f}",
        f"{level.first_token_ms:.0f} / {level.first_token_ms_p95:.0f}",
        f"{level.next_token_ms:.1f} / {level.next_token_ms_p95:.1f}",
        f"{level.seconds:.2f} / {level.seconds_p95:.2f}",
        f"{level.failed} of {level.answered + level.failed}",
    )


LEGEND = "Latencies: median / 95th percentile."


def rows(measured: Benchmark) -> list[tuple[str, ...]]:
    """A row for each measurement, in the order of `COLUMNS`."""
    return [_row(level) for level in measured.levels]


def in_words(measured: Benchmark) -> str:
    """The figures of the picture as its alternative text."""
    results = [
        f"{level.concurrency} at a time: {level.tokens_per_second:.0f} tokens per second, first token after "
        f"{level.first_token_ms:.0f} ms, next token after {level.next_token_ms:.1f} ms"
        for level in measured.levels
    ]
    return f"Benchmark of {measured.endpoint}, medians by requests at a time. " + "; ".join(results) + "."


def shape(context: Context) -> str:
    """A description of the load."""
    kind = "chat" if context.chat else "completion"
    duration = show_duration(context.each)
    return f"{kind} of {context.prompt_tokens} + {context.output_tokens} tokens, {duration} for each number of requests at a time"


def markdown(measured: Benchmark, *, asked_by: str, operation: str) -> str:
    """The report for the platform's repository."""
    context = measured.context
    facts = (
        ("Model", code(context.model)),
        ("Measured", f"{context.at:%Y-%m-%d %H:%M} UTC, requested by {code(asked_by)}, operation {code(operation)}"),
        ("Commit", code(context.commit)),
        ("GPU", text(context.gpu)),
        ("Machine", text(context.machine)),
        ("Engine", code(context.image)),
        ("Arguments", " ".join(map(code, context.arguments))),
        ("Load", text(shape(context))),
        ("Measured with", f"GuideLLM, {code(context.tool)}"),
    )
    lines = [
        f"# {text(measured.endpoint)}, {context.at:%Y-%m-%d}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {label} | {cell(value) or '–'} |" for label, value in facts),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| {' | '.join('---:' for _ in COLUMNS)} |",
        *(f"| {' | '.join(_row(level))} |" for level in measured.levels),
        "",
        LEGEND,
    ]
    return "\n".join(lines) + "\n"


def picture(measured: Benchmark) -> bytes:
    """Throughput and latencies by concurrency, as a PNG. Drawing takes a second, so do not call this on the event loop."""
    # Import matplotlib here: the import takes a second and 40 MB, and most installations never need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    throughput, first, following = figure.subplots(1, 3)
    results = measured.levels
    places = [str(level.concurrency) for level in results]
    bars = throughput.bar(places, [level.tokens_per_second for level in results], color="tab:gray")
    throughput.bar_label(bars, [f"{level.tokens_per_second:.0f}" for level in results], fontsize="small")
    _label(throughput, "Generated tokens per second")
    for axes, title, median, p95 in (
        (first, "First token, ms", [r.first_token_ms for r in results], [r.first_token_ms_p95 for r in results]),
        (following, "Next token, ms", [r.next_token_ms for r in results], [r.next_token_ms_p95 for r in results]),
    ):
        axes.plot(places, median, marker="o", label="median")
        axes.plot(places, p95, marker="o", linestyle="--", label="95th percentile")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small")
        _label(axes, title)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _label(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel("requests at a time", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
