"""The script that stages weights: its downloads, and the edit that restricts them to the files that the engine loads.

It is a Python script in the initContainer (`python3 -c`); only its calls of `snapshot_download` are edited. Scripts of
another form are not changed and download the whole repository.
"""

import ast
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from pydantic import BaseModel
from ruamel.yaml.nodes import ScalarNode

from manifests.edit import Document, Edit, scalars
from manifests.pieces import Pieces
from manifests.sizing import ModelFacts
from manifests.sizing.quantities import in_gb

_FUNCTION = "snapshot_download"
_SPARE = 1.02
"""If the repository is at most this much larger than what the engine loads, patterns would save nothing."""


class Script(BaseModel, frozen=True, defer_build=True, arbitrary_types_allowed=True):
    """A staging script whose downloads can be analysed."""

    node: ScalarNode
    calls: tuple[ast.Call, ...]
    lists: tuple[ast.List, ...]
    """The values of `allow_patterns` in the calls."""
    models: tuple[ast.Assign, ...]
    """The statements that assign the model's name."""
    names: frozenset[str]

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(str(ast.literal_eval(elt)) for elt in self.lists[0].elts) if self.lists else ()


def read_script(node: ScalarNode) -> Script | None:
    """The script in a literal block; None if its downloads cannot be determined."""
    if node.style != "|":
        return None
    try:
        tree = ast.parse(node.value)
    except SyntaxError:
        return None
    names = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    assigned = {
        statement.targets[0].id: statement
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    }
    called = _names_of_the_function(tree)
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and _called(each) in called]
    lists, models = list[ast.List](), dict[str, ast.Assign]()
    for call in calls:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if len(call.args) != 1 or None in keywords or "ignore_patterns" in keywords:
            return None
        if isinstance(call.args[0], ast.Name) and call.args[0].id in assigned:
            models[call.args[0].id] = assigned[call.args[0].id]
        elif not isinstance(call.args[0], ast.Constant):
            return None
        if "allow_patterns" in keywords:
            value = keywords["allow_patterns"]
            value = assigned[value.id].value if isinstance(value, ast.Name) and value.id in assigned else value
            if not _is_list_of_words(value):
                return None
            lists += [value] if isinstance(value, ast.List) and value not in lists else []
    if not calls or (lists and any("allow_patterns" not in {k.arg for k in call.keywords} for call in calls)):
        return None
    return Script(
        node=node, calls=tuple(calls), lists=tuple(lists), models=tuple(models.values()), names=frozenset(names)
    )


def downloaded(pieces: Pieces, facts: ModelFacts) -> int:
    """Bytes that the endpoint's script writes to the volume for a model, after `with_patterns`."""
    scripts = _scripts(pieces.staging)
    if not scripts or not facts.allow_patterns:
        return facts.staged
    for script in scripts:
        if script is None or (script.patterns and _is_kept(script, facts)):
            return max(facts.repo_bytes, facts.staged)  # an upper bound: which files custom patterns select is unknown
    return facts.staged


def kept(pieces: Pieces, weight_bytes: int, repo_bytes: int) -> int:
    """Bytes of the current model that stay on the volume after a swap."""
    scripts = _scripts(pieces.staging)
    whole = any(script is None or not script.patterns for script in scripts)
    return max(repo_bytes, weight_bytes) if whole else weight_bytes


def with_patterns(document: Document, facts: ModelFacts) -> Document:
    """The document with a script that downloads what the engine loads.

    Patterns are added if the repository contains more than that, and changed if the existing ones do not select the new
    model's files. Otherwise existing patterns are kept.
    """
    edits: list[Edit] = []
    nodes = tuple(node for node in scalars(document.roots) if node.style == "|" and facts.hf_id in node.value)
    for script in filter(None, _scripts(nodes)):
        if not facts.allow_patterns:
            continue
        if script.lists:
            if not _is_kept(script, facts) and set(script.patterns) != set(facts.allow_patterns):
                edits += [_replaced(document, script, each, facts.allow_patterns) for each in script.lists]
        elif _saves(facts):
            edits += _added(document, script, facts.allow_patterns)
    return document.apply(edits)


