"""The architecture document matches the code, and no file is too long."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import IN_ONE_PROCESS

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("bot", "commands", "manifests", "sandbox", "tests", "docs", "benchmarks")
LONGEST = 500
"""Lines of a Python file. A longer one is split by concept."""
CEILINGS: dict[str, int] = {}
"""The files that have not been split yet, with the lines that each may have. The list may only become shorter."""

WIRING = {
    "bot/app.py": {"_serve"},
    "bot/tasks.py": {"all_tasks"},
    "bot/wiring.py": {"__init__"},
    "commands/listeners.py": {"register"},
}
"""The functions that may take all services, because they construct objects with them. The design's goal is fewer than 20."""

PATHS = set(re.findall(rf"(?<![\w/.])(?:{'|'.join(PACKAGES)})/(?:[\w-]+/)*(?:[\w-]+\.\w+)?", DOCUMENT))
NAMES = set(re.findall(r"`([\w-]+\.(?:py|md|toml|lock))`", DOCUMENT))
MODULES = set(re.findall(rf"`((?:{'|'.join(PACKAGES)})(?:\.[a-z_]+)+)`", DOCUMENT)) - PATHS


def exists(path: str) -> bool:
    return (ROOT / path).exists()


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_in_the_architecture_document_exists(path: str) -> None:
    assert exists(path)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_file_that_is_named_without_its_directory_exists(name: str) -> None:
    assert exists(name) or any(next((ROOT / package).rglob(name), None) for package in PACKAGES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_in_the_architecture_document_exists(module: str) -> None:
    path = module.replace(".", "/")
    assert exists(f"{path}.py") or exists(path)


MOST_MODULES = 15
"""Modules at the top of `bot/`; a new one belongs in a package."""


def test_every_part_of_the_bot_is_in_the_architecture_document() -> None:
    """Each module at the top of `bot/` and each package is named."""
    modules = {f"bot/{file.name}" for file in (ROOT / "bot").glob("*.py") if not file.name.startswith("__")}
    packages = {f"bot/{file.parent.name}/" for file in (ROOT / "bot").glob("*/__init__.py")}
    assert (modules | packages) - PATHS == set()
    assert len(modules) <= MOST_MODULES


WALKS = ("`/gpu up` in ten steps", "`/model swap` in ten steps")
MOST_FILES = 12
"""The files on the way from a command to its end."""
CALLED_FROM_OUTSIDE = {"commands/gpu/command.py", "commands/model.py", "commands/approval.py", "bot/tasks.py"}
"""Slack calls the listeners, and docket the tasks; every other file of a walk is imported by an earlier one."""


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_has_ten_steps_and_at_most_twelve_files(title: str) -> None:
    """Each file of the walk is reached from an earlier one, so a reader can follow the calls."""
    section = DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^(\d+)\. ", section) == [str(number) for number in range(1, 11)]
    files = list(dict.fromkeys(re.findall(r"`((?:bot|commands|manifests)/[\w/]+\.py)`", section)))
    assert len(files) <= MOST_FILES
    reached: set[str] = set()
    for file in files:
        module = file.removesuffix(".py").replace("/", ".")
        assert file in CALLED_FROM_OUTSIDE or reached & {module, module.rpartition(".")[0]}, f"nothing leads to {file}"
        reached |= imported(ast.parse((ROOT / file).read_text(encoding="utf-8")))


def imported(tree: ast.Module) -> set[str]:
    """Return the modules and packages that a module imports from."""
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def test_the_document_names_many_files() -> None:
    """The patterns above still match."""
    assert len(PATHS) > 40
    assert len(NAMES) > 10
    assert MODULES


def test_no_file_is_too_long() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    lines = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8").count("\n") for file in files}
    assert {name: count for name, count in lines.items() if count > CEILINGS.get(name, LONGEST)} == {}


def takes_everything(tree: ast.Module) -> Iterator[str]:
    """The functions that take, and the classes that keep, all services or all objects of the wiring; also those that
    look them up.
    """
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
                parameters = [*args.posonlyargs, *args.args, *args.kwonlyargs]
                calls = [child.func for child in ast.walk(node) if isinstance(child, ast.Call)]
                if any(_is_everything(parameter.annotation) for parameter in parameters) or any(
                    isinstance(call, ast.Name) and call.id == "Wiring" for call in calls
                ):
                    yield node.name
            case ast.ClassDef(body=body):
                if any(
                    isinstance(statement, ast.AnnAssign) and _is_everything(statement.annotation) for statement in body
                ):
                    yield node.name


def _is_everything(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(re.search(r"\b(Services|Wiring)\b", ast.unparse(annotation)))


def test_only_the_wiring_takes_all_services() -> None:
    """The signature of a function, or the fields of a class, show what its code can use."""
    users_of_everything = {}
    for file in (file for package in ("bot", "commands") for file in (ROOT / package).rglob("*.py")):
        if names := set(takes_everything(ast.parse(file.read_text(encoding="utf-8")))):
            users_of_everything[file.relative_to(ROOT).as_posix()] = names
    assert users_of_everything == WIRING


def test_tests_that_share_a_fixture_run_in_one_process() -> None:
    """Otherwise each process would set the fixture up for each test, because it runs tests of other modules in between."""
    tests = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)]
    sharing = {file for file in tests if 'scope="module")\nasync def ' in file.read_text(encoding="utf-8")}
    assert sharing
    assert {file.relative_to(ROOT).as_posix() for file in sharing} <= IN_ONE_PROCESS


MOST_DEPENDENCIES = 11
"""Fields of a component. A class with more fields does several things, and is split by duty."""


def test_no_component_has_too_many_dependencies() -> None:
    files = [file for package in ("bot", "commands") for file in (ROOT / package).rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    components = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and _is_component(node)
    ]
    counts = {node.name: sum(isinstance(field, ast.AnnAssign) for field in node.body) for node in components}
    assert {name: count for name, count in counts.items() if count > MOST_DEPENDENCIES} == {}
    assert len(components) > 50


def _is_component(node: ast.ClassDef) -> bool:
    return "component" in map(ast.unparse, node.decorator_list)


def unused_fields(tree: ast.Module) -> Iterator[str]:
    """The dependencies that a component names and does not use."""
    for node in (child for child in ast.walk(tree) if isinstance(child, ast.ClassDef)):
        if _is_component(node):
            fields = {ast.unparse(field.target) for field in node.body if isinstance(field, ast.AnnAssign)}
            used = {ast.unparse(child) for child in ast.walk(node) if isinstance(child, ast.Attribute)}
            yield from (f"{node.name}.{field}" for field in fields if f"self.{field}" not in used)


def test_a_component_uses_each_of_its_dependencies() -> None:
    files = [file for package in ("bot", "commands") for file in (ROOT / package).rglob("*.py")]
    unused = {name for file in files for name in unused_fields(ast.parse(file.read_text(encoding="utf-8")))}
    parts = {"BringUpWorkflow.planning", "BringUpWorkflow.execution", "BringUpWorkflow.rollback"}
    assert unused == parts  # `bot/workflows/__init__.py` uses these
