"""The check's findings as people, programs and GitHub's annotations read them, and the rules as docs/contract.md has them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from manifests.contract import Finding
from manifests.rules import reference


def as_plain(names: Sequence[str], findings: Sequence[Finding]) -> str:
    """One finding a line, as compilers write them, and a sentence at the end."""
    lines = [f"{each.path}:{each.line}: {each.rule}: {each.message}. Fix: {each.fix}" for each in findings]
    endpoints = f"{len(names)} endpoint{'s' if len(names) != 1 else ''}"
    if not findings:
        return f"{endpoints}: all pieces agree."
    return "\n".join([*lines, f"{endpoints}: {len(findings)} finding{'s' if len(findings) > 1 else ''}."])


def as_json(names: Sequence[str], findings: Sequence[Finding]) -> str:
    """`{"endpoints": [names], "findings": [{rule, path, line, message, fix}]}`."""
    return json.dumps({"endpoints": list(names), "findings": [each.model_dump() for each in findings]}, indent=2)


def as_github(findings: Sequence[Finding], checkout: Path) -> str:
    """Annotations of a workflow run ("Workflow commands for GitHub Actions"); paths as the run sees them."""
    prefix = Path(os.path.relpath(checkout))
    return "".join(
        f"::error file={_property((prefix / each.path).as_posix())},line={each.line},"
        f"title={_property(f'stoker: {each.rule}')}::{_data(f'{each.message}. Fix: {each.fix}')}\n"
        for each in findings
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def document(path: str) -> None:
    """Write the table of rules anew between its two markers in a Markdown file."""
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- rules -->\n")
    _, marker, tail = rest.partition("<!-- end of rules -->")
    file.write_text(f"{head}<!-- rules -->\n{reference()}{marker}{tail}", encoding="utf-8")
