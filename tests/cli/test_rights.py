"""`stoker rights`: the Roles for an installation without the chart."""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from bot.clients.rights import roles
from bot.settings.config import Config

CONFIG = {"platform": {"namespace": "models"}, "litellm": {"namespace": "gateway"}}


def printed(directory: Path, config: str) -> subprocess.CompletedProcess[str]:
    path = directory / "stoker.yaml"
    path.write_text(config, encoding="utf-8")
    environment = {"STOKER_CONFIG": str(path), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-m", "bot", "rights"], env=environment, capture_output=True, text=True, check=False
    )


def test_the_roles_are_derived_from_the_settings(tmp_path: Path) -> None:
    """There is one document per namespace, and one for cluster-scoped objects; only the settings file is needed."""
    done = printed(tmp_path, "platform: {namespace: models}\nlitellm: {namespace: gateway}\n")
    printed_roles = list(YAML(typ="safe").load_all(done.stdout))
    assert printed_roles == roles(Config.model_validate(CONFIG))
    assert {role["metadata"].get("namespace") for role in printed_roles} >= {"models", "gateway", "argocd", None}


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    """The exit code is 2, as for every command."""
    done = printed(tmp_path, "platform: {namespaces: models}\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "platform.namespaces" in done.stderr
