"""Find idioms that docs/style.md rules out: in documents, comments, docstrings, messages and stories.

`python tests/prose.py` prints each with its file, its line and the better wording, and exits with 1 if there are any.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

NOT_CONVERTED: tuple[str, ...] = ()
"""Files that still have idioms. The list may only shrink: a file without idioms must be removed from it."""

_BE = r"(?:is|are|was|were)"

IDIOMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), better)
    for pattern, better in (
        (r"\b[Aa]new\b", "again"),
        (r"\b[Mm]end(?:s|ed|ing)?\b(?! [a-z]+-[a-z])", "fix"),
        (r"\blest\b", "so that … not"),
        (r"\b[Ww]herefore\b", "therefore"),
        (r"\bfor\sever\b", "forever"),
        (r"\bby\sitself\b", "automatically, alone, or without action"),
        (r"\b[Pp]rolong\w*", "extend"),
        (r"\b[Ww]hoever\b", "everybody who, or the person"),
        (rf"\b{_BE}\stold\b(?!\sapart)", "is notified, or is shown"),
        (rf"\b(?:{_BE}|be|been|not)\ssaid\b", "is reported, or is shown"),
        (r"\bsaid\sso\b", "reported, or confirmed"),
        (rf"(?<!here\s)\b{_BE}\snone\b", "does not exist, or is not a …"),
        (rf"(?<!here\s)\b{_BE}\sno\s(?!longer\b|more\b)", "is not a …"),
        (r"\bwould\selse\b", "otherwise … would"),
        (r"\bg(?:o|oes|one)\son\swhere\b|\bwent\son\swhere\b", "resumes where"),
        (r"\blook(?:s|ed|ing)?\swhether\b", "checks whether"),
        (r"\b[Ww]ho\sask(?:ed|s)\b(?!\sfor\b)", "the requester"),
        (r"\b(?:the|a|no)\sasker\b", "the requester"),
        (r"\bwhat\s(?:it|they|this|that)\s{_BE}\sabout\b".replace("{_BE}", _BE), "its subject"),
        (r"\b(?:[Ll]ights?|lit)\s(?:it|the\s(?:GPU|model|fire))\b", "bring up"),
        (r"\bbank(?:s|ed)?\s(?:it|the\s(?:GPU|model|fire))\b", "bring down"),
        (r"\b(?:stands?|stood|lies)\s(?:in|on|at|below|above|beside|behind)\b", "is in, is at, comes before"),
        (r"\bbut for\b(?!\s(?:a|the)\s\w+ing)", "except for"),
        (r"(?:^|[.!?] )(?:Nor|And)\s(?!so on)", "a sentence with its own subject"),
        (r"(?:\b(?:None|[Ee]mpty|False|nothing|zero|0|Error)|\bManifestError|\"\"),?\swhere\b", "if"),
        (r"[,;]\selse\s(?:the|a|an|one|of|in|from)\b", "otherwise"),
        (r"\bwhat\sbecomes\sof\b", "the result"),
        (r"\bto be looked at\b", "to investigate"),
        (r"\A(?:What|Where|Who|Whom|Whose|Whether)\s(?![^.]*\?)", "a verb or a noun phrase as the beginning"),
        (r"\bsays\sso\b", "reports it, or shows it"),
        (r"\bhears?\s(?:of|that)\b", "is notified"),
        (r"\bspeaks?\sof\b", "mentions, or is about"),
        (r"\b(?:it|card|message|manifests?|repository)\sknows\b", "has, supports, or uses"),
        (r"\b(?:card|message|error|doctor|manifests?)\ssays\b", "shows, names, or has"),
        (r"\b(?:goes|went)\son\b(?!\s(?:the|a|one|this|that|its)\b)", "continues"),
        (r"\ball\sthe\ssame\b", "nevertheless"),
        (r"\bmade\sup\b", "invented, or generated"),
        (r"\bput\stogether\b", "composed"),
        (r"\bturn(?:s|ed)?\s\w*\s?away\b", "refuse"),
        (r"\bfor\sgood\b", "permanently"),
        (r"\bwhatever\b|\bhowever\s(?:often|long|many|slow)\b", "independent of, or even if"),
        (r"\bpoint\sof\sno\sreturn\b", "when it can no longer be cancelled"),
        (r"\bobeys?\b", "accept requests from"),
        (r"\bbelongs?\sinto\b", "belongs in"),
        (r"\b(?:by|with)\sthe\sAPI(?=[\s:,.;)]|\Z)(?!\s(?:server|of|key))", "through the API"),
        (r"\bstands?\s(?:twice|…\stimes)\b", "appears twice, or is set twice"),
        (r"\b(?:is|are)\swritten\sout\b", "is in plain text, or is written in full"),
        (r"\bone's\sown\b", "people's own, or their own"),
        (
            r"(?:^|[.!?] )Who\s(?:has|holds|is|was|asks|waits|comes|does|cannot|votes|runs|owns|uses)\b(?![^.]*\?)",
            "the person who",
        ),
        (
            r"(?:^|[.!?] )What\s(?:is|was|are|were|has|had|comes|came|goes|went|stands|cannot|happened)\b(?![^.]*\?)",
            "the thing itself as the subject",
        ),
    )
)
"""The idioms that docs/style.md rules out, each with a better wording."""


class Finding(NamedTuple):
    """One idiom; lines are counted from 1."""

    path: str
    line: int
    idiom: str
    better: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.idiom}": write {self.better} (docs/style.md)'


def findings(path: str, text: str) -> Iterator[Finding]:
    """The idioms in one file."""
    for line, prose in _prose(path, text):
        plain = re.sub(r"\n[ \t]+", "\n", re.sub(r"`[^`\n]*`", "`…`", prose))
        for pattern, better in IDIOMS:
            for match in pattern.finditer(plain):
                yield Finding(
                    path, line + plain.count("\n", 0, match.start()), " ".join(match[0].split()).strip(" .!?"), better
                )


def _prose(path: str, text: str) -> Iterator[tuple[int, str]]:
    """The first line of each piece of prose, and the piece."""
    match Path(path).suffix:
        case ".py":
            yield from _python(text)
        case ".md":
            yield from _markdown(text)
        case ".story":
            yield from ((n, line) for n, line in enumerate(text.splitlines(), 1) if line.startswith("#"))
        case _:
            yield from (
                (n, m[1]) for n, line in enumerate(text.splitlines(), 1) if (m := re.search(r"(?:^|\s)#\s(.*)", line))
            )


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Comments, and strings that contain a sentence; a comment of several lines is one piece."""
    lines: list[str] = []
    start = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != start + len(lines):
            yield start, "\n".join(lines)
            lines = []
        start = start if lines else token.start[0]
        lines.append(token.string.lstrip("# "))
    if lines:
        yield start, "\n".join(lines)
    yield from ((line, string) for line, string in _strings(ast.parse(text)) if len(string.split()) > 3)


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The strings, with "…" for each value in an f-string."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):  # its parts are visited next
            parts.update(map(id, node.values))
            texts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield node.lineno, "".join(texts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs and table rows, without code blocks."""
    blocks = re.split(r"(\n(?:\s*\n)+)", re.sub(r"(?ms)^```.*?^```", lambda m: "\n" * m[0].count("\n"), text))
    line = 1
    for block in blocks:
        if block.strip() and not block.startswith("    "):
            yield line, block
        line += block.count("\n")


def tracked() -> list[str]:
    """The files of the repository that contain prose."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in names if Path(name).suffix in {".py", ".md", ".story", ".toml", ".yaml", ".yml", ".sh"}]


def check(names: Iterable[str]) -> list[str]:
    """One line per idiom, and per file that is listed as not converted without need."""
    problems: list[str] = []
    for name in names:
        if name in EXCEPT or name.startswith(SAMPLES):
            continue
        problems_of_file = [str(finding) for finding in findings(name, (ROOT / name).read_text(encoding="utf-8"))]
        if name not in NOT_CONVERTED:
            problems += problems_of_file
        elif not problems_of_file:
            problems.append(f"{name}: has no idioms any more: remove it from NOT_CONVERTED")
    return problems


EXCEPT = frozenset({"docs/style.md", "tests/prose.py", "tests/test_prose.py"})
"""Files that quote the idioms."""

SAMPLES = ("sandbox/platform/", "sandbox/platforms/", "docs/traces/")
"""Sample data in the style of other people."""

if __name__ == "__main__":
    problems = check(tracked())
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.exit(bool(problems))
