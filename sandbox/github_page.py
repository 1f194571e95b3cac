"""The HTML that the sandbox's GitHub shows to people: the list of pull requests, and one with its diff."""

from collections.abc import Iterable
from html import escape

from sandbox.git import FileChange

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --add: #2da44e22; --del: #cf222e22; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
pre { overflow-x: auto; margin: 0; font: 13px/1.45 ui-monospace, monospace; }
.body { white-space: pre-wrap; border: 1px solid var(--line); border-radius: 6px; padding: 1rem; }
.file { border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; overflow: hidden; }
.file h2 { font-size: 14px; margin: 0; padding: .5rem 1rem; border-bottom: 1px solid var(--line); }
.file span { display: block; padding: 0 1rem; white-space: pre; min-width: max-content; }
.add { background: var(--add); } .del { background: var(--del); } .hunk { opacity: .6; }
form { display: inline; } button { font: inherit; padding: .3rem .9rem; margin-right: .5rem; border-radius: 6px; }
.state { border: 1px solid; border-radius: 1rem; padding: .1rem .7rem; }
"""


def pull_page(
    *,
    number: int,
    title: str,
    body: str,
    state: str,
    head: str,
    base: str,
    author: str,
    mergeable: bool | None,
    checks: str,
    labels: Iterable[str],
    comments: Iterable[tuple[str, str]],
    changes: Iterable[FileChange],
) -> str:
    """One pull request; the buttons do what other people do on GitHub."""
    actions = {"checks/success": "checks pass", "checks/failure": "checks fail", "merge": "merge", "close": "close"}
    buttons = "".join(
        f'<form method="post" action="{number}/{path}"><button>{label}</button></form>'
        for path, label in actions.items()
    )
    facts = [f"<code>{escape(head)}</code> → <code>{escape(base)}</code> by {escape(author)}", f"checks: {checks}"]
    if state == "open":
        facts.append("no conflicts" if mergeable else "conflicts with the base branch")
    facts += [f"label: {escape(label)}" for label in labels]
    parts = [
        f"<h1>{escape(title)} <small>#{number}</small></h1>",
        f'<p><span class="state">{state}</span> {" · ".join(facts)}</p>',
        f"<p>{buttons}</p>" if state == "open" else "",
        f'<div class="body">{escape(body)}</div>',
        *(f'<p><b>{escape(who)}</b></p><div class="body">{escape(text)}</div>' for who, text in comments),
        *(_file(change) for change in changes),
    ]
    return _document(f"{title} · #{number}", "\n".join(parts))


def list_page(repository: str, pulls: Iterable[tuple[int, str, str]]) -> str:
    """The newest pull requests first; each (number, title, state)."""
    rows = "".join(
        f'<li><a href="/{escape(repository)}/pull/{number}">#{number} {escape(title)}</a> {state}</li>'
        for number, title, state in pulls
    )
    return _document(repository, f"<h1>{escape(repository)}</h1><ul>{rows or 'No pull requests yet.'}</ul>")


def _file(change: FileChange) -> str:
    lines = "".join(f'<span class="{_kind(line)}">{escape(line) or " "}</span>' for line in change.patch.splitlines())
    heading = f"{escape(change.path)} ({change.status}, +{change.additions} −{change.deletions})"
    return f'<section class="file"><h2>{heading}</h2><pre>{lines}</pre></section>'


def _kind(line: str) -> str:
    return {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")


def _document(title: str, content: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body>{content}</body></html>'
    )
