"""The text for the end of an operation."""

from datetime import timedelta
from typing import assert_never

from bot.domain.operations import BringUpOperation, Operation, SessionEnd, TestedOperation
from bot.domain.outcomes import (
    BackAtZero,
    Benchmarked,
    BootCancelled,
    BroughtDown,
    Cancelled,
    ClosedOnGitHub,
    CutShort,
    Denied,
    DownloadKept,
    Expired,
    Extended,
    Failed,
    JobDeleted,
    LeaseUnchanged,
    LeaseUnclear,
    LeftQueue,
    LeftUp,
    MergedElsewhere,
    NothingMerged,
    NothingRan,
    NothingStarted,
    NotRestored,
    NotTakenBack,
    OfferExpired,
    PullClosed,
    Refused,
    Removed,
    Replaced,
    ReplacedWhileBooting,
    Restored,
    RolledOut,
    ServesAgain,
    SessionOver,
    SmokeTested,
    Started,
    StaysMerged,
    TryAgain,
    Undone,
    VolumeGrew,
    WeightsStaged,
)
from bot.domain.sessions import Bill
from bot.domain.values import Moment
from bot.text.durations import show_duration
from bot.text.mrkdwn import Mrkdwn, link, md, person
from bot.views.links import NO_LINKS, Links
from bot.views.receipt import receipt
from bot.views.text import clock, code, moment, size


def outcome_text(op: Operation, links: Links = NO_LINKS) -> Mrkdwn:
    """The result of an operation, or its latest event while it runs; empty if there is none."""
    if isinstance(op, BringUpOperation) and op.session_end and isinstance(op.result, Started | LeftUp):
        return _was_up(op, op.session_end, links)
    match op.result:
        case None:
            return op.outcome
        case Failed() | LeftUp() | Cancelled() | Denied() | Refused():
            return _unsuccessful(op, op.result)
        case Expired() | OfferExpired() | LeftQueue() | ReplacedWhileBooting() | ClosedOnGitHub() | MergedElsewhere():
            return _obsolete(op, op.result)
        case _:
            return _successful(op, op.result)


def _was_up(op: Operation, end: SessionEnd, links: Links) -> Mrkdwn:
    """The text of a session that is over. It does not describe the current state of the model."""
    at = clock if end.until - op.request.at < timedelta(hours=12) else moment
    since = md("{since}–", since=at(end.since)) if end.since else md("until ")
    failed = md("{reason} ", reason=op.result.reason) if isinstance(op.result, LeftUp) else md("")
    text = md(
        "{failed}{model} was up {since}{until}",
        failed=failed,
        model=code(op.request.model),
        since=since,
        until=at(end.until),
    )
    receipt = links.message(end.receipt, "receipt")
    return md("{text} · {receipt}", text=text, receipt=receipt) if end.receipt else md("{text}.", text=text)


def _unsuccessful(op: Operation, outcome: Failed | LeftUp | Cancelled | Denied | Refused) -> Mrkdwn:
    """The text of an operation that failed, or that a person denied or cancelled, with the state after the rollback."""
    model, name = code(op.request.model), op.request.model
    match outcome:
        case Refused(reason=reason):
            return reason
        case Failed(reason=reason, undone=LeaseUnchanged()):
            return md("Failed: {reason} The lease ends as before.", reason=reason)
        case Failed(reason=reason, undone=undone):
            return md("{reason} {undone}", reason=reason, undone=_undone(undone, op)) if undone else reason
        case Cancelled(by="stoker", undone=DownloadKept() as undone):
            return md("Cancelled, because the endpoint has changed. {undone}", undone=_undone(undone, op))
        case Cancelled(by=by, undone=undone):
            return md("Cancelled by {by}. {undone}", by=person(by), undone=_undone(undone, op)).strip()
        case Denied(undone=PullClosed() as closed):
            return md("Nothing was rolled out. {closed}", closed=_pull_closed(closed, name)).strip()
        case Denied(undone=undone):
            return _undone(undone, op)
        case LeftUp(reason=reason, holder=holder, ends=ends):
            return md(
                "{reason} {model} stays up because of `keep`; {holder} holds the GPU{ends}. `/gpu down` ends it.",
                reason=reason,
                model=model,
                holder=person(holder),
                ends=_until(ends),
            )
        case _:
            assert_never(outcome)


