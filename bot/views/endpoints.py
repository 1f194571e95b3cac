"""Messages about endpoints: the list, one endpoint, and contradictions between its files."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from bot.domain.leases import Lease
from bot.domain.operations import SmokeOutcome
from bot.domain.plans import Pull
from bot.domain.sessions import Trouble
from bot.text.mrkdwn import Mrkdwn, link, md, with_code
from bot.views.health import in_short
from bot.views.text import clock, code, cut, inline, moment, person, plain, unmarked
from manifests.contract import Finding, ModelEndpoint
from manifests.frozen import frozen

State = Literal["up", "not serving", "booting", "down", "not deployed"]

ICON: dict[State, str] = {"up": "🟢", "not serving": "🔴", "booting": "🟡", "down": "⚪", "not deployed": "⚫"}
_FINDINGS = 30


@frozen
class EndpointState:
    """An endpoint of the repository combined with its state in the cluster. `drift` describes the differences; empty if
    there are none.
    """

    endpoint: ModelEndpoint
    state: State
    sync: str
    drift: str
    lease: Lease | None
    pull: Pull | None = None
    smoke: SmokeOutcome | None = None
    remembered: bool = True
    """True if Redis answered. Otherwise pull requests and smoke tests are unknown."""
    trouble: Trouble | None = None
    """The reason why a session that was ready does not serve."""


FORGOTTEN = md("⚠️ Redis does not answer, so open pull requests and smoke tests are not shown.")


def in_two_lines(state: EndpointState) -> Mrkdwn:
    """The name, the model and its state. It has times instead of durations, so that it changes only after an event."""
    endpoint = state.endpoint
    alias = md(" as {alias}", alias=code(endpoint.alias)) if endpoint.alias not in ("", endpoint.name) else ""
    headline = md(
        "{icon} *{name}*{alias} — {hf_id}",
        icon=ICON[state.state],
        name=inline(endpoint.name, 80),
        alias=alias,
        hf_id=inline(endpoint.hf_id, 120),
    )
    return md("{headline}\n     {details}", headline=headline, details=md(" · ").join(_about(state)))


def details(state: EndpointState, commit: str, findings: Sequence[Finding]) -> Mrkdwn:
    """Everything about one endpoint."""
    endpoint = state.endpoint
    rows = [
        ("State", md(" · ").join(_about(state))),
        (
            "Model",
            md("{hf_id}, answers to {served_name}", hf_id=code(endpoint.hf_id), served_name=code(endpoint.served_name)),
        ),
        ("Alias for tenants", code(endpoint.alias) if endpoint.alias else "⚠️ none: LiteLLM has no alias for it"),
        ("Kind", md("{kind}, group {group}", kind=endpoint.kind, group=inline(endpoint.group, 60) or "none")),
        ("Context", f"{endpoint.context} tokens" if endpoint.context else ""),
        ("Quantization", inline(endpoint.quantization or "none", 40) if endpoint.gpus else ""),
        ("GPU memory utilization", f"{endpoint.gpu_utilization:g}" if endpoint.gpu_utilization else ""),
        (
            "Volume",
            md("{pvc_name}, {pvc_size}", pvc_name=code(endpoint.pvc_name), pvc_size=inline(endpoint.pvc_size, 20))
            if endpoint.pvc_name
            else "",
        ),
        ("Sync", "manual, with an approval" if endpoint.manual_sync else "automatic, by Argo CD"),
        (
            "Contract",
            md("⚠️ {count} problems: `/model check {name}`", count=len(findings), name=endpoint.name)
            if findings
            else "all files agree",
        ),
    ]
    lines = [
        md(
            "{icon} *{name}* at {commit}",
            icon=ICON[state.state],
            name=inline(endpoint.name, 80),
            commit=code(commit[:10]),
        )
    ]
    lines += [] if state.remembered else [FORGOTTEN]
    return md("\n").join([*lines, *(md("*{label}*: {text}", label=label, text=text) for label, text in rows if text)])


def disagreements(
    findings: Sequence[tuple[Finding, str]], endpoint: str, commit: str, guessed: Mapping[str, str] | None = None
) -> Mrkdwn:
    """The findings of `/model check`, each with a link to its line, and the settings that were inferred from the files."""
    place = md(
        "{endpoint} at {commit}", endpoint=code(endpoint) if endpoint else "the main branch", commit=code(commit[:10])
    )
    if guessed:
        settings = md(", ").join(code(f"platform.{key}: {value}") for key, value in guessed.items())
        place += md(
            ", read with {settings} (inferred from its files; set this in the configuration so that all commands use it)",
            settings=settings,
        )
    faults = [item for item in findings if not item[0].is_advice]
    advice = [item for item in findings if item[0].is_advice]
    if faults:
        title = md("⚠️ *{count} problem{s}* in {place}", count=len(faults), s=_s(faults), place=place)
    else:
        title = md("✅ No problems found in {place}.", place=place)
    rows = [title, *_finding_lines(faults)]
    if advice:
        rows.append(md("💡 {count} suggestion{s} for faster starts", count=len(advice), s=_s(advice)))
        rows += _finding_lines(advice)
    return md("\n").join(rows)


def _s(several: Sequence[object]) -> str:
    return "" if len(several) == 1 else "s"


def _finding_lines(findings: Sequence[tuple[Finding, str]]) -> list[Mrkdwn]:
    """The first findings, each with a link to its line, and the number of the remaining findings."""
    rows = [
        md(
            "• {place} {message}\n     → {fix}",
            place=link(url, inline(f"{finding.path}:{finding.line}", 200)),
            message=inline(finding.message, 300),
            fix=cut(with_code(plain(finding.fix)), 300),
        )
        for finding, url in findings[:_FINDINGS]
    ]
    if len(findings) > _FINDINGS:
        rows.append(md("… and {more} more.", more=len(findings) - _FINDINGS))
    return rows


def state_in_words(state: EndpointState) -> Mrkdwn:
    """The state, with the trouble of a session that does not serve."""
    return (
        md("{state}, {trouble}", state=state.state, trouble=in_short(state.trouble))
        if state.trouble
        else md("{s}", s=state.state)
    )


def about(state: EndpointState) -> list[Mrkdwn]:
    """The details of an endpoint without its name, model, state and price."""
    details = [md("GPU") if state.endpoint.gpus else md("CPU"), inline(state.sync, 40)]
    if state.drift:
        details.append(md("⚠️ drifted: {drift}", drift=inline(state.drift, 120)))
    if state.lease:
        details.append(
            md(
                "held by {holder} since {claimed}",
                holder=person(state.lease.holder),
                claimed=clock(state.lease.claimed),
            )
        )
    if state.pull:
        details.append(link(state.pull.url, f"pull request #{state.pull.number}"))
    details += [_smoke(state.smoke)] if state.remembered else []
    return details


def _about(state: EndpointState) -> list[Mrkdwn]:
    return [state_in_words(state), *about(state), _price(state.endpoint)]


def price(endpoint: ModelEndpoint) -> tuple[float, str]:
    """Dollars per million input tokens, and the text of both prices."""
    try:
        usd = float(endpoint.price_in) * 1e6
    except ValueError:
        usd = math.nan
    if not math.isfinite(usd):
        return 0.0, "⚠️ no price"
    out = f" in, {unmarked(_per_million(endpoint.price_out))} out" if endpoint.price_out else ""
    return usd, unmarked(_per_million(endpoint.price_in)) + out


def _price(endpoint: ModelEndpoint) -> Mrkdwn:
    """Dollars per million tokens, input and output."""
    if not endpoint.price_in:
        return md("⚠️ no price")
    out = md(" in, {price} out", price=_per_million(endpoint.price_out)) if endpoint.price_out else Mrkdwn()
    return md("{price}{out} per million tokens", price=_per_million(endpoint.price_in), out=out)


def _per_million(price: str) -> Mrkdwn:
    try:
        usd = float(price) * 1e6
        return md("${usd}", usd=f"{usd:.2f}") if usd >= 0.01 else md("${usd}", usd=f"{usd:.3g}")
    except ValueError:
        return md("⚠️ {price} is not a number", price=inline(price, 20))


def _smoke(run: SmokeOutcome | None) -> Mrkdwn:
    if run is None:
        return md("not smoke-tested yet")
    if run.failed:
        return md("❌ smoke tests failed {at} ({failed})", at=moment(run.at), failed=inline(", ".join(run.failed), 100))
    return md("smoke tests passed {at}", at=moment(run.at))
