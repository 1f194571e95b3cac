"""The rights to request, approve, cancel and bring down. Pure functions that return a decision with its reason.

They are evaluated again at every click, because roles may have changed since the button was posted.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from bot.domain.operations import Operation, Status, Vote
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, md, person
from manifests.frozen import frozen


@frozen
class Verdict:
    """A decision about an action: allowed, or refused with a reason for the person."""

    allowed: bool
    reason: str = ""


ALLOW = Verdict(True)


def refuse(reason: str) -> Verdict:
    return Verdict(False, reason)


@frozen
class Home:
    """The bot's workspace, its organisation (Enterprise Grid), and the bot's user id."""

    team: str
    enterprise: str
    bot: str


@frozen
class Profile:
    """A user in Slack."""

    id: str
    teams: frozenset[str]
    enterprise: str = ""
    stranger: bool = False
    guest: bool = False
    bot: bool = False
    deleted: bool = False
    name: str = ""
    """The name that the person has chosen; external text."""


def may_use(profile: Profile | None, home: Home, config: Config) -> Verdict:
    """Decide whether somebody may use the bot. Members of its workspace or organisation may; guests and apps may if the
    settings allow it.
    """
    if profile is None or profile.deleted:
        return refuse("Slack has no active account for you, so Stoker refuses the request.")
    is_member = home.team in profile.teams or bool(home.enterprise and profile.enterprise == home.enterprise)
    if profile.stranger or not is_member:
        return refuse(
            "Stoker accepts requests only from people of its own workspace, and your account belongs to another organisation."
        )
    if profile.bot and not config.people.bots:
        return refuse(
            md(
                "Stoker does not accept requests from apps and workflows (setting `people.bots`): a person must make the request."
            )
        )
    if profile.guest and not config.people.guests:
        return refuse(
            md("Stoker does not accept requests from guests (setting `people.guests`): ask a member of the workspace.")
        )
    return ALLOW


@frozen
class People:
    """The members of each role as user ids, with the user groups resolved."""

    requesters: frozenset[str]
    approvers: frozenset[str]
    admins: frozenset[str]


def may_request(actor: str, people: People, config: Config) -> Verdict:
    if not config.roles.requesters or actor in people.requesters | people.approvers | people.admins:
        return ALLOW
    return refuse(md("You are not on the list of people who may request the GPU (`roles.requesters`); ask an admin."))


def can_be_approved(people: People) -> Verdict:
    """Refuse every request that costs money if there are no approvers."""
    if people.approvers:
        return ALLOW
    return refuse(
        md(
            "Nobody is configured to approve (`roles.approvers` is empty), so nothing that costs money can "
            "run. An admin must add approvers in Stoker's settings."
        )
    )


def may_vote(op: Operation, actor: str, people: People, config: Config) -> Verdict:
    if actor not in people.approvers:
        names = md(", ").join(person(user) for user in sorted(people.approvers - {op.request.actor})) or "nobody"
        return refuse(md("Only approvers can decide this: {names}.", names=names))
    if actor == op.request.actor and not config.approvals.self_approval:
        return refuse("You requested this yourself, so a teammate must approve it.")
    if any(vote.by == actor for vote in op.votes):
        then = "it starts at its turn." if is_approved(op, config) else "another approver is needed too."
        return refuse(f"You have already approved this; {then}")
    return ALLOW


def who_decides(config: Config) -> Mrkdwn:
    """The approvers, described for a card."""
    quorum = config.approvals.quorum
    others = "" if config.approvals.self_approval else " other than the requester"
    text = f"An approver{others} decides." if quorum == 1 else f"{quorum} approvers{others} decide."
    return md("{text}", text=text)


def to_ask(op: Operation, members: Mapping[str, frozenset[str]], *, but: str = "") -> tuple[tuple[str, ...], str]:
    """The users and user groups to notify that an operation awaits approval, and the user if there is only one.

    `members` maps the users and user groups of `roles.approvers` to their members. The requester, the people who have
    voted and `but` are not notified: if a group contains one of them, its other members are notified instead.
    """
    excluded = {op.request.actor, but, *(vote.by for vote in op.votes)}
    everybody = frozenset[str]().union(*members.values())
    if not everybody:
        return tuple(members), ""
    voters = everybody - excluded
    only_voter = next(iter(voters)) if len(voters) == 1 else ""
    return tuple(sorted(voters)) if everybody & excluded else tuple(members), only_voter


def may_override(actor: str, reason: str, people: People) -> Verdict:
    if actor not in people.admins:
        names = md(", ").join(person(user) for user in sorted(people.admins)) or md("nobody (`roles.admins` is empty)")
        return refuse(md("Only an admin may override an approval, in an emergency: {names}.", names=names))
    if not reason:
        return refuse("Give a reason for the override: the channel and the audit log show it.")
    return ALLOW


def is_approved(op: Operation, config: Config) -> bool:
    """Return whether there are enough approvals, or an admin's override."""
    return len(op.approvals) >= config.approvals.quorum or any(vote.override for vote in op.approvals)