def _obsolete(
    op: Operation, outcome: Expired | OfferExpired | LeftQueue | ReplacedWhileBooting | ClosedOnGitHub | MergedElsewhere
) -> Mrkdwn:
    """The text of an operation that ended early because of an expiry, another operation, or an event on GitHub."""
    match outcome:
        case Expired(pull_left_open=pull):
            pull_text = " Its pull request is left open." if pull else ""
            return md("Nobody decided in time, so nothing was started.{left} Request it again.", left=pull_text)
        case OfferExpired():
            actor = person(op.request.actor)
            return md("{actor} did not take the GPU in time, so the offer has expired. Request it again.", actor=actor)
        case LeftQueue(by=by):
            return md("{actor} left the queue. Nothing was started.", actor=person(by))
        case ReplacedWhileBooting(model=model, by=by):
            return md(
                "Replaced by {model}, as {actor} requested, before it was up.", model=code(model), actor=person(by)
            )
        case ClosedOnGitHub(number=number, by=by):
            return md(
                "Pull request #{number} was closed on GitHub{by}. Nothing was rolled out.", number=number, by=_by(by)
            )
        case MergedElsewhere(number=number, by=by, base=base):
            return md(
                "Pull request #{number} was merged on GitHub{by}, into {base}. Nothing was rolled out.",
                number=number,
                by=_by(by),
                base=code(base),
            )
        case _:
            assert_never(outcome)


def _successful(
    op: Operation,
    outcome: Started
    | BroughtDown
    | BootCancelled
    | ServesAgain
    | Extended
    | SmokeTested
    | Benchmarked
    | WeightsStaged
    | RolledOut
    | Removed,
) -> Mrkdwn:
    model, name = code(op.request.model), op.request.model
    match outcome:
        case Started(holder=holder, ends=ends):
            return md(
                "{model} is up and answers; {proven} {holder} holds the GPU{ends}. `/gpu down` ends it.",
                model=model,
                proven=_proven(op),
                holder=person(holder),
                ends=_until(ends),
            )
        case BroughtDown(bill=bill):
            cost = receipt(bill) if bill else "Nobody held a lease, so there is no receipt."
            return md("{model} is down and the GPU is free.\n{cost}", model=model, cost=cost)
        case BootCancelled():
            return md("{model} was still booting; its bring-up is being cancelled.", model=model)
        case ServesAgain(holder=holder, ends=ends, took=took):
            return md(
                "{model} serves again: the restart took {took}. The lease of {holder} was not changed{ends}.",
                model=model,
                holder=person(holder),
                ends=_ended_at(ends),
                took=show_duration(took),
            )
        case Extended(holder=holder, ends=ends):
            end = md(" to {ends}", ends=clock(ends)) if ends else ""
            return md(
                "The lease of {holder} for {model} was extended{end}.", model=model, holder=person(holder), end=end
            )
        case SmokeTested():
            return md("{model} answers; {proven}", model=model, proven=_proven(op))
        case Benchmarked(tokens_per_second=speed, concurrency=concurrency, first_token_ms=first):
            return md(
                "{model} generates up to {tokens_per_second} tokens/s, with {concurrency} requests at a time and "
                "the first token after {first_token_ms} ms. The table and the picture are in the thread.",
                model=model,
                tokens_per_second=f"{speed:.0f}",
                concurrency=concurrency,
                first_token_ms=f"{first:.0f}",
            )
        case WeightsStaged(hf_id=hf_id, bytes=count):
            return md(
                "The weights of {hf_id} ({size}) are on the volume of {model}, and no GPU was billed for the "
                "download. `/gpu up {name}` only has to load them.",
                hf_id=code(hf_id),
                size=size(count),
                model=model,
                name=name,
            )
        case RolledOut() as rolled_out:
            drifts = (md("⚠️ {drift}", drift=drift) for drift in rolled_out.drifts)
            return md("\n").join([_rolled_out(rolled_out, name), *drifts])
        case Removed():
            return md("{model} is removed, with its volume and the weights in it.", model=model)
        case _:
            assert_never(outcome)


def _rolled_out(outcome: RolledOut, name: str) -> Mrkdwn:
    model, served = code(name), code(outcome.serves)
    match outcome.then:
        case "restarted":
            return md(
                "{model} now serves {served} and answers. Downtime: {down}, from the merge until it answered.",
                model=model,
                served=served,
                down=show_duration(outcome.downtime) if outcome.downtime is not None else "unknown",
            )
        case "being brought up":
            return md(
                "{model} is rolled out with {served} and is being brought up; see the card of the bring-up.",
                model=model,
                served=served,
            )
        case "at zero":
            staging = " Its weights are being staged; see the card of the staging." if outcome.staging else ""
            return md(
                "{model} is rolled out with {served} and is down. `/gpu up {name}` brings it up.{staging}",
                model=model,
                served=served,
                name=name,
                staging=staging,
            )
        case "answers":
            return md("{model} is rolled out, serves {served} and answers.", model=model, served=served)
        case _:
            assert_never(outcome.then)


