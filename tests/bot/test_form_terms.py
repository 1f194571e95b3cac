"""A form reports errors in options under the names of its fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import manifests
from bot.views.form_terms import LABELS, in_form
from bot.views.modals import ChangeForm, advanced_form, change_form
from sandbox.slack import blocks as kit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ask for context=49216 or less.", "Ask for “Context” 49216 or less."),
        ("Name another template with like=.", "Name another template with “Copy from”."),
        ("nothing there tells; ask for storage=20Gi", "nothing there tells; ask for “Volume” 20Gi"),
        ("give the new model's parser with arg=--tool-call-parser=hermes.", "give the new model's parser with “Arguments of vLLM” --tool-call-parser=hermes."),
        ("(price-in=, price-out=)", "(“Price per million input tokens, dollars”, “Price per million output tokens, dollars”)"),
        ("--quantization=awq, and --served-model-name=x", "--quantization=awq, and --served-model-name=x"),
        ("VLLM_CPU_KVCACHE_SPACE=4, my-memory=1", "VLLM_CPU_KVCACHE_SPACE=4, my-memory=1"),
    ],
)  # fmt: skip
def test_options_are_named_as_fields(text: str, expected: str) -> None:
    """Arguments of the engine and other words are not changed."""
    assert in_form(text) == expected


def test_each_option_has_its_field() -> None:
    """If an error names a field, a form has that field."""
    options = tuple((key, "7") for key in LABELS if key not in ("like", "context", "served"))
    pages = [change_form(ChangeForm(verb="add", names=("a",), options=options)), advanced_form("add", (), "{}")]
    labels = {block["label"]["text"] for page in pages for block in page["blocks"] if "label" in block}
    assert set(LABELS.values()) <= labels
    assert "price-in" not in kit.visible_text(pages[0]["blocks"], lambda name: name)


def _messages() -> Iterator[str]:
    """Yield the texts of several words in manifests/, without docstrings."""
    for path in Path(manifests.__path__[0]).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {statement.value for statement in ast.walk(tree) if isinstance(statement, ast.Expr)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and node not in docstrings
                and isinstance(node.value, str)
                and " " in node.value
            ):
                yield node.value


def test_messages_name_options_that_exist() -> None:
    """A message such as "Set the price with price-in=" names an option of the commands."""
    named = {option for text in _messages() for option in re.findall(r"(?<=[ (`])([a-z][a-z-]+)=(?=[\s,.;)`]|$)", text)}
    assert {"like", "price-in", "price-out"} <= named <= set(LABELS)
