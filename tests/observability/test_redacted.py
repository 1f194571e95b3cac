"""No secret leaves the process in traces, warnings of libraries or uncaught exceptions, which bypass the log."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from bot.observability.logs import conceal
from bot.observability.tracing import _redacting

SECRET = "a-secret-of-this-test-0451"


def test_a_trace_contains_no_secret() -> None:
    conceal(SecretStr(SECRET))
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_redacting(exporter)))
    try:
        with provider.get_tracer("t").start_as_current_span(
            f"GET {SECRET}", attributes={"url": f"https://u:{SECRET}@h"}
        ):
            raise ValueError(f"refused {SECRET}")
    except ValueError:
        pass
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET ***"
    assert SECRET not in span.to_json()
    assert "refused ***" in span.to_json()
    assert span.end_time is not None


def test_stderr_contains_no_secret() -> None:
    program = f"""
import warnings
from pydantic import SecretStr
from bot.observability.logs import configure
configure("json", [SecretStr("{SECRET}")])
warnings.warn("old key " + "{SECRET}"[:12] + "{SECRET}"[12:])
raise RuntimeError("cannot go on with " + "{SECRET}"[:12] + "{SECRET}"[12:])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "cannot go on with ***" in done.stderr
    assert "old key ***" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "fails",
    [
        "thread = threading.Thread(target=fail); thread.start(); thread.join()",
        "asyncio.run(forgotten())",
        "owner = type('Owner', (), {'__del__': lambda self: fail()})(); del owner",
    ],
    ids=["a thread", "a task", "a destructor"],
)
def test_an_uncaught_exception_contains_no_secret(fails: str) -> None:
    program = f"""
import asyncio, gc, threading
from pydantic import SecretStr
from bot.observability.logs import configure
configure("text", [SecretStr("{SECRET}")])
def fail():
    raise RuntimeError("cannot go on with " + "{SECRET}"[:12] + "{SECRET}"[12:])
async def failing():
    fail()
async def forgotten():
    task = asyncio.create_task(failing())
    await asyncio.sleep(0.05)
    del task
    gc.collect()
{fails}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "cannot go on with ***" in done.stderr
    assert SECRET not in done.stdout + done.stderr
