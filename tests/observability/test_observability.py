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
class ObservedBot:
    world: Sandbox
    collector: Collector


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def observed(tmp_path_factory: pytest.TempPathFactory, forked: None) -> AsyncIterator[ObservedBot]:
    """A model that a bot brought up after a refused click and an approval; the bot reports to a collector."""
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
        yield ObservedBot(world, collector)


async def until(world: Sandbox, user: str, since: float, *texts: str) -> None:
    """Wait until one of the texts is on the user's screen."""
    try:
        async with asyncio.timeout(200):
            while not any(s.shows(text) for s in world.visible(user, since) for text in texts):
                await asyncio.sleep(0.1)
    except TimeoutError:
        screen = "\n---\n".join(s.text for s in world.visible(user, since))
        raise AssertionError(f"{texts} not shown:\n{screen}") from None


async def scrape(observed: ObservedBot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        text = (await http.get(f"{observed.world.bot.url}/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_metrics_describe_the_bring_up(observed: ObservedBot) -> None:
    """There are metrics of the outcome, the decision, the phases, the smoke tests, the holder and the cost."""
    samples = await scrape(observed)
    assert samples["stoker_operations_total", (("kind", "gpu up"), ("status", "succeeded"))] == 1
    assert samples["stoker_approval_seconds_count", (("decision", "approved"),)] == 1
    assert samples["stoker_lease_held", (("model", "coder-chat"),)] == 1
    assert samples["stoker_queue_length", ()] == 0
    assert samples["stoker_dependency_up", (("system", "redis"),)] == 1
    assert samples["stoker_reconciled_timestamp_seconds", ()] > time.time() - 300
    assert any(name == "stoker_boot_phase_seconds_count" and value for (name, _), value in samples.items())
    passed = [
        v
        for (name, labels), v in samples.items()
        if name == "stoker_smoke_checks_total" and ("result", "passed") in labels
    ]
    assert sum(passed) >= 4


async def test_a_session_is_billed_at_the_price_of_its_machine(observed: ObservedBot) -> None:
    """The price of the machine is used: with the default price the cost would still be less than a cent."""
    cost: float = 0
    async with asyncio.timeout(200):
        while cost < 1:  # until the watch knows the machine
            cost = (await scrape(observed))["stoker_session_cost_usd", (("model", "coder-chat"),)]
            await asyncio.sleep(0.1)


async def test_the_charts_alerts_and_dashboard_use_existing_metrics(observed: ObservedBot) -> None:
    """An alert on a renamed metric would never fire; `up` is a metric of Prometheus itself."""
    text = (CHART / "templates/monitoring.yaml").read_text() + (CHART / "files/dashboard.json").read_text()
    used = set(re.findall(r"\bstoker_[a-z_]+", text))
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        metrics = (await http.get(f"{observed.world.bot.url}/metrics")).text
    described = set(re.findall(r"^# HELP (\w+)", metrics, re.MULTILINE))
    existing = described | {f"{name}_bucket" for name in described}
    assert used
    assert used <= existing, used - existing


async def test_every_log_line_is_json_about_something(observed: ObservedBot) -> None:
    """Each line has op, actor and model; and no token of the installation is in the log."""
    text = await asyncio.to_thread(observed.world.bot.log.read_text, "utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all({"op", "actor", "model", "level", "timestamp"} <= line.keys() for line in lines)
    secrets = [v for k, v in observed.world.bot.environment.items() if k.endswith(("_TOKEN", "_SECRET"))]
    assert secrets
    assert not any(secret in text for secret in secrets)


async def test_the_operation_has_a_trace(observed: ObservedBot) -> None:
    """The task and each step are spans, with the operation's id."""
    async with asyncio.timeout(200):
        while not any("stoker.op" in attributes for _, attributes in observed.collector.spans):
            await asyncio.sleep(0.2)
    operations = {attributes["stoker.op"] for _, attributes in observed.collector.spans if "stoker.op" in attributes}
    assert len(operations) == 1


async def test_the_audit_log_is_exported_as_json_lines(observed: ObservedBot, tmp_path: Path) -> None:
    """The lines are the request, refused clicks, approvals, each step and the end, in order. The command needs only Redis."""
    process = await start_stoker(
        *("audit", "export", "--since", "1h"), environment=observed.world.bot.environment, directory=tmp_path
    )
    out, _ = await process.communicate()
    entries = [json.loads(line) for line in out.decode().splitlines()]
    events = [entry["event"] for entry in entries]
    main_events = [e for e in events if e in ("requested", "refused", "approved", "succeeded")]
    assert main_events == ["requested", "refused", "approved", "succeeded"]
    refused = next(entry for entry in entries if entry["event"] == "refused")
    assert (refused["who"], refused["model"]) == ("U0DEV", "coder-chat")
    assert "Only approvers" in refused["why"]
    assert next(entry for entry in entries if entry["event"] == "approved")["who"] == "U0LEAD"
    assert events.count("step") >= 2
