"""The list of endpoints: no endpoint is split between two pages, and words filter the list."""

import dataclasses

import pytest

from bot.views.blocks import Blocks
from bot.views.endpoint_list import HOME_NEXT, LIST_NEXT, LIST_PREVIOUS, Search, in_home, listing
from bot.views.endpoints import EndpointState
from bot.views.older import older
from sandbox.slack import blocks as kit
from tests.bot.test_view_snapshots import ENDPOINTS
from tests.bot.view_examples import complaints, form_complaints


def endpoints(count: int) -> list[EndpointState]:
    first, second = ENDPOINTS
    return [
        dataclasses.replace(
            first if number % 3 else second,
            state="up" if number % 100 == 7 else "down",
            endpoint=first.endpoint.model_copy(
                update={"name": f"{'fim' if number % 10 == 0 else 'chat'}-{number:03}", "alias": ""}
            ),
        )
        for number in range(count)
    ]


def button(blocks: Blocks, action: str) -> str | None:
    """The value of a button, if it is there."""
    values = [
        control.element["value"] for control in kit.controls(blocks) if control.element.get("action_id") == action
    ]
    return values[0] if values else None


def pages(count: int, words: tuple[str, ...] = ()) -> list[Blocks]:
    """The pages of `/model list`, each opened with the button *Next* of the previous page."""
    search: Search | None = Search(words)
    found_pages = []
    while search is not None:
        view = listing(endpoints(count), "a" * 40, search)
        assert complaints(view) == []
        found_pages.append(view.blocks)
        value = button(view.blocks, LIST_NEXT)
        search = Search.of_value(value) if value else None
    return found_pages


def names(blocks: Blocks) -> list[str]:
    (table,) = [block for block in blocks if block["type"] == "data_table"]
    return [row[0]["text"] for row in table["rows"][1:]]


def test_three_hundred_endpoints_are_on_pages() -> None:
    """Every endpoint appears completely and once, even with older blocks; the buttons lead forward and back."""
    found_pages = pages(300)
    assert [name for page in found_pages for name in names(page)] == [state.endpoint.name for state in endpoints(300)]
    assert all(len(names(page)) == 25 for page in found_pages)
    assert button(found_pages[0], LIST_PREVIOUS) is None
    assert button(found_pages[3], LIST_PREVIOUS) == "2"
    for page in found_pages:
        text = kit.visible_text(older(page), str)
        assert all(f"{name} — " in text for name in names(page))
        assert "…" not in text


def test_words_filter_the_list() -> None:
    """Every word must match, and the words stay when the page changes."""
    assert [name for page in pages(300, ("fim",)) for name in names(page)] == [f"fim-{n:03}" for n in range(0, 300, 10)]
    assert button(pages(300, ("fim",))[0], LIST_NEXT) == "1 fim"
    assert [name for page in pages(300, ("up", "gpu")) for name in names(page)] == ["chat-007", "chat-107", "chat-207"]
    (none,) = [listing(endpoints(3), "a" * 40, Search(("llama",)))]
    assert "No endpoint matches" in none.text


@pytest.mark.parametrize("text", ["", "0", "x y", "-1 fim", "99999999999 fim", "7 fim"])
def test_any_value_of_a_button_is_a_search(text: str) -> None:
    """An old or forged value shows an existing page."""
    view = listing(endpoints(60), "a" * 40, Search.of_value(text))
    assert complaints(view) == []


def test_home_shows_three_hundred_endpoints_in_pages() -> None:
    """The list has a search field, and no endpoint is split between two pages."""
    search, texts = Search(), []
    while True:
        blocks = in_home(endpoints(300), search)
        assert form_complaints({"type": "home", "blocks": blocks}) == []
        texts.append(kit.visible_text(blocks, str))
        if not (value := button(blocks, HOME_NEXT)):
            break
        search = Search.of_value(value)
    assert len(texts) == 12
    assert all(sum(f" {state.endpoint.name} — " in page for page in texts) == 1 for state in endpoints(300))
    assert "…" not in "".join(texts)


def test_endpoints_are_sorted_by_their_price_per_million_tokens() -> None:
    """The cell shows the price, and its value is the price of a million tokens."""
    (table,) = [block for block in pages(2)[0] if block["type"] == "data_table"]
    prices = {(cell["value"], cell["text"]) for row in table["rows"][1:] if (cell := row[3])["value"]}
    assert prices == {(0.5, "$0.50 in, $1.50 out")}