def _undone(undone: Undone, op: Operation) -> Mrkdwn:
    """The state after a rollback."""
    model, name = code(op.request.model), op.request.model
    match undone:
        case NothingStarted():
            return md("Nothing was started.")
        case NothingRan():
            return md("Nothing was running.")
        case BackAtZero(bill=bill, replaced=replaced):
            return _back_at_zero(model, bill, replaced)
        case SessionOver(bill=bill):
            return md("{model} is down and the GPU is free.\n{receipt}", model=model, receipt=receipt(bill))
        case JobDeleted(existed=existed):
            return md("Its Job is deleted.") if existed else md("Its Job no longer exists.")
        case DownloadKept():
            return md("Downloaded files stay on the volume.")
        case TryAgain():
            return md("Try `/gpu down {model}` again.", model=name)
        case LeaseUnchanged():
            return md("The lease ends as before.")
        case LeaseUnclear():
            return md("See `/gpu status`.")
        case CutShort(told=told):
            return told
        case NothingMerged() | StaysMerged() | PullClosed():
            return _pull_after(undone, name)
        case _:
            assert_never(undone)


def _back_at_zero(model: Mrkdwn, bill: Bill | None, replaced: Replaced | None) -> Mrkdwn:
    free = "" if replaced else " and the GPU is free"
    rows = [md("{model} is down again{free}.", model=model, free=free)]
    rows += [receipt(bill)] if bill else []
    rows += [replaced_text(replaced)] if replaced else []
    return md("\n").join(rows)


def _pull_after(undone: NothingMerged | StaysMerged | PullClosed, name: str) -> Mrkdwn:
    """The state of the pull request after a rollback."""
    match undone:
        case NothingMerged():
            return md("Nothing was merged.")
        case StaysMerged(number=number, url=url):
            return md("{pull} is merged; revert it to undo.", pull=link(url, f"Pull request #{number}"))
        case PullClosed():
            return _pull_closed(undone, name)
        case _:
            assert_never(undone)


def _pull_closed(closed: PullClosed, name: str) -> Mrkdwn:
    rows = []
    if closed.number:
        rows.append(md("Pull request #{number} is closed and its branch deleted.", number=closed.number))
    if closed.grew:
        rows.append(_grew(closed.grew, name))
    return md(" ").join(rows)


def _grew(volume: VolumeGrew, name: str) -> Mrkdwn:
    return md(
        "⚠️ The volume {claim} has already grown from {old} to {size} and cannot shrink. Set {storage} in its claim"
        " in git: until then Argo CD cannot sync {model}.",
        claim=code(volume.claim),
        old=volume.before,
        size=volume.size,
        storage=code(f"storage: {volume.size}"),
        model=code(name),
    )


def replaced_text(replaced: Replaced) -> Mrkdwn:
    """The result for the model that a replacement had displaced."""
    model, holder = code(replaced.model), person(replaced.holder)
    match replaced:
        case Restored(ends=ends):
            return md(
                "{model} is restored: {holder} holds the GPU again{until}.",
                model=model,
                holder=holder,
                until=_until(ends),
            )
        case NotRestored(why=why, bill=bill):
            cost = md("\n{receipt}", receipt=receipt(bill)) if bill else ""
            return md(
                "{model} of {holder} could not be restored either: {why} The GPU is free.{cost}",
                model=model,
                holder=holder,
                why=why,
                cost=cost,
            )
        case NotTakenBack(why=why):
            return md("{model} of {holder} is not restored: {why}", model=model, holder=holder, why=why)
        case _:
            assert_never(replaced)


def _proven(op: Operation) -> Mrkdwn:
    """The result of smoke tests that did not fail."""
    checks = op.checks if isinstance(op, TestedOperation) else ()
    doubt = next((check for check in checks if check.warning and check.by_gateway), None)
    if doubt is None:
        return md("all smoke tests passed.")
    return md("⚠️ {evidence} `/model smoke {model}` tests it again.", evidence=doubt.evidence, model=op.request.model)


def _by(login: str) -> Mrkdwn:
    return md(" by {login}", login=login) if login else md("")


def _ended_at(ends: Moment | None) -> Mrkdwn:
    return md(": its end is {ends}", ends=clock(ends)) if ends else md("")


def _until(ends: Moment | None) -> Mrkdwn:
    return md(" until {ends}", ends=clock(ends)) if ends else md("")
