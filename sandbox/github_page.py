"""The HTML pages of the sandbox's GitHub: the list of pull requests, a pull request with its diff, and a file."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from markdown_it import MarkdownIt

from sandbox.git import FileChange

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --wash: #f6f8fa; --over: #eff2f5; --add: #dafbe1; --del: #ffebe9; --hunk: #ddf4ff; --link: #0969da; --good: #1a7f37; --bad: #cf222e; --wait: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #f0f6fc; --faint: #9198a1; --line: #3d444d; --wash: #151b23; --over: #262c36; --add: #12261e; --del: #301b1e; --hunk: #121d2f; --link: #4493f8; --good: #3fb950; --bad: #f85149; --wait: #d29922; } }
* { box-sizing: border-box; }
body { font: 14px/1.5 -apple-system, "Segoe UI", "Noto Sans", Lato, Helvetica, Arial, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; font-weight: 400; line-height: 1.25; margin: 0 0 .5rem; } h1 small { color: var(--faint); font-size: inherit; }
h2 { font-size: 1.1rem; } a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
code, pre { font: 12px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; } code { background: #818b981f; border-radius: 6px; padding: .15em .4em; }
.facts { color: var(--faint); padding-bottom: 1rem; border-bottom: 1px solid var(--line); } .facts b { color: var(--ink); }
.state { color: #fff; background: #1a7f37; border-radius: 2rem; padding: .35rem .8rem; margin-right: .5rem; font-weight: 500; } .state.merged { background: #8250df; } .state.closed { background: #cf222e; }
.label { border: 1px solid var(--link); background: var(--hunk); color: var(--link); border-radius: 2rem; padding: 0 .5rem; font-size: 12px; font-weight: 500; }
.box { border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; overflow: hidden; } .box > header { background: var(--wash); border-bottom: 1px solid var(--line); padding: .5rem 1rem; color: var(--faint); } .box > header b { color: var(--ink); }
.box > div, .box > p { padding: .3rem 1rem; } .markdown { overflow-x: auto; } .markdown h2 { border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .3rem .8rem; text-align: left; } tr:nth-child(2n) td { background: var(--wash); } thead:not(:has(th:not(:empty))) { display: none; }
form { display: inline; } button { font: inherit; font-weight: 500; padding: .3rem 1rem; margin: .3rem .4rem .3rem 0; border: 1px solid var(--line); border-radius: 6px; background: var(--wash); color: var(--ink); cursor: pointer; } button:hover { background: var(--over); }
button.primary { background: #1a7f37; color: #fff; } button.danger { color: var(--bad); }
.success { color: var(--good); } .failure { color: var(--bad); } .pending { color: var(--wait); }
.file table { width: 100%; font: 12px/1.6 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; } .file .diff { padding: 0; overflow-x: auto; } .file td { border: 0; padding: 0 .6rem; white-space: pre; background: none; } .file tr:nth-child(2n) td { background: none; }
.file td.n { width: 1%; color: var(--faint); text-align: right; user-select: none; } .file tr.add td { background: var(--add); } .file tr.del td { background: var(--del); } .file tr.hunk td { background: var(--hunk); color: var(--faint); }
.plus { color: var(--good); } .minus { color: var(--bad); } ol.files { columns: 2; padding-left: 1.2rem; } @media (max-width: 700px) { ol.files { columns: 1; } }
"""

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def file_page(path: str, commit: str, text: str) -> str:
    """Return the page of a file at a commit; `#L3` links to its third line."""
    lines = "".join(
        f'<span id="L{number}">{number:>4}  {escape(line)}</span>' for number, line in enumerate(text.splitlines(), 1)
    )
    return _document(path, f"<h1>{escape(path)}</h1><p>at <code>{commit[:10]}</code></p><pre class=file>{lines}</pre>")


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
    changes: Sequence[FileChange],
) -> str:
    """Return the page of a pull request, with buttons for actions of other people on GitHub."""
    added, deleted = sum(c.additions for c in changes), sum(c.deletions for c in changes)
    marks = " ".join(f'<span class="label">{escape(label)}</span>' for label in labels)
    facts = f"<b>{escape(author)}</b> wants to merge <code>{escape(head)}</code> into <code>{escape(base)}</code>"
    rows = "".join(f'<li><a href="#file-{n}">{escape(change.path)}</a></li>' for n, change in enumerate(changes))
    parts = [
        f"<h1>{escape(title)} <small>#{number}</small></h1>",
        f'<p class="facts"><span class="state {state}">{state.capitalize()}</span>{facts} {marks}</p>',
        _comment(author, body),
        *(_comment(commenter, text) for commenter, text in comments),
        _merge_box(number, checks, mergeable) if state == "open" else "",
        f'<h2>Files changed <small>{len(changes)}</small> <span class="plus">+{added}</span> <span class="minus">−{deleted}</span></h2>',
        f'<ol class="files">{rows}</ol>',
        *(_file(n, change) for n, change in enumerate(changes)),
    ]
    return _document(f"{title} · #{number}", "\n".join(parts))