def warnings(pieces: Pieces, facts: ModelFacts) -> tuple[str, ...]:
    """Warnings about a script that only people can change."""
    if not _saves(facts) or all(_scripts(pieces.staging)):
        return ()
    patterns = ", ".join(f'"{pattern}"' for pattern in facts.allow_patterns)
    return (
        f"The initContainer downloads the whole repository ({in_gb(facts.repo_bytes)}), of which the engine loads"
        f" {in_gb(facts.staged)}, and its script is not one that Stoker edits: the volume is sized for all of it."
        f" snapshot_download takes allow_patterns=[{patterns}].",
    )


def _scripts(nodes: Iterable[ScalarNode]) -> list[Script | None]:
    return [read_script(node) for node in nodes if "download" in node.value]


def _saves(facts: ModelFacts) -> bool:
    return bool(facts.allow_patterns) and facts.repo_bytes > facts.staged * _SPARE


def _is_kept(script: Script, facts: ModelFacts) -> bool:
    """Return whether the patterns in a script are custom, and select what the model needs."""
    return set(script.patterns) != set(facts.allow_patterns) and _covers(script.patterns, facts.allow_patterns)


def _added(document: Document, script: Script, patterns: tuple[str, ...]) -> Iterator[Edit]:
    name = next(each for each in ("patterns", "allow_patterns", "files_of_the_engine") if each not in script.names)
    given = name if len(script.models) == 1 else _written(patterns)
    if len(script.models) == 1:
        line = _line_of(script, script.models[0].end_lineno or script.models[0].lineno)
        lead = document.lines[line][: len(document.lines[line]) - len(document.lines[line].lstrip())]
        yield document.insert_lines(line + 1, f"{lead}{name} = {_written(patterns)}\n")
    for call in script.calls:
        at = _offset(document, script, call.args[0].end_lineno or 0, call.args[0].end_col_offset or 0)
        yield Edit(at, at, f", allow_patterns={given}")


def _replaced(document: Document, script: Script, old: ast.List, patterns: tuple[str, ...]) -> Edit:
    start = _offset(document, script, old.lineno, old.col_offset)
    end = _offset(document, script, old.end_lineno or 0, old.end_col_offset or 0)
    return Edit(start, end, _written(patterns))


def _written(patterns: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


def _covers(present: tuple[str, ...], needed: tuple[str, ...]) -> bool:
    """Return whether the patterns select the same weights and configuration as the needed ones."""
    weights = [each for each in needed if not each.startswith("*")]
    examples = [*(weight.replace("-*-", "-00001-") for weight in weights), "config.json"]
    return all(any(fnmatchcase(example, pattern) for pattern in present) for example in examples)


def _names_of_the_function(tree: ast.Module) -> set[str]:
    names = {f"huggingface_hub.{_FUNCTION}"}
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("huggingface_hub"):
            names |= {alias.asname or alias.name for alias in each.names if alias.name == _FUNCTION}
        elif isinstance(each, ast.Import):
            names |= {
                f"{alias.asname or alias.name}.{_FUNCTION}" for alias in each.names if alias.name == "huggingface_hub"
            }
    return names


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return f"{module}.{name}"
        case _:
            return ""


def _is_list_of_words(value: ast.expr) -> bool:
    return isinstance(value, ast.List) and all(
        isinstance(elt, ast.Constant) and isinstance(elt.value, str) for elt in value.elts
    )


def _line_of(script: Script, number: int) -> int:
    """The file's line (from 0) of a line of the script (from 1): the block begins on the line after its `|`."""
    return int(script.node.start_mark.line) + number


def _offset(document: Document, script: Script, number: int, column: int) -> int:
    """The file's offset of a position in the script; `ast` counts columns in bytes of UTF-8."""
    text = str(script.node.value).splitlines()[number - 1]
    line = _line_of(script, number)
    lead = document.lines[line].index(text) if text else 0
    return document.offset(line) + lead + len(text.encode()[:column].decode())
