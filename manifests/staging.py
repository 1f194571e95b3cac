"""The script that stages weights: its downloads, and the edit that limits them to the files that the engine loads.

It is a Python script in the initContainer (`python3 -c`); only its calls of `snapshot_download` are edited. Other
scripts are not changed and download the whole repository.
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
"""Patterns are added only if the repository is larger than the engine's files by more than this factor."""


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
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assigned = {
        statement.targets[0].id: statement
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    }
    called = _names_of_the_function(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called_name(node) in called]
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


def downloaded_bytes(pieces: Pieces, facts: ModelFacts) -> int:
    """The bytes that the endpoint's script writes to the volume for a model, after `with_patterns`."""
    scripts = _scripts(pieces.staging)
    if not scripts or not facts.allow_patterns:
        return facts.staged
    for script in scripts:
        if script is None or (script.patterns and _has_custom_patterns(script, facts)):
            return max(
                facts.repo_bytes, facts.staged
            )  # an upper bound, because the files that custom patterns select are unknown
    return facts.staged


def remaining_bytes(pieces: Pieces, weight_bytes: int, repo_bytes: int) -> int:
    """The bytes of the current model that stay on the volume after a swap."""
    scripts = _scripts(pieces.staging)
    has_whole_repository = any(script is None or not script.patterns for script in scripts)
    return max(repo_bytes, weight_bytes) if has_whole_repository else weight_bytes


def with_patterns(document: Document, facts: ModelFacts) -> Document:
    """The document with its script limited to the files that the engine loads.

    Patterns are added if the repository contains more than these files, and replaced if the existing patterns do not
    select the new model's files. Otherwise existing patterns stay.
    """
    edits: list[Edit] = []
    nodes = tuple(node for node in scalars(document.roots) if node.style == "|" and facts.hf_id in node.value)
    for script in filter(None, _scripts(nodes)):
        if not facts.allow_patterns:
            continue
        if script.lists:
            if not _has_custom_patterns(script, facts) and set(script.patterns) != set(facts.allow_patterns):
                edits += [
                    _replaced_patterns(document, script, pattern_list, facts.allow_patterns)
                    for pattern_list in script.lists
                ]
        elif _can_save(facts):
            edits += _added_patterns(document, script, facts.allow_patterns)
    return document.apply(edits)


def warnings(pieces: Pieces, facts: ModelFacts) -> tuple[str, ...]:
    """Warnings about a script that Stoker cannot change."""
    if not _can_save(facts) or all(_scripts(pieces.staging)):
        return ()
    patterns = ", ".join(f'"{pattern}"' for pattern in facts.allow_patterns)
    return (
        f"The initContainer downloads the whole repository ({in_gb(facts.repo_bytes)}), of which the engine loads"
        f" {in_gb(facts.staged)}, and Stoker cannot edit its script, so the volume is sized for the whole repository."
        f" snapshot_download takes allow_patterns=[{patterns}].",
    )


def _scripts(nodes: Iterable[ScalarNode]) -> list[Script | None]:
    return [read_script(node) for node in nodes if "download" in node.value]


def _can_save(facts: ModelFacts) -> bool:
    return bool(facts.allow_patterns) and facts.repo_bytes > facts.staged * _SPARE


def _has_custom_patterns(script: Script, facts: ModelFacts) -> bool:
    """Return whether the patterns in a script are custom and select the files that the model needs."""
    return set(script.patterns) != set(facts.allow_patterns) and _select_same_files(
        script.patterns, facts.allow_patterns
    )


def _added_patterns(document: Document, script: Script, patterns: tuple[str, ...]) -> Iterator[Edit]:
    name = next(
        candidate
        for candidate in ("patterns", "allow_patterns", "files_of_the_engine")
        if candidate not in script.names
    )
    argument = name if len(script.models) == 1 else _as_python_list(patterns)
    if len(script.models) == 1:
        line = _line_of(script, script.models[0].end_lineno or script.models[0].lineno)
        prefix = document.lines[line][: len(document.lines[line]) - len(document.lines[line].lstrip())]
        yield document.insert_lines(line + 1, f"{prefix}{name} = {_as_python_list(patterns)}\n")
    for call in script.calls:
        offset = _offset(document, script, call.args[0].end_lineno or 0, call.args[0].end_col_offset or 0)
        yield Edit(offset, offset, f", allow_patterns={argument}")


def _replaced_patterns(document: Document, script: Script, old: ast.List, patterns: tuple[str, ...]) -> Edit:
    start = _offset(document, script, old.lineno, old.col_offset)
    end = _offset(document, script, old.end_lineno or 0, old.end_col_offset or 0)
    return Edit(start, end, _as_python_list(patterns))


def _as_python_list(patterns: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


def _select_same_files(present: tuple[str, ...], needed: tuple[str, ...]) -> bool:
    """Return whether the patterns select the same weights and configuration as the needed patterns."""
    weights = [pattern for pattern in needed if not pattern.startswith("*")]
    examples = [*(weight.replace("-*-", "-00001-") for weight in weights), "config.json"]
    return all(any(fnmatchcase(example, pattern) for pattern in present) for example in examples)


def _names_of_the_function(tree: ast.Module) -> set[str]:
    names = {f"huggingface_hub.{_FUNCTION}"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("huggingface_hub"):
            names |= {alias.asname or alias.name for alias in node.names if alias.name == _FUNCTION}
        elif isinstance(node, ast.Import):
            names |= {
                f"{alias.asname or alias.name}.{_FUNCTION}" for alias in node.names if alias.name == "huggingface_hub"
            }
    return names


def _called_name(call: ast.Call) -> str:
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
    """The file's line (from 0) of a line of the script (from 1): the literal block begins on the line after its key."""
    return int(script.node.start_mark.line) + number


def _offset(document: Document, script: Script, number: int, column: int) -> int:
    """The offset in the file of a position in the script, whose column is in bytes of UTF-8, as in `ast`."""
    text = str(script.node.value).splitlines()[number - 1]
    line = _line_of(script, number)
    prefix = document.lines[line].index(text) if text else 0
    return document.offset(line) + prefix + len(text.encode()[:column].decode())
