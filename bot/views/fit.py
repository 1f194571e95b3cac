"""The requirements of several models side by side, or of one model with all numbers."""

from collections.abc import Sequence

from bot.text.mrkdwn import Mrkdwn, md
from bot.views.text import code, inline
from manifests.sizing.quantities import in_gb, in_gib
from manifests.sizing.report import Account, Fit

_ICON = {"fits": "🟢", "tight": "🟡", "refused": "🔴"}


def comparison(accounts: Sequence[Account], errors: Sequence[str]) -> Mrkdwn:
    """One model in full, several in two lines each; then the models that could not be looked up."""
    parts = [_whole(accounts[0])] if len(accounts) == 1 else [_short(account.fit) for account in accounts]
    return md("\n").join([*parts, *(md("⚠️ {error}", error=error) for error in errors)])


def _whole(answer: Account) -> Mrkdwn:
    fit = answer.fit
    rows = [
        ("Kind", fit.kind or "unknown"),
        ("Context", f"{context(fit)}; {longest(fit)} at most"),
        ("Weights", f"{in_gb(fit.weights_bytes)}, staged {in_gb(fit.staged_bytes)}"),
        ("Cache", f"{fit.kv_bytes_per_token} bytes per token: {answer.cache}"),
        *((row.label, f"{'' if row.ok else '⚠️ '}{row.value} of {row.limit}") for row in answer.numbers),
        ("Volume", in_gib(fit.storage_bytes)),
        ("Memory limit", in_gib(fit.memory_bytes)),
        ("Licence", inline(fit.licence or "unknown", 60)),
    ]
    lines = [_head(fit), *(md("• {reason}", reason=reason) for reason in fit.reasons)]
    lines += [md("*{label}*: {value}", label=label, value=value) for label, value in rows]
    lines += [md("*Arguments*: {flags}", flags=md(" ").join(map(code, fit.flags)))] if fit.flags else []
    return md("\n").join([*lines, *(md("⚠️ {warning}", warning=warning) for warning in fit.warnings)])


def _short(fit: Fit) -> Mrkdwn:
    figures = f"{fit.kind or 'unknown'}, {in_gib(fit.weights_bytes)} of weights"
    if fit.verdict == "refused":
        return md(
            "{head}\n     {figures} · {reasons}",
            head=_head(fit),
            figures=figures,
            reasons=inline("; ".join(fit.reasons), 300),
        )
    return md(
        "{head}\n     {figures} · context {context}, {longest} at most · {volume} volume",
        head=_head(fit),
        figures=figures,
        context=context(fit),
        longest=longest(fit),
        volume=in_gib(fit.storage_bytes),
    )


def _head(fit: Fit) -> Mrkdwn:
    return md("{icon} *{hf_id}*: {verdict}", icon=_ICON[fit.verdict], hf_id=inline(fit.hf_id, 120), verdict=fit.verdict)


def context(fit: Fit) -> str:
    """The context argument, or a description if there is none."""
    return str(fit.context) if fit.context else "none" if fit.verdict == "refused" else "the model's own"


def longest(fit: Fit) -> str:
    return "unlimited" if fit.max_context is None else str(fit.max_context)
