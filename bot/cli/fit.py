"""`stoker model fit`: prints the requirements of models, and whether they fit on the GPU."""

import json
from collections.abc import Sequence

import typer

from bot.errors import BotError
from bot.views.fit import context, longest
from manifests.sizing import in_gb, in_gib
from manifests.sizing.report import Account, Fit


def as_json(answers: Sequence[Account]) -> str:
    """A JSON object for one model, a list for several."""
    fits = [answer.fit.model_dump() for answer in answers]
    return json.dumps(fits[0] if len(fits) == 1 else fits, indent=2)


def as_text(answers: Sequence[Account]) -> str:
    """The numbers of one model; a table for several."""
    return _whole(answers[0]) if len(answers) == 1 else _table([answer.fit for answer in answers])


def exit_code(answers: Sequence[Account | BotError]) -> int:
    """The exit code: 0 if all fit, 1 if one is refused, 2 if one could not be looked up."""
    if any(isinstance(answer, BotError) for answer in answers):
        return 2
    return int(any(isinstance(answer, Account) and answer.fit.verdict == "refused" for answer in answers))


def _whole(answer: Account) -> str:
    fit = answer.fit
    rows = [
        ("Model", fit.hf_id),
        ("Verdict", fit.verdict),
        ("Kind", fit.kind or "unknown"),
        ("Context", f"{context(fit)}, at most {longest(fit)}"),
        (
            "Weights",
            f"{in_gb(fit.weights_bytes)}, staged {in_gb(fit.staged_bytes)}, repository {in_gb(fit.repo_bytes)}",
        ),
        ("Cache", f"{fit.kv_bytes_per_token} bytes per token: {answer.cache}"),
        *((row.label, f"{row.value} of {row.limit}{'' if row.ok else '  <- too much'}") for row in answer.numbers),
        ("Volume", in_gib(fit.storage_bytes)),
        ("Memory limit", in_gib(fit.memory_bytes)),
        ("Arguments", " ".join(fit.flags) or "none"),
        ("Licence", fit.licence or "unknown"),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{label.ljust(width)}  {value}" for label, value in rows]
    return "\n".join(
        [*lines, *(f"x {reason}" for reason in fit.reasons), *(f"! {warning}" for warning in fit.warnings)]
    )


def _table(fits: Sequence[Fit]) -> str:
    head = ("MODEL", "VERDICT", "KIND", "WEIGHTS", "CONTEXT", "AT MOST", "VOLUME", "LICENCE")
    rows = [
        head,
        *(
            (
                fit.hf_id,
                fit.verdict,
                fit.kind or "?",
                in_gib(fit.weights_bytes),
                context(fit),
                longest(fit),
                in_gib(fit.storage_bytes),
                fit.licence or "?",
            )
            for fit in fits
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{fit.hf_id}: {reason}" for fit in fits for reason in fit.reasons)])


def print_errors(answers: Sequence[Account | BotError]) -> list[Account]:
    """Print the models that could not be looked up to standard error, and return the other answers."""
    for answer in answers:
        if isinstance(answer, BotError):
            typer.echo(f"stoker: {answer}", err=True)
    return [answer for answer in answers if isinstance(answer, Account)]
