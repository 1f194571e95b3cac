"""Help texts, and the answers to typos."""

from pathlib import Path

import pytest

from commands.guide import Names, guide, unknown
from commands.help_topics import COMMANDS
from commands.parsing import Misunderstood

HERE = Names(gpu="coder-chat", any="embeddings")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_has_help_with_an_example(name: str) -> None:
    """`help VERB` shows the command as it is typed, with an endpoint of this platform."""
    everything = guide(name, "", HERE)
    for topic in COMMANDS[name].topics:
        assert f"`{name} {topic.verb}" in everything
        assert f"For example: `{name} {topic.verb}" in guide(name, topic.verb, HERE)
    assert "{" not in everything


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_is_on_the_page_of_its_command(name: str) -> None:
    """docs/gpu.md and docs/model.md contain all verbs."""
    page = (Path(__file__).parents[2] / "docs" / f"{name[1:]}.md").read_text(encoding="utf-8")
    assert [topic.verb for topic in COMMANDS[name].topics if f"`{name} {topic.verb}" not in page] == []


def test_examples_name_endpoints_of_this_platform() -> None:
    """The examples do not contain an endpoint that does not exist here."""
    assert "`/gpu up llama for 2h" in guide("/gpu", "up", Names(gpu="llama", any="llama"))


@pytest.mark.parametrize(
    ("command", "typed", "suggestion"),
    [
        ("/gpu", "stauts", "/gpu status"),
        ("/gpu", "pu coder-chat for 2h", "/gpu up coder-chat for 2h"),
        ("/gpu", "start coder-chat", "/gpu up coder-chat"),
        ("/gpu", "list", "/model list"),
        ("/model", "up coder-chat", "/gpu up coder-chat"),
        ("/model", "delete coder-mini", "/model remove coder-mini"),
        ("", "stop", "gpu down"),
        ("", "upp coder-chat for 2h because of a demo", "gpu up coder-chat for 2h because of a demo"),
        ("/model", "swpa coder-chat org/model context=8192", "/model swap coder-chat org/model context=8192"),
        ("/gpu", "bring up coder-chat", "/gpu up coder-chat"),
        ("", "Bring down", "gpu down"),
    ],
)
def test_the_probably_intended_command_is_suggested(command: str, typed: str, suggestion: str) -> None:
    """The suggestion for a typo, a synonym, or a verb of the other command includes the rest of the line."""
    message = unknown(command, typed).message
    assert f"Did you mean `{suggestion}`?" in message
    assert "\n" not in message


def test_an_unknown_verb_without_a_similar_one_gets_the_list() -> None:
    """The list contains the verbs of the command, or of both commands if there is none."""
    assert "Did you mean" not in unknown("/gpu", "zzz").message
    assert "`/gpu down [NAME]`" in unknown("/gpu", "zzz").message
    assert "`/model list [WORD …]`" in unknown("", "zzz").message


@pytest.mark.parametrize(
    "sentence",
    ["please bring coder-chat down", "please help", "pease check the logs", "adding one more model there", "is it up?"],
)
def test_no_verb_is_guessed_from_a_sentence(sentence: str) -> None:
    """`please` is similar to `release`, which ends another person's session."""
    assert "Did you mean" not in unknown("", sentence).message


@pytest.mark.parametrize("word", ["approve", "Approved!", "deny", "LGTM"])
def test_a_typed_decision_is_answered_with_a_link_to_the_card(word: str) -> None:
    """`approve` is spelt like `remove`."""
    message = unknown("", word).message
    assert "Did you mean" not in message
    assert "use the buttons on its card" in message


def test_typed_text_is_shown_as_text() -> None:
    """The text is escaped even if it is a mention or would end a code span."""
    message = unknown("/gpu", "`<!channel>` *x*").message
    assert "<!channel>" not in message
    assert "Unknown command: `/gpu ˋ&lt;!channel&gt;ˋ`." in message


def test_help_about_an_unknown_verb_is_an_error() -> None:
    """`/gpu help fly` has no help text."""
    with pytest.raises(Misunderstood, match="Unknown command: /gpu fly"):
        guide("/gpu", "fly", HERE)
