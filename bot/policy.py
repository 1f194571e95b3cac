"""Who may ask, approve, cancel and bring down. Pure: values in, a decision with its reason out.

Asked again at every click, because a button may be older than a person's role.
"""

from dataclasses import dataclass
from datetime import datetime

from bot.domain import Operation
from bot.settings import Config


@dataclass(frozen=True)
class Verdict:
    """Allowed, or refused with a reason for the person who asked."""

    allowed: bool
    reason: str = ""


ALLOW = Verdict(True)


def refuse(reason: str) -> Verdict:
    return Verdict(False, reason)


@dataclass(frozen=True)
class People:
    """The members of each role as user ids, user groups already resolved."""

    requesters: frozenset[str]
    approvers: frozenset[str]
    admins: frozenset[str]


def may_request(actor: str, people: People, config: Config) -> Verdict:
    if not config.roles.requesters or actor in people.requesters | people.approvers | people.admins:
        return ALLOW
    return refuse("You are not on the list of people who may ask for the GPU (`roles.requesters`); ask an admin.")


def can_be_approved(people: People) -> Verdict:
    """Fail closed: with nobody to approve, nothing cost-gated is even asked for."""
    if people.approvers:
        return ALLOW
    return refuse(
        "Nobody is configured to approve (`roles.approvers` is empty), so nothing that costs money can run."
        " An admin must name approvers in Stoker's configuration."
    )


def may_vote(op: Operation, actor: str, people: People, config: Config) -> Verdict:
    if actor not in people.approvers:
        names = ", ".join(f"<@{user}>" for user in sorted(people.approvers - {op.request.actor})) or "nobody"
        return refuse(f"Only approvers can decide this: {names}.")
    if actor == op.request.actor and not config.approvals.self_approval:
        return refuse("You asked for this yourself, so a teammate must approve it.")
    if any(vote.by == actor for vote in op.votes):
        return refuse("You have already approved this; another approver is needed as well.")
    return ALLOW


def who_decides(config: Config) -> str:
    """Who may approve, as a card says it."""
    many = config.approvals.quorum
    who = "An approver decides" if many == 1 else f"{many} approvers decide"
    return f"{who}." if config.approvals.self_approval else f"{who}, not who asked."


def may_override(actor: str, reason: str, people: People) -> Verdict:
    if actor not in people.admins:
        names = ", ".join(f"<@{user}>" for user in sorted(people.admins)) or "nobody (`roles.admins` is empty)"
        return refuse(f"Only an admin may override an approval, in an emergency: {names}.")
    if not reason:
        return refuse("Say why: an override needs its reason, which the channel and the audit log show.")
    return ALLOW


def is_approved(op: Operation, config: Config) -> bool:
    """Enough approvals, or an admin's override."""
    return len(op.approvals) >= config.approvals.quorum or any(vote.override for vote in op.approvals)


def approval_stands(op: Operation, config: Config, now: datetime) -> bool:
    """Whether an approval that was given while waiting still counts when the turn comes."""
    return is_approved(op, config) and all(now - vote.at < config.approvals.expire_after for vote in op.approvals)


def may_release(actor: str, reason: str, people: People) -> Verdict:
    if actor not in people.admins:
        names = ", ".join(f"<@{user}>" for user in sorted(people.admins)) or "nobody (`roles.admins` is empty)"
        return refuse(f"Only an admin may break somebody's lease: {names}. Ask the holder, or bring your own down.")
    return ALLOW if reason else refuse("Say why: `/gpu release because …`. Everybody sees the reason.")


def may_deny(op: Operation, actor: str, people: People) -> Verdict:
    if actor in people.approvers:
        return ALLOW
    names = ", ".join(f"<@{user}>" for user in sorted(people.approvers)) or "nobody"
    return refuse(f"Only approvers can decide this: {names}. Whoever asked can cancel it.")


def may_cancel(op: Operation, actor: str, people: People) -> Verdict:
    if actor == op.request.actor or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(f"Only <@{op.request.actor}>, who asked, or an approver can cancel this.")


def may_let_in(actor: str, people: People) -> Verdict:
    """Whether somebody may change what tenants' keys can call."""
    if actor in people.approvers | people.admins:
        return ALLOW
    return refuse("Only approvers and admins can let virtual keys call another alias.")


def may_keep(holder: str, actor: str, people: People) -> Verdict:
    if actor == holder or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(f"Only <@{holder}>, who holds the GPU, or an approver can keep it.")


def may_bench(holder: str, actor: str, people: People) -> Verdict:
    """A benchmark takes the model from whoever works with it, so it is for the holder and for those who answer for the GPU."""
    if actor == holder or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(f"Only <@{holder}>, who holds the GPU, or an approver can load the model with a benchmark.")


def may_examine(actor: str, people: People) -> Verdict:
    if actor in people.admins:
        return ALLOW
    return refuse("Only admins (`roles.admins`) can examine the installation: the answer names systems and settings.")
