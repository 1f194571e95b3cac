"""The list of endpoints with its filter and its pages, for `/model list` and Home."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from bot.text.mrkdwn import Mrkdwn, md
from bot.views.blocks import Block, Blocks, View, actions, button, context, plain_text, section, sections
from bot.views.endpoints import FORGOTTEN, ICON, EndpointState, about, in_two_lines, price, state_in_words
from bot.views.newer import TABLE_CHARACTERS, Cell, Number, characters, data_table
from bot.views.text import code, inline
from manifests.frozen import frozen

T = TypeVar("T")
LIST_PREVIOUS, LIST_NEXT = "list_previous", "list_next"
HOME_PREVIOUS, HOME_NEXT, HOME_SEARCH = "home_previous", "home_next", "home_search"
"""The buttons below a page of the list, and the search field of Home."""

_PAGE, _PAGE_CHARACTERS = 25, 9_000
"""Maximum number of endpoints on a page, and of characters if it is converted to older blocks."""
_COLUMNS = ("Endpoint", "State", "Model", "$ per million tokens", "Details")
_WORDS, _LONGEST = 8, 60
_HELP = md(
    "Search for parts of a name, an alias, a model or a group, or for `up`, `down`, `booting`, `failing`, `drifted`, "
    "`held`, `gpu` or `cpu`."
)
_STATES: dict[str, Callable[[EndpointState], bool]] = {
    "up": lambda endpoint: endpoint.state == "up",
    "down": lambda endpoint: endpoint.state in ("down", "not deployed"),
    "booting": lambda endpoint: endpoint.state == "booting",
    "failing": lambda endpoint: endpoint.state == "not serving",
    "drifted": lambda endpoint: bool(endpoint.drift),
    "held": lambda endpoint: endpoint.lease is not None,
    "gpu": lambda endpoint: bool(endpoint.endpoint.gpus),
    "cpu": lambda endpoint: not endpoint.endpoint.gpus,
}


@frozen
class Search:
    """The search words, which must all match, and the page of the result, counted from 0."""

    words: tuple[str, ...] = ()
    page: int = 0

    @classmethod
    def read(cls, text: str, page: int = 0) -> "Search":
        return cls(tuple(word[:_LONGEST].lower() for word in text.split()[:_WORDS]), page)

    @property
    def value(self) -> str:
        """The value of a button: the page and the words."""
        return " ".join((str(self.page), *self.words))

    @classmethod
    def of_value(cls, value: str) -> "Search":
        page, _, words = value.partition(" ")
        return cls.read(words, int(page) if page.isdecimal() and len(page) < 6 else 0)

    def at(self, page: int) -> "Search":
        return Search(self.words, page)


def matching(states: Sequence[EndpointState], search: Search) -> tuple[EndpointState, ...]:
    return tuple(state for state in states if all(_matches(state, word) for word in search.words))


def _matches(state: EndpointState, word: str) -> bool:
    if has_state := _STATES.get(word):
        return has_state(state)
    served = state.endpoint
    parts = (served.name, served.alias, served.hf_id, served.served_name, served.group, served.kind)
    return any(word in part.lower() for part in parts)


def listing(states: Sequence[EndpointState], commit: str, search: Search | None = None) -> View:
    """A page of the list as a table, with the buttons of the other pages."""
    search = search or Search()
    if not states:
        return View(
            *_line(md("There are no endpoints yet. `/model add NAME HF_ID` opens a pull request that adds one."))
        )
    matches = matching(states, search)
    title = _title(states, matches, search, md(" at {commit}", commit=code(commit[:10])))
    if not matches:
        return View(*_line(md("{title}\n{help}", title=title, help=_HELP)))
    rows = [(_row(state), in_two_lines(state)) for state in matches]
    pages = list(_pages(rows, lambda row: max(len(row[1]), characters((), [row[0]]))))
    page = min(search.page, len(pages) - 1)
    blocks: Blocks = [section(title)]
    blocks += [] if all(state.remembered for state in states) else [section(FORGOTTEN)]
    blocks.append(data_table(_caption(page, pages), _COLUMNS, [row for row, _ in pages[page]], page=_PAGE))
    blocks += _turns(search.at(page), len(pages), LIST_PREVIOUS, LIST_NEXT)
    return View(text=title, blocks=blocks)


def in_home(states: Sequence[EndpointState], search: Search) -> Blocks:
    """A page of the list in Home, below its search field."""
    if not states:
        return [section(md("There are no endpoints yet."))]
    matches = matching(states, search)
    pages = list(_pages([in_two_lines(state) for state in matches], len))
    page = min(search.page, max(len(pages) - 1, 0))
    blocks = [_search_field(search)] if len(states) > 1 else []
    if search.words or len(pages) > 1:
        blocks.append(context(_title(states, matches, search, md(""))))
    blocks += sections(pages[page]) if pages else [section(_HELP)]
    return blocks + _turns(search.at(page), len(pages), HOME_PREVIOUS, HOME_NEXT)


def _line(text: Mrkdwn) -> tuple[Mrkdwn, Blocks]:
    return text, [section(text)]


def _title(states: Sequence[EndpointState], matches: Sequence[EndpointState], search: Search, commit: Mrkdwn) -> Mrkdwn:
    s = "s" if len(states) > 1 else ""
    if not search.words:
        return md("*{count} endpoint{s}*{commit}", count=len(states), s=s, commit=commit)
    words = md(" ").join(code(word) for word in search.words)
    if not matches:
        return md(
            "No endpoint matches {words} among the {count} endpoint{s}{commit}.",
            words=words,
            count=len(states),
            s=s,
            commit=commit,
        )
    return md(
        "*{n} of {count} endpoint{s}*{commit}: {words}",
        n=len(matches),
        count=len(states),
        s=s,
        commit=commit,
        words=words,
    )


def _caption(page: int, pages: Sequence[Sequence[object]]) -> str:
    first = sum(map(len, pages[:page])) + 1
    last, total = first + len(pages[page]) - 1, sum(map(len, pages))
    return f"Endpoints {first} to {last} of {total}" if len(pages) > 1 else f"Endpoints: {total}"


def _row(state: EndpointState) -> tuple[Cell, ...]:
    served = state.endpoint
    alias = md(" as {alias}", alias=code(served.alias[:60])) if served.alias not in ("", served.name) else ""
    usd, text = price(served)
    return (
        md("{name}{alias}", name=inline(served.name, 80), alias=alias),
        md("{icon} {state}", icon=ICON[state.state], state=state_in_words(state)),
        inline(served.hf_id, 120),
        Number(usd, text),
        md(" · ").join(about(state)),
    )


def _pages(rows: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Divide the rows into pages that fit into a message, both as a table and as older blocks."""
    page: list[T] = []
    room = min(_PAGE_CHARACTERS, TABLE_CHARACTERS - 200)
    for row in rows:
        needs = size(row) + 1
        if page and (len(page) == _PAGE or needs > room):
            yield page
            page, room = [], min(_PAGE_CHARACTERS, TABLE_CHARACTERS - 200)
        page.append(row)
        room -= needs
    if page:
        yield page


def _turns(search: Search, count: int, previous: str, following: str) -> Blocks:
    """The buttons for the previous and the next page."""
    if count < 2:
        return []
    buttons = [button("Previous", previous, search.at(search.page - 1).value)] if search.page else []
    buttons += [button("Next", following, search.at(search.page + 1).value)] if search.page + 1 < count else []
    return [
        context(md("Page {page} of {count}. Filter: `/model list WORD`", page=search.page + 1, count=count)),
        actions(*buttons, about=f"from page {search.page + 1} of {count} of the endpoints"),
    ]


def _search_field(search: Search) -> Block:
    field: Block = {
        "type": "plain_text_input",
        "action_id": HOME_SEARCH,
        "placeholder": plain_text("a part of a name or model; up, down, failing, gpu, cpu", 150),
        "max_length": 200,
        "dispatch_action_config": {"trigger_actions_on": ["on_enter_pressed"]},
    }
    if search.words:
        field["initial_value"] = " ".join(search.words)
    return {
        "type": "input",
        "block_id": HOME_SEARCH,
        "dispatch_action": True,
        "optional": True,
        "label": plain_text("Find endpoints (press Enter)", 75),
        "element": field,
    }
