"""Every engine fulfils the same contract, and a new one is one file: `manifests/engines/NAME.py`.

A registered engine is tested automatically. It needs one example: a container that runs it, in `test_recipes.ENGINES`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bot.clients.vllm import SIGNALS, signals
from bot.clients.workload import workload_of
from manifests import engines
from manifests.contract import check, read_endpoint
from manifests.engines import Engine, engine_named, running, usual
from manifests.layout import Layout
from manifests.platform import Platform
from manifests.rules import RULES
from manifests.sizing import Machine
from manifests.swap import SwapRequest, plan_swap
from tests.manifests.test_recipes import ENGINES, NEW, OLD, deployment, facts

ALL = [pytest.param(engine, id=engine.name) for engine in engines.engines()]
CHANGED = [pytest.param(engine, id=engine.name) for engine in engines.engines() if engine.changes]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("engine", ALL)
def test_it_is_recognised_by_its_image_or_program(engine: Engine) -> None:
    """No other engine recognises the container, except the usual one. The engine's files are found without parsing all files."""
    image, arguments = ENGINES[engine.name]
    program = f"{image} {arguments}"
    other_engines = [
        candidate.name for candidate in engines.engines() if candidate.sign.search(program) and not candidate.is_usual
    ]
    assert other_engines == ([] if engine.is_usual else [engine.name])
    assert engine_named(engine.name) is engine
    assert engine.is_usual or not engine.changes or running(program) is engine
    assert any(word in program for word in (*engine.words, "--model", "MODEL"))


@pytest.mark.parametrize("engine", CHANGED)
def test_its_arguments_have_one_name_each(engine: Engine) -> None:
    """The names are long, with dashes; short names and variables are mapped to them."""
    long = [*engine.model, engine.served, engine.context, engine.quantization, engine.utilization, engine.config]
    long += [*engine.short.values(), *engine.variables.values(), engine.implied_by, engine.key[1]]
    assert all(re.fullmatch(r"--[a-z][a-z0-9-]+", name) for name in long if name)
    assert engine.model
    assert all(engine.long(short) == name for short, name in engine.short.items())
    assert not engine.arguments or {name for name in long if name} <= {*engine.arguments, engine.config, engine.key[1]}


@pytest.mark.parametrize("engine", CHANGED)
def test_its_health_and_its_usage_can_be_read(engine: Engine) -> None:
    """The bot's client reads each metric of the engine, and no other engine has a metric with the same name."""
    assert engine.health in engine.probes
    assert engine.keyed.startswith("/")
    for name, signal in engine.signals.items():
        assert SIGNALS[name] == signal
        assert getattr(signals(f"{name} 3\n"), signal) == 3.0
        assert [candidate.name for candidate in engines.engines() if name in candidate.signals] == [engine.name]


@pytest.mark.parametrize("engine", CHANGED)
def test_its_loading_log_has_one_figure_for_each_measurement(engine: Engine) -> None:
    if engine.loading is None:
        return
    patterns = (engine.loading.model, engine.loading.cache, engine.loading.tokens, engine.loading.version)
    assert [pattern.groups for pattern in patterns] == [1, 1, 1, 1]


@pytest.mark.parametrize("engine", CHANGED)
def test_the_bot_recognises_the_engine_of_a_deployment(engine: Engine) -> None:
    """The bot finds the same engine, served name and model as the manifests."""
    image, arguments = ENGINES[engine.name]
    tree = deployment(image, arguments)
    container = {
        "name": "engine",
        "image": image,
        "args": [word.strip(" '") for word in arguments.strip("[]").split(",")],
    }
    workload = workload_of({
        "metadata": {"name": "model", "namespace": "llm"},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}},
    }, ())  # fmt: skip
    endpoint = read_endpoint(Platform(tree, Layout()), "model")
    assert workload.engine == endpoint.engine == engine.name
    if engine.served:
        assert workload.served_names == endpoint.served_names == ("chat",)


def test_no_other_module_refers_to_an_engine_by_name() -> None:
    """A new engine needs no other change, because no other module refers to an engine by name.

    Some forms name the engine that they are for: KServe and the production stack run vLLM, operators have a field for the
    engine, and a map is vLLM's by default.
    """
    names = {candidate.name for candidate in engines.engines()}
    allowed = {
        "manifests/contract.py",
        *(f"manifests/sources/{name}.py" for name in ("kserve", "operators", "stack", "field_map")),
    }
    clients = {"bot/clients/vllm.py", "bot/clients/cluster.py"}  # messages contain the names of systems
    imports = {
        (path.relative_to(ROOT).as_posix(), node.value)
        for folder in ("manifests", "bot", "commands")
        for path in (ROOT / folder).rglob("*.py")
        if "engines" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert {imported for imported in imports if imported[0] not in allowed | clients} == set()


@pytest.fixture
def new_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Add one file to the package of engines."""
    (tmp_path / "quickserve.py").write_text('''\
"""QuickServe, an engine that somebody adds with the recipe."""

import re

from manifests.engines import Engine

ENGINE = Engine(
    name="QuickServe",
    sign=re.compile(r"quickserve", re.IGNORECASE),
    words=("quickserve",),
    model=("--repo",),
    served="--as",
    context="--window",
    port=9000,
    key=("QUICKSERVE_KEY", "--token"),
    health="/ready",
    probes=frozenset({"/ready"}),
    signals={"quickserve_active": "running"},
)
''')
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    engines.engines.cache_clear()
    yield engines
    sys.modules.pop("manifests.engines.quickserve", None)
    monkeypatch.undo()
    engines.engines.cache_clear()


def test_a_new_engine_is_one_file(new_engine: ModuleType) -> None:
    """The engine is listed, checked and changed in its own values, and the smoke test uses its paths."""
    tree = deployment("acme/quickserve:1", f"[--repo={OLD}, --as, chat, --window=4096]")
    platform = Platform(tree, Layout())
    endpoint = read_endpoint(platform, "model")
    assert (endpoint.engine, endpoint.hf_id, endpoint.served_names) == ("QuickServe", OLD, ("chat",))
    assert (endpoint.context, endpoint.has_key) == (4096, False)
    assert [finding.rule for finding in check(platform)] == ["service-missing"]
    change = plan_swap(platform, SwapRequest(name="model", facts=facts("QuickServe")), Machine())
    diff = [line for line in change.changes.diff(tree).splitlines() if re.match(r"[-+][^-+]", line)]
    assert [line.replace(OLD, "").replace(NEW, "")[1:] for line in diff] == [diff[0].replace(OLD, "")[1:]] * 2
    assert running("acme/quickserve:1").health == "/ready"
    assert usual().name == "vLLM"


@pytest.mark.parametrize("engine", ALL)
def test_its_rules_are_in_the_table_of_engines(engine: Engine) -> None:
    """Each rule is in the table, and the spelling is checked only against known arguments."""
    assert {RULES[rule].component for rule in engine.rules} <= {"engine"}
    assert ("argument" in engine.rules) == bool(engine.arguments)
