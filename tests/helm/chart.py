"""The chart, rendered by Helm's own library, and its objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "stoker"
MINIMAL: Object = {
    "config": {"slack": {"channel": "C0123456789"}, "roles": {"approvers": ["U0LEAD"]}},
    "env": {"GITHUB_REPOSITORY": "acme/llm-platform"},
}
BENCH: Object = {"image": f"registry.example/guidellm@sha256:{'5a' * 32}"}
MEASURING: Object = MINIMAL | {"config": MINIMAL["config"] | {"bench": BENCH}}
"""Values that enable benchmarks, so that the bot has every right."""
FULL: Object = MINIMAL | {
    "redis": {"auth": True},
    "ingress": {"enabled": True, "host": "stoker.example.com"},
    "secrets": {"externalSecret": {"enabled": True, "keys": {"SLACK_BOT_TOKEN": "stoker-slack-bot-token"}}},
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboard": True},
}


def render(values: Object, namespace: str = "stoker") -> list[Object]:
    """Return every object of the release `stoker`; raise HelmError if Helm refuses the values."""
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        files: dict[str, str] = chart.render(values, name="stoker", namespace=namespace)
    return [
        manifest
        for name, text in files.items()
        if not name.endswith(".txt")
        for manifest in YAML(typ="safe").load_all(text)
        if manifest
    ]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def pods(objects: list[Object]) -> Iterator[Object]:
    """The spec of every pod in the release."""
    for manifest in objects:
        if manifest["kind"] == "Pod":
            yield manifest["spec"]
        elif manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["spec"]["template"]["spec"]
