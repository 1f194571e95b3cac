"""The pull request's text, which a reviewer reads together with the diff."""

from pathlib import Path

import pytest

from bot.platform.change_planning import Options, Verb, plan_change, pull_body
from bot.settings.config import Config
from manifests.change import Change
from manifests.sizing import ModelFacts
from manifests.tree import Checkout
from tests.manifests.models import BGE_SMALL, CODER_3B, CODER_7B_AWQ, CODER_14B_AWQ, NOMIC

SAMPLE = Checkout(Path(__file__).parents[2] / "sandbox" / "platform")


def change(verb: Verb, name: str, facts: ModelFacts | None = None, options: Options = ()) -> Change:
    return plan_change(SAMPLE, Config(), verb, name, options, facts)


def test_the_text_of_a_swap() -> None:
    """The change and its reason come first, then the contract with its previous values, the sizes, tests, warnings and
    next steps.
    """
    text = pull_body(change("swap", "coder-chat", CODER_3B), origin="Asked by `U1`", reason="cheaper", operation="op1")
    assert text.startswith(
        "Swaps coder-chat from Qwen/Qwen2.5-Coder-7B-Instruct-AWQ to Qwen/Qwen2.5-Coder-3B-Instruct.\n\n"
        "Asked by `U1`: `cheaper`\n\n## The contract\n"
    )
    assert "| Quantization | none | awq_marlin |\n" in text
    assert "| Tenant alias | coder-chat |  |\n" in text
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["## The contract", "## Sizing: fits", "## Smoke tests", "## Warnings", "## After the merge"]
    assert "(`/gpu up coder-chat`), and during this roll-out if it is up:" in text
    assert "`/v1/models` lists exactly `qwen2.5-coder-3b-instruct`" in text
    assert "a key for `coder-chat` only" in text
    assert "syncs the Application coder-chat at the merge commit" in text
    assert text.endswith("To undo this, revert this pull request.\n\n<sub>Operation op1</sub>\n")


@pytest.mark.parametrize(
    ("verb", "name", "facts", "first", "tests", "follows"),
    [
        (
            "add",
            "mini",
            CODER_3B,
            "Adds the endpoint mini, which serves Qwen",
            "a chat completion request",
            "waits for LiteLLM",
        ),
        (
            "add",
            "v",
            BGE_SMALL,
            "Adds the endpoint v, which serves BAAI",
            "an embedding request gets an answer",
            "sync automatically",
        ),
        (
            "swap",
            "embeddings",
            NOMIC,
            "Swaps embeddings from BAAI/",
            "an embedding request gets an answer",
            "sync automatically",
        ),
        (
            "remove",
            "coder-fim",
            None,
            "Removes the endpoint coder-fim, which serves Qwen",
            "",
            "has synced the merge commit",
        ),
    ],
)
def test_the_text_has_the_next_steps_of_each_kind_of_change(
    verb: Verb, name: str, facts: ModelFacts | None, first: str, tests: str, follows: str
) -> None:
    """The tests depend on the endpoint's kind, and a removal has no tests; the next steps depend on the sync policy."""
    text = pull_body(change(verb, name, facts), origin="Asked by `U1`", operation="op1")
    assert text.startswith(first)
    assert tests in text
    assert ("## Smoke tests" in text) == bool(tests)
    assert follows in text


def test_other_settings_of_the_same_model_are_not_called_a_swap() -> None:
    """The subject does not name an unchanged model."""
    settings_change = change("swap", "coder-chat", CODER_7B_AWQ, (("context", "8192"),))
    assert settings_change.title == "feat(serving): change the settings of coder-chat"
    text = pull_body(settings_change, origin="Asked from a terminal by `ann`", reason="a `short`\none | two")
    assert text.startswith("Changes how coder-chat serves Qwen/Qwen2.5-Coder-7B-Instruct-AWQ.\n")
    assert "by `ann`: `a ˋshortˋ one | two`\n" in text
    assert "| Context | 8192 | 16384 |\n" in text
    assert "must be synced manually" in text


def test_a_volume_that_grows_is_in_the_table() -> None:
    """The figures are those that a reviewer would calculate."""
    text = pull_body(change("swap", "coder-fim", CODER_14B_AWQ, (("kind", "completion"),)), origin="Asked by `U1`")
    assert "| Volume | coder-fim-model-cache, 15Gi | coder-fim-model-cache, 10Gi |\n" in text
