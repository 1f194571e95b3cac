"""The benchmark in a Job's pod: GuideLLM 0.8, as far as its arguments, requests and table are used.

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
    """Arguments that the command line refuses, with its message."""


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
        """Raises BadUsage for arguments that GuideLLM refuses."""
        if not words or words[0] != "run":
            raise BadUsage(f"Error: No such command '{words[0] if words else ''}'.")
        given: dict[str, list[dict[str, Any]]] = {}
        streams: tuple[int, ...] = ()
        rest = iter(words[1:])
        for word in rest:
            if word == "--override":
                if next(rest, "") != "profile.streams":
                    raise BadUsage("Error: Invalid value for '--override'.")
                streams = tuple(int(each) for each in next(rest, "").split(","))
            elif word in ("--backend", "--tokenizer", "--profile", "--constraint", "--data", "--metrics", "--output"):
                given.setdefault(word, []).append(json.loads(next(rest, "null")))
            elif word != "--disable-console-interactive":
                raise BadUsage(f"Error: No such option: {word}")
        try:
            data, output = given["--data"][0], given["--output"][0]
            return cls(
                backend=given["--backend"][0],
                tokenizer=given["--tokenizer"][0]["model"],
                streams=streams,
                seconds=next(float(c["seconds"]) for c in given["--constraint"] if c["kind"] == "max_duration"),
                prompt_tokens=int(data["prompt_tokens"]),
                output_tokens=int(data["output_tokens"]),
                path=output["path"],
            )
        except (KeyError, StopIteration, TypeError) as e:
            raise BadUsage(f"Error: Missing option: {e}") from e


async def run(asked: Arguments, key: str) -> str:
    """Run the benchmark and return the table."""
    found = []
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, headers=headers) as http:
        for streams in asked.streams:
            measured, began = Measurement(streams), time.monotonic()
            async with asyncio.TaskGroup() as group:
                for _ in range(streams):
                    group.create_task(_stream(http, asked, measured, began + asked.seconds))
            measured.seconds = time.monotonic() - began
            found.append(measured)
    return _table(found)


async def _stream(http: httpx.AsyncClient, asked: Arguments, measured: Measurement, ends: float) -> None:
    """Send requests one after the other until the time is over: at least one, even on a slow machine."""
    while True:
        try:
            measured.answers.append(await _request(http, asked))
        except httpx.HTTPError:
            measured.errors += 1
        if time.monotonic() >= ends or measured.errors >= 20:
            return


async def _request(http: httpx.AsyncClient, asked: Arguments) -> Answer:
    prompt, route = "word " * asked.prompt_tokens, asked.backend["request_format"]
    said = {"messages": [{"role": "user", "content": prompt}]} if "chat" in route else {"prompt": prompt}
    body = said | {"model": asked.backend["model"], "max_tokens": asked.output_tokens, "stream": True}
    began, heard = time.monotonic(), list[float]()
    async with http.stream("POST", asked.backend["target"] + route, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                heard.append(time.monotonic())
    if not heard:
        raise httpx.RemoteProtocolError("nothing was generated")
    gaps = tuple(after - before for before, after in itertools.pairwise(heard))
    return Answer(heard[-1] - began, heard[0] - began, gaps, len(heard))


def _table(found: Sequence[Measurement]) -> str:
    rows = [_row(measured) for measured in found]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    for level in range(3):
        table.writerow(column[level] for column in columns)
    for row in rows:
        table.writerow(row.get(column, "") for column in columns)
    return written.getvalue()


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
    if not answers:  # the real one omits these columns in this case, too
        return row
    tokens = sum(answer.tokens for answer in answers)
    row["Token Throughput", "Successful Output Tokens/Sec", "Mean"] = str(tokens / measured.seconds)
    for what, unit, values in (
        ("Request Latency", "Successful Sec", [answer.seconds for answer in answers]),
        ("Time to First Token", "Successful ms", [1000 * answer.first for answer in answers]),
        ("Inter Token Latency", "Successful ms", [1000 * gap for answer in answers for gap in answer.gaps] or [0.0]),
    ):
        row[what, unit, "Mean"] = str(statistics.fmean(values))
        row[what, unit, "Median"] = str(statistics.median(values))
        row[what, unit, "Percentiles"] = json.dumps(_percentiles(values))
    return row


def _percentiles(values: Sequence[float]) -> list[float]:
    ranked = sorted(values)
    return [ranked[min(len(ranked) - 1, int(len(ranked) * share / 100))] for share in PERCENTILES]