def approval_stands(op: Operation, config: Config, now: datetime) -> bool:
    """Return whether a queued request is approved, with approvals that are still valid."""
    return is_approved(op, config) and all(now - vote.at < config.approvals.expire_after for vote in op.approvals)


def time_to_decide(op: Operation, config: Config) -> timedelta:
    """The time after which an undecided operation or an approval expires."""
    approvals = config.approvals
    return approvals.pull_expire_after if op.request.kind.spec.uses_pull_request else approvals.expire_after


def standing(op: Operation, people: People, config: Config, now: datetime) -> tuple[tuple[Vote, ...], Mrkdwn]:
    """The votes that are still valid when the work starts, and the reason why they are not sufficient; the reason is
    empty if they are.

    A voter may no longer be an approver, and a vote may have expired.
    """
    limit = time_to_decide(op, config)
    valid, reasons = list[Vote](), list[Mrkdwn]()
    for vote in op.approvals:
        voters, voter = people.admins if vote.override else people.approvers, person(vote.by)
        if vote.by not in voters:
            verb = "override" if vote.override else "approve"
            reasons.append(md("{voter} may no longer {verb}. ", voter=voter, verb=verb))
        elif not vote.override and vote.by == op.request.actor and not config.approvals.self_approval:
            reasons.append(md("{voter} requested it. ", voter=voter))
        elif now - vote.at >= limit:
            reasons.append(md("The approval of {voter} has expired. ", voter=voter))
        else:
            valid.append(vote)
    if is_approved(op.model_copy(update={"votes": tuple(valid)}), config):
        return tuple(valid), md("")
    reason = md(
        "{reasons}{valid} of {quorum} approvals are still valid, so another one is needed.",
        reasons=md("").join(reasons),
        valid=len(valid),
        quorum=config.approvals.quorum,
    )
    return tuple(valid), reason


def may_release(actor: str, reason: str, people: People) -> Verdict:
    if actor not in people.admins:
        names = md(", ").join(person(user) for user in sorted(people.admins)) or md("nobody (`roles.admins` is empty)")
        return refuse(
            md(
                "Only an admin may break somebody's lease: {names}. Ask the holder, or bring your own down.",
                names=names,
            )
        )
    return ALLOW if reason else refuse(md("Give a reason: `/gpu release because …`. Everybody sees it."))


def may_deny(op: Operation, actor: str, people: People) -> Verdict:
    if actor in people.approvers:
        return ALLOW
    names = md(", ").join(person(user) for user in sorted(people.approvers)) or "nobody"
    return refuse(md("Only approvers can decide this: {names}. The requester can cancel it.", names=names))


def costs_money(op: Operation) -> bool:
    """Return whether an operation is booting a model, so that ending it stops costs."""
    return op.request.kind.spec.starts_model and op.status in (Status.APPROVED, Status.RUNNING)


def must_notify(holder: str, ended_by: str) -> bool:
    """Return whether the holder must be notified if somebody ends the holder's boot or session with *Cancel*, *Bring
    down* or `/gpu down`.

    Everybody who may use the bot may do this without an approval, because it must always be possible to stop costs.
    """
    return bool(holder) and bool(ended_by) and holder != ended_by


def may_cancel(op: Operation, actor: str, people: People) -> Verdict:
    if costs_money(op):
        return ALLOW
    if actor == op.request.actor or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(md("Only the requester, {actor}, or an approver can cancel this.", actor=person(op.request.actor)))


def may_let_in(actor: str, people: People) -> Verdict:
    """Decide whether somebody may change the aliases that the tenants' keys can call."""
    if actor in people.approvers | people.admins:
        return ALLOW
    return refuse("Only approvers and admins can grant virtual keys access to another alias.")


def may_register(actor: str, people: People) -> Verdict:
    """Decide whether somebody may give tenants access to an alias before its pull request is approved."""
    if actor in people.approvers | people.admins:
        return ALLOW
    return refuse(
        "Only approvers and admins can register an alias before its pull request is approved: leave out `now`."
    )


def may_keep(holder: str, actor: str, people: People) -> Verdict:
    if actor == holder or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(md("Only {holder}, who holds the GPU, or an approver can keep it.", holder=person(holder)))


def may_bench(holder: str, actor: str, people: People) -> Verdict:
    """Decide whether somebody may start a benchmark: only the holder and approvers, because it slows down the model for
    its users.
    """
    if actor == holder or actor in people.approvers | people.admins:
        return ALLOW
    return refuse(
        md(
            "Only {holder}, who holds the GPU, or an approver can start a benchmark.",
            holder=person(holder),
        )
    )


def may_examine(actor: str, people: People) -> Verdict:
    if actor in people.admins:
        return ALLOW
    return refuse(
        md("Only admins (`roles.admins`) can examine the installation: the answer names systems and settings.")
    )


def may_set_up(actor: str, people: People) -> Verdict:
    """Decide whether somebody may propose Stoker's settings for the repository."""
    if actor in people.admins:
        return ALLOW
    names = md(", ").join(person(user) for user in sorted(people.admins)) or md("nobody (`roles.admins` is empty)")
    return refuse(md("Only admins can set Stoker up: {names}.", names=names))
