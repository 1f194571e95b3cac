"""`stoker model fit`: the requirements of models and whether they fit, from a terminal."""

import json
from collections.abc import Sequence

import typer

from bot.errors import BotError
from bot.views.fit import context, longest
from manifests.sizing import in_gb, in_gib
from manifests.sizing.report import Account, Fit


def as_json(answers: Sequence[Account]) -> str:
    """One object for one model, a list for several."""
    shown = [each.fit.model_dump() for each in answers]
    return json.dumps(shown[0] if len(shown) == 1 else shown, indent=2)


def as_text(answers: Sequence[Account]) -> str:
    """One model with its numbers; several side by side."""
    return _whole(answers[0]) if len(answers) == 1 else _table([each.fit for each in answers])


def exit_code(answers: Sequence[Account | BotError]) -> int:
    """Exit code 0: all fit, 1: one is refused, 2: one could not be looked up."""
    if any(isinstance(each, BotError) for each in answers):
        return 2
    return int(any(isinstance(each, Account) and each.fit.verdict == "refused" for each in answers))


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
    return "\n".join([*lines, *(f"x {each}" for each in fit.reasons), *(f"! {each}" for each in fit.warnings)])


def _table(fits: Sequence[Fit]) -> str:
    head = ("MODEL", "VERDICT", "KIND", "WEIGHTS", "CONTEXT", "AT MOST", "VOLUME", "LICENCE")
    rows = [
        head,
        *(
            (
                each.hf_id,
                each.verdict,
                each.kind or "?",
                in_gib(each.weights_bytes),
                context(each),
                longest(each),
                in_gib(each.storage_bytes),
                each.licence or "?",
            )
            for each in fits
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{each.hf_id}: {reason}" for each in fits for reason in each.reasons)])


def told(answers: Sequence[Account | BotError]) -> list[Account]:
    """Return the answers; print the models that could not be looked up to standard error."""
    for each in answers:
        if isinstance(each, BotError):
            typer.echo(f"stoker: {each}", err=True)
    return [each for each in answers if isinstance(each, Account)]
