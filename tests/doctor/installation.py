"""An installation of the bot that the doctor examines, and the faults that the doctor finds."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bot.doctor import Finding, examine
from bot.settings.environment import load_settings
from sandbox.world import Sandbox


class Installation:
    """The settings of a running bot, which a test changes before it examines them."""

    def __init__(self, world: Sandbox, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch
        running_environment = world.bot.environment
        self.environment = {
            name: value for name, value in running_environment.items() if name.isupper() and "COV" not in name
        }
        self.policy: dict[str, Any] = YAML(typ="safe").load(
            Path(running_environment["STOKER_CONFIG"]).read_text(encoding="utf-8")
        )

    def set(self, key: str, value: Any) -> None:
        section, _, name = key.partition(".")
        self.policy.setdefault(section, {})[name] = value

    def environment_with_policy(self) -> dict[str, str]:
        """The environment of a process, with the policy on disk."""
        path = self._directory / "stoker.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML().dump(self.policy, file)
        return self.environment | {"STOKER_CONFIG": str(path), "STOKER_DATA_DIR": str(self._directory / "data")}

    async def examine(self) -> tuple[Finding, ...]:
        for name, value in self.environment_with_policy().items():
            self._monkeypatch.setenv(name, value)
        return await examine(load_settings())

    def set_cluster(self, server: str) -> None:
        """Write a kubeconfig with another address of the cluster."""
        config = json.loads(Path(self.environment["KUBECONFIG"]).read_text(encoding="utf-8"))
        path = self._directory / "kubeconfig"
        config["clusters"][0]["cluster"]["server"] = server
        path.write_text(json.dumps(config))
        self.environment["KUBECONFIG"] = str(path)

    @property
    def cluster(self) -> str:
        config = json.loads(Path(self.environment["KUBECONFIG"]).read_text(encoding="utf-8"))
        server: str = config["clusters"][0]["cluster"]["server"]
        return server


def faults(findings: tuple[Finding, ...]) -> list[str]:
    """Return the texts of the errors and warnings."""
    return [f"{f.verdict} {f.system}: {f.message} → {f.fix}" for f in findings if f.verdict != "ok"]