def _comment(author: str, text: str) -> str:
    html = _MARKDOWN.render(text)
    return f'<section class="box"><header><b>{escape(author)}</b></header><div class="markdown">{html}</div></section>'


def _merge_box(number: int, checks: str, mergeable: bool | None) -> str:
    words = {
        "success": "All checks have passed",
        "failure": "Some checks were not successful",
        "pending": "Checks are running",
    }
    actions = {
        "checks/success": ("Let checks pass", ""),
        "checks/failure": ("Let checks fail", ""),
        "merge": ("Merge pull request", "primary"),
        "close": ("Close pull request", "danger"),
    }
    buttons = "".join(
        f'<form method="post" action="{number}/{path}"><button class="{style}">{label}</button></form>'
        for path, (label, style) in actions.items()
    )
    conflicts = (
        "This branch has no conflicts with the base branch"
        if mergeable
        else "This branch has conflicts that must be resolved"
    )
    return (
        f'<section class="box"><header>Actions of other people and of CI, without Slack</header>'
        f'<p class="{checks}">● {words[checks]}</p><p class="{"success" if mergeable else "failure"}">● {conflicts}</p>'
        f"<p>{buttons}</p></section>"
    )


def list_page(repository: str, pulls: Iterable[tuple[int, str, str]]) -> str:
    """Return the page with all pull requests, given as (number, title, state) with the newest first."""
    rows = "".join(
        f'<li><a href="/{escape(repository)}/pull/{number}">#{number} {escape(title)}</a> {state}</li>'
        for number, title, state in pulls
    )
    return _document(repository, f"<h1>{escape(repository)}</h1><ul>{rows or 'No pull requests yet.'}</ul>")


_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)")


def _file(index: int, change: FileChange) -> str:
    counts = f'<span class="plus">+{change.additions}</span> <span class="minus">−{change.deletions}</span>'
    heading = f"<b>{escape(change.path)}</b> {change.status} {counts}"
    rows = "".join(_rows(change.patch))
    return (
        f'<section class="box file" id="file-{index}"><header>{heading}</header>'
        f'<div class="diff"><table>{rows}</table></div></section>'
    )


def _rows(patch: str) -> Iterator[str]:
    """Yield the lines of a diff as table rows, with their numbers before and after."""
    old = new = 0
    for line in patch.splitlines():
        kind = {"+": "add", "-": "del", "@": "hunk", "\\": "note"}.get(line[:1], "same")
        before = after = ""
        if hunk := _HUNK.match(line):
            old, new = int(hunk[1]), int(hunk[2])
        elif kind != "note":  # "\\ No newline at end of file" is not a line
            before, after = "" if kind == "add" else str(old), "" if kind == "del" else str(new)
            old, new = old + (kind != "add"), new + (kind != "del")
        yield f'<tr class="{kind}"><td class="n">{before}</td><td class="n">{after}</td><td>{escape(line) or " "}</td></tr>'


def _document(title: str, content: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><body>{content}</body></html>'
    )
