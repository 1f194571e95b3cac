"""What help says, and what a typo gets."""

import pytest

from commands import gpu, model
from commands.guide import Names, Topic, guide, unknown
from commands.words import Misunderstood

HERE = Names(gpu="coder-chat", any="embeddings")


@pytest.mark.parametrize("noun", [gpu, model])
def test_every_verb_has_help_with_an_example(noun: object) -> None:
    """`help VERB` names the command as one types it, and an endpoint of this platform where one is needed."""
    name = f"/{str(noun.__name__).rpartition('.')[2]}"  # type: ignore[attr-defined]
    topics: tuple[Topic, ...] = noun.TOPICS  # type: ignore[attr-defined]
    everything = guide(name, "about", topics, "", HERE)
    for topic in topics:
        assert f"`{name} {topic.verb}" in everything
        assert f"For example: `{name} {topic.verb}" in guide(name, "about", topics, topic.verb, HERE)
    assert "{" not in everything


def test_examples_name_endpoints_of_this_platform() -> None:
    """Not some coder-chat that is not here."""
    assert "`/gpu up llama for 2h" in guide("/gpu", "", gpu.TOPICS, "up", Names(gpu="llama", any="llama"))


def test_a_typo_gets_the_nearest_verb_and_the_list() -> None:
    """`stauts` is nearly `status`; what is like nothing gets the list alone."""
    said = unknown("/gpu", "stauts", gpu.TOPICS).message
    assert "Did you mean `/gpu status`?" in said
    assert "`/gpu down [NAME]`" in said
    assert "Did you mean" not in unknown("/gpu", "zzz", gpu.TOPICS).message


def test_what_was_typed_is_shown_as_text() -> None:
    """Also when it is a mention or would end a code span."""
    said = unknown("/gpu", "`<!channel>` *x*", gpu.TOPICS).message
    assert "<!channel>" not in said
    assert "I don't know `/gpu ˋ&lt;!channel&gt;ˋ *x*`." in said


def test_help_about_nothing_is_said_so() -> None:
    """`/gpu help fly` is no help."""
    with pytest.raises(Misunderstood, match="I don't know `/gpu fly`"):
        guide("/gpu", "", gpu.TOPICS, "fly", HERE)
