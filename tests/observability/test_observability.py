"""The observability of one bring-up: metrics, log lines, spans and the audit log of a running bot."""

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.main import STORY_LIMITS
from sandbox.world import Sandbox, merged, opened
from tests.forked import start_stoker
from tests.helm.chart import CHART

IDLE_SETTINGS = {"idle": {"remind_after": "30m", "down_after": "60m"}, "gpu": {"prices": {"g2-standard-4": 3600.0}}}
"""Times that do not expire during the tests, and a machine that costs one dollar per second."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


@dataclass
class Collector:
    """An OpenTelemetry collector: the received spans, by name."""

    spans: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {a.key: a.value.string_value for a in span.attributes}
                    self.spans.append((span.name, attributes))
        return web.Response(body=b"", content_type="application/x-protobuf")


@dataclass
class Seen:
    world: Sandbox
    collector: Collector


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory, forked: None) -> AsyncIterator[Seen]:
    """A model that was brought up after an approval, by a bot that reports to a collector, with a refused click before."""
    del forked
    directory = tmp_path_factory.mktemp("observed")
    collector = Collector()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/traces", collector.take)
    async with (
        TestServer(app, host="127.0.0.1") as server,
        opened(
            platform=None,
            speed=300,
            port=0,
            checks_pass_after=None,
            settings=merged(STORY_LIMITS, IDLE_SETTINGS),
            directory=directory,
            elsewhere={"OTEL_EXPORTER_OTLP_ENDPOINT": str(server.make_url("")), "STOKER_LOG": "json"},
        ) as world,
    ):
        since = world.now()
        await world.command("dev", "/gpu up coder-chat for 1h because a look at the metrics")
        await until(world, "lead", since, "Approve")
        await world.click("dev", "Approve")
        await until(world, "dev", since, "Only approvers")
        await world.click("lead", "Approve")
        await until(world, "lead", since, "succeeded", "is up")
        yield Seen(world, collector)


async def until(world: Sandbox, user: str, since: float, *texts: str) -> None:
    """Wait until one of the texts is on the user's screen."""
    try:
        async with asyncio.timeout(200):
            while not any(s.shows(text) for s in world.visible(user, since) for text in texts):
                await asyncio.sleep(0.1)
    except TimeoutError:
        shown = "\n---\n".join(s.text for s in world.visible(user, since))
        raise AssertionError(f"{texts} not shown:\n{shown}") from None


async def scraped(seen: Seen) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        text = (await http.get(f"{seen.world.bot.url}/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_metrics_describe_the_bring_up(seen: Seen) -> None:
    """Its outcome, its decision, its phases, its smoke tests, who has the GPU, and what it costs."""
    found = await scraped(seen)
    assert found["stoker_operations_total", (("kind", "gpu up"), ("status", "succeeded"))] == 1
    assert found["stoker_approval_seconds_count", (("decision", "approved"),)] == 1
    assert found["stoker_lease_held", (("model", "coder-chat"),)] == 1
    assert found["stoker_queue_length", ()] == 0
    assert found["stoker_dependency_up", (("system", "redis"),)] == 1
    assert found["stoker_reconciled_timestamp_seconds", ()] > time.time() - 300
    assert any(name == "stoker_boot_phase_seconds_count" and value for (name, _), value in found.items())
    passed = [
        v
        for (name, labels), v in found.items()
        if name == "stoker_smoke_checks_total" and ("result", "passed") in labels
    ]
    assert sum(passed) >= 4


async def test_a_session_costs_what_its_machine_costs(seen: Seen) -> None:
    """The price of the machine is used: with the default price the cost would be less than a cent so far."""
    cost: float = 0
    async with asyncio.timeout(200):
        while cost < 1:  # until the watch has seen which machine it is
            cost = (await scraped(seen))["stoker_session_cost_usd", (("model", "coder-chat"),)]
            await asyncio.sleep(0.1)


async def test_the_charts_alerts_and_dashboard_ask_for_metrics_that_exist(seen: Seen) -> None:
    """An alert on a renamed metric would never fire; `up` is a metric of Prometheus itself."""
    text = (CHART / "templates/monitoring.yaml").read_text() + (CHART / "files/dashboard.json").read_text()
    asked = set(re.findall(r"\bstoker_[a-z_]+", text))
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        told = (await http.get(f"{seen.world.bot.url}/metrics")).text
    described = set(re.findall(r"^# HELP (\w+)", told, re.MULTILINE))
    known = described | {f"{name}_bucket" for name in described}
    assert asked
    assert asked <= known, asked - known


async def test_every_log_line_is_json_about_something(seen: Seen) -> None:
    """Each line has op, actor and model; and no token of the installation is in the log."""
    text = await asyncio.to_thread(seen.world.bot.log.read_text, "utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all({"op", "actor", "model", "level", "timestamp"} <= line.keys() for line in lines)
    secrets = [v for k, v in seen.world.bot.environment.items() if k.endswith(("_TOKEN", "_SECRET"))]
    assert secrets
    assert not any(secret in text for secret in secrets)


async def test_the_operation_has_a_trace(seen: Seen) -> None:
    """The task and each step are spans, with the operation's id."""
    async with asyncio.timeout(200):
        while not any("stoker.op" in attributes for _, attributes in seen.collector.spans):
            await asyncio.sleep(0.2)
    operations = {attributes["stoker.op"] for _, attributes in seen.collector.spans if "stoker.op" in attributes}
    assert len(operations) == 1


async def test_the_audit_log_is_exported_as_json_lines(seen: Seen, tmp_path: Path) -> None:
    """The requester, refused clicks, approvals, each step, and the end, in order, from a command that only needs Redis."""
    process = await start_stoker(
        *("audit", "export", "--since", "1h"), environment=seen.world.bot.environment, directory=tmp_path
    )
    out, _ = await process.communicate()
    entries = [json.loads(line) for line in out.decode().splitlines()]
    events = [entry["event"] for entry in entries]
    told = [e for e in events if e in ("requested", "refused", "approved", "succeeded")]
    assert told == ["requested", "refused", "approved", "succeeded"]
    refused = next(entry for entry in entries if entry["event"] == "refused")
    assert (refused["who"], refused["model"]) == ("U0DEV", "coder-chat")
    assert "Only approvers" in refused["why"]
    assert next(entry for entry in entries if entry["event"] == "approved")["who"] == "U0LEAD"
    assert events.count("step") >= 2
