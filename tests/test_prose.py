"""The check of the English finds the idioms that docs/style.md rules out, only in prose. `make lint` applies it to the repository."""

import pytest

from tests.prose import findings


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.py", '"""The mirror is made anew."""\n', [(1, "anew")]),
        ("a.py", "x = 1  # the next one\n\n\n# is told who has it\n", [(4, "is told")]),
        ("a.py", "def f():\n    # one\n    # which would else\n    # start\n    return 1\n", [(3, "would else")]),
        ("a.py", 'raise ValueError(f"{name!r} is no model: use org/name")\n', [(1, "is no")]),
        ("a.py", 'x = f"run {command} and generate {path} anew"\n', [(1, "anew")]),
        ("a.md", "It is scaled by the API; the key belongs into a Secret.\n", [(1, "belongs into"), (1, "by the API")]),
        (
            "a.py",
            'x = f"{key} stands twice, and {word} is written out"\n',
            [(1, "stands twice"), (1, "is written out")],
        ),
        ("a.md", "| a | b |\n| --- | --- |\n| c | Mend the file |\n", [(3, "Mend")]),
        ("a.md", "First.\n\nThe model goes down by\nitself.\n", [(3, "by itself")]),
        ("a.py", '"""The key stands in git, but for one."""\n', [(1, "stands in"), (1, "but for")]),
        ("a.py", '"""The port; 0 where it is unknown."""\n', [(1, "0 where")]),
        ("a.py", '"""The port of the pod, else the default one."""\n', [(1, ", else the")]),
        ("a.py", '"""It fails. Nor is it tried again."""\n', [(1, "Nor")]),
        ("a.story", "# Whoever asks gets it.\n@dev /gpu up x because mend it\n", [(1, "Whoever")]),
        ("a.yaml", "a: anew # prolongs the lease\n", [(1, "prolongs")]),
        ("a.py", '"""Whether it runs in the cluster."""\n', [(1, "Whether")]),
        ("a.py", '"""The card says who holds it, and the work goes on."""\n', [(1, "card says"), (1, "goes on")]),
        (
            "a.md",
            "The request is turned away for good, whatever\nthe reason.\n",
            [(1, w) for w in ("turned away", "for good", "whatever")],
        ),
    ],
)
def test_an_idiom_is_found_at_its_line(path: str, text: str, expected: list[tuple[int, str]]) -> None:
    """Idioms are found in documents, comments, docstrings, messages and the comments of stories."""
    assert [(finding.line, finding.idiom) for finding in findings(path, text)] == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", 'KEY = "mend"\n'),
        ("a.py", '"""None if there is none; there is no such file, and it is no longer used."""\n'),
        ("a.py", '"""Returns the person. What is it? Only a test."""\n'),
        ("a.py", '"""Who uses the GPU? The answer goes on the card."""\n'),
        ("a.md", "The line `mend FAULT` ends a fault.\n"),
        ("a.md", "    mend no-stock\n"),
        ("a.md", "```\nanew\n```\n"),
        ("a.story", "mend no-stock\n"),
    ],
)
def test_code_and_plain_english_have_no_findings(path: str, text: str) -> None:
    """Names, quoted commands and code blocks are not prose."""
    assert list(findings(path, text)) == []
