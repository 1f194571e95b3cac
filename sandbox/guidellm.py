"""The benchmark in a Job's pod: the arguments, requests and table of GuideLLM 0.8 that the bot uses.

It sends real requests to the model's server, so it measures that server.
"""

import asyncio
import csv
import io
import itertools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)
TIMEOUT = 30.0


class BadUsage(Exception):
    """The command line refuses the arguments; the message is GuideLLM's."""


@dataclass(frozen=True)
class Answer:
    seconds: float
    first: float
    gaps: tuple[float, ...]
    tokens: int


@dataclass
class Measurement:
    """The result for one concurrency."""

    streams: int
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    errors: int = 0


@dataclass(frozen=True)
class Arguments:
    """The arguments of `guidellm run`: each value as JSON, as the command line accepts it."""

    backend: Mapping[str, Any]
    tokenizer: str
    streams: tuple[int, ...]
    seconds: float
    prompt_tokens: int
    output_tokens: int
    path: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Arguments":
        """Parse the words after `guidellm`; raises BadUsage for arguments that GuideLLM refuses."""
        if not words or words[0] != "run":
            raise BadUsage(f"Error: No such command '{words[0] if words else ''}'.")
        options: dict[str, list[dict[str, Any]]] = {}
        streams: tuple[int, ...] = ()
        remaining = iter(words[1:])
        for word in remaining:
            if word == "--override":
                if next(remaining, "") != "profile.streams":
                    raise BadUsage("Error: Invalid value for '--override'.")
                streams = tuple(int(count) for count in next(remaining, "").split(","))
            elif word in ("--backend", "--tokenizer", "--profile", "--constraint", "--data", "--metrics", "--output"):
                options.setdefault(word, []).append(json.loads(next(remaining, "null")))
            elif word != "--disable-console-interactive":
                raise BadUsage(f"Error: No such option: {word}")
        try:
            data, output = options["--data"][0], options["--output"][0]
            return cls(
                backend=options["--backend"][0],
                tokenizer=options["--tokenizer"][0]["model"],
                streams=streams,
                seconds=next(float(c["seconds"]) for c in options["--constraint"] if c["kind"] == "max_duration"),
                prompt_tokens=int(data["prompt_tokens"]),
                output_tokens=int(data["output_tokens"]),
                path=output["path"],
            )
        except (KeyError, StopIteration, TypeError) as e:
            raise BadUsage(f"Error: Missing option: {e}") from e


async def run(arguments: Arguments, key: str) -> str:
    """Run the benchmark and return its table as CSV."""
    measurements = []
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, headers=headers) as http:
        for streams in arguments.streams:
            measured, began = Measurement(streams), time.monotonic()
            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(_stream(http, arguments, measured, began + arguments.seconds))
            measured.seconds = time.monotonic() - began
            measurements.append(measured)
    return _table(measurements)


async def _stream(http: httpx.AsyncClient, arguments: Arguments, measured: Measurement, ends: float) -> None:
    """Send requests one after the other until the time is over; send at least one."""
    while True:
        try:
            measured.answers.append(await _request(http, arguments))
        except httpx.HTTPError:
            measured.errors += 1
        if time.monotonic() >= ends or measured.errors >= 20:
            return


async def _request(http: httpx.AsyncClient, arguments: Arguments) -> Answer:
    prompt, route = "word " * arguments.prompt_tokens, arguments.backend["request_format"]
    content = {"messages": [{"role": "user", "content": prompt}]} if "chat" in route else {"prompt": prompt}
    body = content | {"model": arguments.backend["model"], "max_tokens": arguments.output_tokens, "stream": True}
    began, token_times = time.monotonic(), list[float]()
    async with http.stream("POST", arguments.backend["target"] + route, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                token_times.append(time.monotonic())
    if not token_times:
        raise httpx.RemoteProtocolError("nothing was generated")
    gaps = tuple(after - before for before, after in itertools.pairwise(token_times))
    return Answer(token_times[-1] - began, token_times[0] - began, gaps, len(token_times))


def _table(measurements: Sequence[Measurement]) -> str:
    rows = [_row(measured) for measured in measurements]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    for level in range(3):
        table.writerow(column[level] for column in columns)
    for row in rows:
        table.writerow(row.get(column, "") for column in columns)
    return buffer.getvalue()


def _row(measured: Measurement) -> dict[tuple[str, str, str], str]:
    answers = measured.answers
    row = {
        ("Benchmark", "Strategy", ""): f"concurrent@{measured.streams}",
        ("Timings", "Duration", "Sec"): str(measured.seconds),
        ("Request Counts", "Successful", ""): str(len(answers)),
        ("Request Counts", "Incomplete", ""): "0",
        ("Request Counts", "Errored", ""): str(measured.errors),
        ("Request Counts", "Total", ""): str(len(answers) + measured.errors),
        ("Server Throughput", "Successful Requests/Sec", "Mean"): str(len(answers) / measured.seconds),
    }
    if not answers:  # GuideLLM also omits these columns in this case
        return row
    tokens = sum(answer.tokens for answer in answers)
    row["Token Throughput", "Successful Output Tokens/Sec", "Mean"] = str(tokens / measured.seconds)
    for metric, unit, values in (
        ("Request Latency", "Successful Sec", [answer.seconds for answer in answers]),
        ("Time to First Token", "Successful ms", [1000 * answer.first for answer in answers]),
        ("Inter Token Latency", "Successful ms", [1000 * gap for answer in answers for gap in answer.gaps] or [0.0]),
    ):
        row[metric, unit, "Mean"] = str(statistics.fmean(values))
        row[metric, unit, "Median"] = str(statistics.median(values))
        row[metric, unit, "Percentiles"] = json.dumps(_percentiles(values))
    return row


def _percentiles(values: Sequence[float]) -> list[float]:
    ranked = sorted(values)
    return [ranked[min(len(ranked) - 1, int(len(ranked) * share / 100))] for share in PERCENTILES]
