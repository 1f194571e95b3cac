"""The chart refuses the same settings as the bot, and accepts the same."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

from bot.cli.settings import into_chart
from bot.settings.config import Config, SettingsError, load_config
from tests.helm.chart import CHART, MINIMAL, Object, render

helm = pytest.importorskip("helm_python", reason="Helm's library has no wheel for this machine")

SCHEMA = CHART / "values.schema.json"
PINNED = f"ghcr.io/vllm-project/guidellm@sha256:{'5a' * 32}"


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of the settings file."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


KEYS = [(section, key) for section, model in sections(Config) for key in model.model_fields]


def the_bot_refuses(config: Object, tmp_path: Path) -> bool:
    file = tmp_path / "stoker.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    try:
        load_config(file)
    except SettingsError:
        return True
    return False


def the_chart_refuses(config: Object) -> bool:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return not Draft7Validator(schema).is_valid({"config": config})


def test_the_schema_is_generated_from_the_settings(tmp_path: Path) -> None:
    """`make docs` writes the schema into the chart."""
    copy = tmp_path / "values.schema.json"
    shutil.copy(SCHEMA, copy)
    into_chart(str(copy))
    assert copy.read_text(encoding="utf-8") == SCHEMA.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"gpu": {"price": 1}}, "price"),
        ({"idle": {"remind_afer": "5m"}}, "remind_afer"),
        ({"rolls": {}}, "rolls"),
        ({"roles": {"approvers": ["@lead"]}}, "approvers"),
        ({"roles": {"admins": ["C0123456789"]}}, "admins"),
        ({"slack": {"channel": "#gpu-ops"}}, "channel"),
        ({"approvals": {"expire_after": "soon"}}, "expire_after"),
        ({"lease": {"default": "0h"}}, "default"),
        ({"gpu": {"slots": 0}}, "slots"),
        ({"gpu": {"price_per_hour": 0}}, "price_per_hour"),
        ({"gpu": {"beside": ["ollama"]}}, "beside"),
        ({"idle": {"quiet_hours": "from eight"}}, "quiet_hours"),
        ({"idle": {"quiet_days": ["monday"]}}, "quiet_days"),
        ({"links": {"logs": "http://logs.example.com"}}, "logs"),
        ({"links": {"dashboard": "https://{model}.example.com"}}, "dashboard"),
        ({"bench": {"image": "guidellm:latest"}}, "image"),
        ({"staging": {"mode": "sometimes"}}, "mode"),
        ({"staging": {"tolerations": [{"keys": "gpu"}]}}, "tolerations"),
        ({"litellm": {"master_key": {"space": "litellm"}}}, "master_key"),
        ({"vllm": {"api_key": {"namespace": "ai"}}}, "api_key"),
        ({"platform": {"branches": "main"}}, "branches"),
    ],
)
def test_both_refuse_a_wrong_setting(config: Object, named: str, tmp_path: Path) -> None:
    """Helm stops before it installs anything, and its message names the key."""
    assert the_bot_refuses(config, tmp_path)
    with pytest.raises(helm.HelmError, match=named):
        render(MINIMAL | {"config": {"slack": {"channel": "C0123456789"}} | config})


@pytest.mark.parametrize(
    "config",
    [
        {"approvals": {"expire_after": "1 h 30 min"}, "lease": {"default": 7200, "longest": "8H"}},
        {"roles": {"requesters": ["W0123456789"], "approvers": ["S0123456789", "U0123456789"]}},
        {"idle": {"quiet_hours": "20:00-07:00", "quiet_days": ["sat", "sun"], "timezone": "Europe/Berlin"}},
        {"gpu": {"prices": {"g2-standard-8": 1.06}, "vram_mib": None, "beside": ["ollama/ollama"]}},
        {"links": {"logs": "https://logs.example.com/x?q=%7Bapp={model}&ns={namespace}&from={from}", "dashboard": ""}},
        {"bench": {"image": PINNED, "concurrency": [1, 8]}},
        {"staging": {"mode": True, "node_selector": {"pool": "cpu"}, "tolerations": [{"operator": "Exists"}]}},
        {"platform": {"namespaces": ["serving-2"], "endpoints": {}}},
    ],
)
def test_both_accept_a_valid_setting(config: Object, tmp_path: Path) -> None:
    """Each form that the reference describes can be written into the chart's values."""
    assert not the_bot_refuses(config, tmp_path)
    render(MINIMAL | {"config": {"slack": {"channel": "C0123456789"}} | config})


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[".".join(path) for path in KEYS])
@pytest.mark.parametrize("value", [{"no": "such"}, [[]], -1, "?"], ids=["mapping", "list", "negative", "text"])
def test_the_bot_and_the_chart_check_the_same_keys(section: str, key: str, value: Any, tmp_path: Path) -> None:
    """A value of the wrong kind is refused by both, for every setting. Only the bot checks the names of time zones."""
    if (key, value) == ("timezone", "?"):
        pytest.skip("JSON schema has no list of time zones")
    config = {section: {key: value}}
    assert the_chart_refuses(config) == the_bot_refuses(config, tmp_path)


@pytest.mark.parametrize("section", [name for name, _ in sections(Config)])
def test_a_key_that_does_not_exist_is_refused_in_each_section(section: str, tmp_path: Path) -> None:
    """Otherwise a misspelt key would have no effect, and nobody would notice."""
    config = {section: {"no_such_setting": 1}}
    assert the_bot_refuses(config, tmp_path)
    assert the_chart_refuses(config)
