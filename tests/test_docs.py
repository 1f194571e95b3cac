"""The names in the documents exist: files, tests, commands and settings."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bot.cli.main import cli
from bot.settings.environment import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "helm").rglob("*.md")])


def _every_test() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_test_named_in_a_document_exists() -> None:
    """Every mitigation in the threat model has an existing test."""
    named = {path.name: set(re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8"))) for path in DOCUMENTS}
    assert len(named["security.md"]) > 20
    assert set().union(*named.values()) - _every_test() == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_documents_works(path: Path) -> None:
    """Every link to a file in a document works."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("name", ["install.md", "operations.md", "security.md"])
def test_every_command_and_setting_of_a_guide_exists(name: str) -> None:
    """Every command and variable in a document exists."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    commands = set(re.findall(r"(?<!namespace )\bstoker ([a-z]+)(?= |`|$)", text)) - {"is"}
    assert commands <= set(get_command(cli).commands), commands  # type: ignore[attr-defined]
    variables = {v.lower() for v in re.findall(r"\b((?:SLACK|GITHUB|REDIS|STOKER|HF|LITELLM|OTEL)_[A-Z_]+)\b", text)}
    assert variables <= Settings.model_fields.keys(), variables - Settings.model_fields.keys()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_of_a_command_exists(path: Path) -> None:
    """Every `stoker …` command in a code block or in backquotes is valid."""
    text = path.read_text(encoding="utf-8")
    typed = re.findall(r"`([^`\n]+)`", text) + [line for line in text.splitlines() if line.startswith("    ")]
    unknown = []
    for arguments in re.findall(r"(?m)(?:^ *|&& |-- |\| )(?:\S*/)?stoker ([^#&|>\n]*)", "\n".join(typed)):
        command: Any = get_command(cli)
        for word in arguments.split():
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
            options = {
                option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            } | {"--help"}
            if word.startswith("--") and word.partition("=")[0] not in options:
                unknown.append(f"{command.name} {word}")
    assert unknown == []


@pytest.mark.parametrize("name", ["install.md", "operations.md"])
def test_every_make_target_named_in_a_guide_exists(name: str) -> None:
    """Every `make` target in a document exists."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
