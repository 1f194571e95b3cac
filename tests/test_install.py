"""`make install` with different versions of pip: it installs the lock file, and resolves nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, **environment: str) -> str:
    """Return the output of a command; fail with its complete output if it fails."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def with_pip(pip: str, path: Path) -> Path:
    """Return the Python of a new environment that contains only this version of pip."""
    python = path / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", path)
    run(UV, "pip", "install", "--quiet", "--python", python, pip)
    return python


LOCKED = ("--quiet", "--no-deps", "--require-hashes", "-r", "requirements.lock")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that the newest pip downloads for the lock file. An old pip needs a minute to read the index."""
    path = tmp_path_factory.mktemp("wheels")
    run(with_pip("pip", path / "newest"), "-m", "pip", "download", *LOCKED, "--dest", path)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("pip", ["pip==22.3", pytest.param("pip==23.2", marks=pytest.mark.soak), "pip"])
def test_pip_alone_installs_the_lock_file(pip: str, wheels: Path, tmp_path: Path) -> None:
    """The oldest pip with --dry-run, the one of Python 3.11.7, and the newest accept every pin and hash."""
    run(with_pip(pip, tmp_path), "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", wheels, *LOCKED)


def test_the_lock_file_is_complete(tmp_path: Path) -> None:
    """The packages of the lock file are installed without resolving, and the command starts."""
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):  # the current files, committed or not
        (clone / name).write_bytes((ROOT / name).read_bytes())
    assert "so pip installs it" not in run("make", "--silent", "-C", clone, "install", f"PYTHON={sys.executable}")
    run(clone / ".venv/bin/python", "-m", "pip", "check")
    assert run(clone / ".venv/bin/stoker", "--version").startswith("stoker ")


BUILD = ("editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")
"""The packages that the Makefile needs to install Stoker."""


def pins(lock: str) -> dict[str, str]:
    """The lines of the lock file by the package that they pin."""
    return {pin.partition("==")[0]: pin for pin in re.split(r"^(?=\S+==)", lock, flags=re.MULTILINE)[1:]}


def test_pip_installs_if_uv_fails(tmp_path: Path) -> None:
    """If uv has no wheel for the machine, the same command installs with pip.

    This test only installs the build requirements; the first test covers the whole lock file.
    """
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    for name in ("Makefile", "pyproject.toml"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    pinned = pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    (clone / "requirements.lock").write_text("".join(pinned[name] for name in BUILD), encoding="utf-8")
    assert "so pip installs it" in run("make", "--silent", "-C", clone, "install", f"PYTHON={sys.executable}")
    installed = run(clone / ".venv/bin/python", "-m", "pip", "list", "--format=freeze").split()
    assert {"stoker==0.1.0", pinned["hatchling"].split()[0]} <= set(installed)
