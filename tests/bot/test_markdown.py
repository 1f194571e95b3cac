"""Text from outside in a pull request is text: GitHub finds no mention, reference, link or format in it."""

import re

import pytest
from markdown_it import MarkdownIt

from bot.text.markdown import cell, code, prose, text

HOSTILE = (
    "@acme/admins",
    "cc @ada, please",
    "fixes #1",
    "closes acme/other#12",
    "resolves GH-7",
    "fixes https://github.com/acme/platform/issues/1",
    "www.evil.example",
    "[Approve](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "<img src=x>",
    "<!-- hidden",
    "a | b",
    "**bold** _it_ ~~no~~",
    "`code` ```fence",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "one\n\n## two\n\nRequested-by: U1",
    "&lt;b&gt; &#64;ada",
    "\u200b@ada \u202e#1",
    "\\@ada \\#1 \\[x](y)",
)
_LIVE = re.compile(r"(?<!\w)@\w|#\d|\bGH-\d|https?://|www\.", re.IGNORECASE)
"""Text that GitHub would turn into a mention, a reference or a link."""


def _tokens(markdown: str) -> list[tuple[str, str]]:
    """Return the kinds and texts of the tokens of GitHub's Markdown, with HTML."""
    parsed = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    return [(token.type, token.content) for block in parsed for token in ([block, *(block.children or ())])]


@pytest.mark.parametrize("escape", [text, prose])
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "- {}", "asked: {}", "| a | b |\n| --- | --- |\n| x | {} |"])
def test_external_text_stays_text(hostile: str, around: str, escape: object) -> None:
    assert callable(escape)
    plain, tokens = _tokens(around.format("plain")), _tokens(around.format(escape(hostile)))
    inside = [
        (kind, content) for kind, content in tokens if kind not in ("text", "code_inline", "text_special", "inline")
    ]
    assert inside == [(kind, content) for kind, content in plain if kind not in ("text", "inline")]
    visible = "".join(content for kind, content in tokens if kind in ("text", "text_special"))
    assert not _LIVE.search(visible)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_code_stays_one_code_span(hostile: str) -> None:
    tokens = _tokens(f"| a | b |\n| --- | --- |\n| x | {cell(code(hostile))} |")
    assert [kind for kind, _ in tokens].count("td_open") == 2
    assert len([kind for kind, _ in tokens if kind == "code_inline"]) == 1


def test_ordinary_words_are_written_as_they_are() -> None:
    for words in (
        "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
        "image@sha256:1234",
        "--max-num-seqs=8",
        "a_b 16k, 20 GiB (ok)",
    ):
        assert text(f"is {words}") == f"is {words}"
    assert prose("set `--max_model_len=4096` now") == "set `--max_model_len=4096` now"
