"""The table of class defaults equals Transformers' own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = Path("manifests/sizing/defaults.json")
SCRIPT = Path(__file__).with_name("transformers_defaults.py")


def test_the_class_defaults_equal_those_of_transformers(tmp_path: Path) -> None:
    """The test generates the table again with its release of Transformers, in a separate environment. Without torch this takes seconds.

    The test is skipped if that release cannot be installed.
    """
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    version = json.loads(TABLE.read_text())["transformers"]
    python = tmp_path / "env" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)

    created = run(uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env"))
    installed = run(uv, "pip", "install", "--quiet", "--python", str(python), f"transformers=={version}")
    if created.returncode or installed.returncode:
        pytest.skip(f"transformers {version} cannot be installed here: {(created.stderr + installed.stderr)[-300:]}")
    generated = run(str(python), "-I", str(SCRIPT))
    assert generated.returncode == 0, generated.stderr
    assert json.loads(generated.stdout) == json.loads(TABLE.read_text())
