"""What is said about endpoints: the list, one of them, and where its pieces disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bot.domain import Lease, Pull, SmokeOutcome
from bot.views.text import clock, code, inline, moment, person
from manifests.contract import Finding, ModelEndpoint

State = Literal["up", "booting", "down", "not deployed"]

_ICON: dict[State, str] = {"up": "🟢", "booting": "🟡", "down": "⚪", "not deployed": "⚫"}
_FINDINGS = 30


@dataclass(frozen=True)
class EndpointState:
    """An endpoint of the repo joined with the cluster. `drift` says how the two differ, empty when they do not."""

    endpoint: ModelEndpoint
    state: State
    sync: str
    drift: str
    lease: Lease | None
    pull: Pull | None = None
    smoke: SmokeOutcome | None = None
    remembered: bool = True
    """Whether Redis answered: without it nobody knows of pull requests and smoke tests."""


_FORGOTTEN = "⚠️ Redis does not answer, so open pull requests and smoke tests are not shown."


def listing(states: Sequence[EndpointState], commit: str) -> str:
    """Two lines for each endpoint."""
    if not states:
        return "There is no endpoint yet; `/model add NAME HF_ID` opens a pull request with one."
    rows = [f"*{len(states)} endpoint{'s' if len(states) > 1 else ''}* at {code(commit[:10])}"]
    rows += [] if all(each.remembered for each in states) else [_FORGOTTEN]
    return "\n".join([*rows, *map(in_two_lines, states)])


def in_two_lines(each: EndpointState) -> str:
    """What is served under which name, and how it is; moments and no durations, so that a clock alone changes nothing."""
    endpoint = each.endpoint
    alias = f" as {code(endpoint.alias)}" if endpoint.alias not in ("", endpoint.name) else ""
    what = f"{_ICON[each.state]} *{inline(endpoint.name, 80)}*{alias} — {inline(endpoint.hf_id, 120)}"
    return f"{what}\n     {' · '.join(_about(each))}"


def details(each: EndpointState, commit: str, findings: Sequence[Finding]) -> str:
    """Everything about one endpoint."""
    endpoint = each.endpoint
    rows = [
        ("State", " · ".join(_about(each))),
        ("Model", f"{code(endpoint.hf_id)}, answers to {code(endpoint.served_name)}"),
        ("Alias for tenants", code(endpoint.alias) if endpoint.alias else "⚠️ none: LiteLLM does not know it"),
        ("Kind", f"{endpoint.kind}, group {inline(endpoint.group, 60) or 'none'}"),
        ("Context", f"{endpoint.context} tokens" if endpoint.context else ""),
        ("Quantization", inline(endpoint.quantization or "none", 40) if endpoint.gpus else ""),
        ("GPU memory", f"{endpoint.gpu_utilization:g} of it" if endpoint.gpu_utilization else ""),
        ("Volume", f"{code(endpoint.pvc_name)}, {inline(endpoint.pvc_size, 20)}" if endpoint.pvc_name else ""),
        ("Sync", "by hand: a sync must be approved" if endpoint.manual_sync else "by Argo CD itself"),
        (
            "Contract",
            f"⚠️ {len(findings)} disagreements: `/model check {endpoint.name}`" if findings else "all pieces agree",
        ),
    ]
    lines = [f"{_ICON[each.state]} *{inline(endpoint.name, 80)}* at {code(commit[:10])}"]
    lines += [] if each.remembered else [_FORGOTTEN]
    return "\n".join([*lines, *(f"*{label}*: {text}" for label, text in rows if text)])


def disagreements(
    found: Sequence[tuple[Finding, str]], about: str, commit: str, guessed: Mapping[str, str] | None = None
) -> str:
    """What `check` found, each with the address of its line; and which settings it had to read from the files."""
    where = f"{code(about) if about else 'the main branch'} at {code(commit[:10])}"
    if guessed:
        settings = ", ".join(code(f"platform.{key}: {value}") for key, value in guessed.items())
        where += f", read with {settings} (as its files say: set that in the configuration, or nothing else finds them)"
    if not found:
        return f"✅ All pieces of {where} agree."
    rows = [f"⚠️ *{len(found)} disagreement{'s' if len(found) > 1 else ''}* in {where}"]
    for finding, url in found[:_FINDINGS]:
        place = inline(f"{finding.path}:{finding.line}", 200)
        rows.append(f"• <{url}|{place}> {inline(finding.message, 300)}\n     → {inline(finding.fix, 300)}")
    if len(found) > _FINDINGS:
        rows.append(f"… and {len(found) - _FINDINGS} more.")
    return "\n".join(rows)


def _about(each: EndpointState) -> list[str]:
    words = [each.state, "GPU" if each.endpoint.gpus else "CPU", inline(each.sync, 40)]
    if each.drift:
        words.append(f"⚠️ drifted: {inline(each.drift, 120)}")
    words.append(_price(each.endpoint))
    if each.lease:
        words.append(f"held by {person(each.lease.holder)} since {clock(each.lease.claimed)}")
    if each.pull:
        words.append(f"<{each.pull.url}|pull request #{each.pull.number}>")
    words.append(_smoke(each.smoke) if each.remembered else "")
    return [word for word in words if word]


def _price(endpoint: ModelEndpoint) -> str:
    """Dollars for a million tokens, as prices are compared; in and out."""
    if not endpoint.price_in:
        return "⚠️ no price"
    out = f" in, {_per_million(endpoint.price_out)} out" if endpoint.price_out else ""
    return f"{_per_million(endpoint.price_in)}{out} per million tokens"


def _per_million(price: str) -> str:
    try:
        usd = float(price) * 1e6
        return f"${usd:.2f}" if usd >= 0.01 else f"${usd:.3g}"
    except ValueError:
        return f"⚠️ {inline(price, 20)} is no number"


def _smoke(run: SmokeOutcome | None) -> str:
    if run is None:
        return "never smoke-tested"
    if run.failed:
        return f"❌ smoke tests failed {moment(run.at)} ({inline(', '.join(run.failed), 100)})"
    return f"smoke tests passed {moment(run.at)}"
