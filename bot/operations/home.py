"""App Home, kept up to date: published to whoever opened it, when what they see has changed."""

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

import structlog

from bot.domain import Lease, WeekPicture
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import endpoint_states
from bot.operations.receipt import draining, running_total
from bot.policy import People
from bot.report import Day, daily, picture_of_days
from bot.services import Services
from bot.slack import SlackRefused
from bot.views.endpoints import EndpointState
from bot.views.home import Overview, home, week_in_words, week_thread

T = TypeVar("T")
log = structlog.get_logger(__name__)

_WEEK = timedelta(days=7)
_AGAIN = timedelta(minutes=15)
"""How soon a picture that could not be made is tried again."""
_LOOKED_THROUGH, _SURELY = timedelta(seconds=3), timedelta(minutes=2)
"""Slack looks through a new file before it shows it: how long that takes, and after how long the file must be gone."""
_NO_THREAD = {"thread_not_found", "message_not_found", "invalid_thread_ts"}
"""What Slack answers when somebody deleted the message."""


async def publish(svc: Services, user: str) -> None:
    """Show Home to somebody who has just opened it, and remember to keep it up to date."""
    try:
        await svc.store.note_viewer(user, svc.clock())
    except Unavailable as error:
        log.warning("viewer not noted", actor=user, error=str(error))
    await _show(svc, await _seen(svc), user)


async def refresh(svc: Services) -> None:
    """Show Home anew to those who opened it and for whom it has changed."""
    viewers = await svc.store.viewers(svc.clock())
    if not viewers:
        return
    now, seen = svc.clock(), await _seen(svc)
    for user in viewers:
        digest = hashlib.sha256(json.dumps(home(seen, user, now), sort_keys=True).encode()).hexdigest()
        if await svc.store.home_changed(user, digest):
            try:
                await _show(svc, seen, user)
            except (BotError, Unavailable) as error:
                await svc.store.home_changed(user, "")  # so that the next round tries again
                log.warning("home not published", actor=user, error=str(error))


async def _seen(svc: Services) -> Overview:
    """What there is to see; a week that has no picture yet gets one, but nobody waits for that."""
    seen = await overview(svc)
    if seen.week and not seen.picture:
        await svc.docket.add("draw_week", key="week")()
    return seen


async def _show(svc: Services, seen: Overview, user: str) -> None:
    """Publish Home; with bars when Slack does not take the picture, as it does for some seconds after the upload."""
    try:
        await svc.slack.publish_home(user, home(seen, user, svc.clock()))
    except SlackRefused as refused:
        if not seen.picture:
            raise
        log.info("picture not shown", actor=user, error=str(refused))
        await svc.slack.publish_home(user, home(dataclasses.replace(seen, picture=""), user, svc.clock()))
        await svc.store.home_changed(user, "")  # the next round tries the picture again
        noted = await svc.store.week_picture()
        if noted and noted.file == seen.picture and svc.clock() - noted.at > _SURELY:  # somebody deleted it
            await svc.store.keep_week_picture(noted.model_copy(update={"file": ""}))


async def draw_week(svc: Services) -> None:
    """Draw the last week for Home, if its figures are others than those drawn before. Safe to repeat.

    Slack shows a file to those who see a conversation where it is shared, so it is shared in the thread of a message
    that is posted for that, once a month. Pictures of other figures are deleted: no Home shows them any more.
    """
    now, noted = svc.clock(), await svc.store.week_picture()
    if not await svc.store.viewers(now):
        return
    week = daily(await svc.sessions.bills(now - _WEEK), now)
    if not _drawn(noted, week) and (noted is None or noted.digest != _digest(week) or now - noted.at > _AGAIN):
        noted = WeekPicture(digest=_digest(week), file=await _draw(svc, week) if week else "", at=svc.clock())
        await svc.store.keep_week_picture(noted)
        await svc.docket.add("refresh_homes", when=svc.clock() + _LOOKED_THROUGH, key="homes")()
    for file_id in await svc.store.files():
        if noted is None or file_id != noted.file:
            await svc.slack.delete_file(file_id)
            await svc.store.forget_file(file_id)


async def _draw(svc: Services, week: tuple[Day, ...]) -> str:
    """The picture's id in Slack; empty when Slack does not take it."""
    png = await asyncio.to_thread(picture_of_days, week)
    key, title = f"week:{week[-1].day:%Y-%m}", f"gpu-week-{week[-1].day}.png"
    try:
        file_id = await svc.slack.upload_file(png, title, alt=week_in_words(week), note=svc.store.note_file)
        place = await svc.slack.post(key, svc.config.slack.channel, week_thread())
        await svc.slack.share_file(file_id, title, place)
    except SlackRefused as refused:
        log.warning("week not drawn", error=str(refused))
        if refused.code in _NO_THREAD:
            await svc.store.forget_message(key)
        return ""
    except Unavailable as error:
        log.warning("week not drawn", error=str(error))
        return ""
    return file_id


def _drawn(picture: WeekPicture | None, week: tuple[Day, ...]) -> bool:
    """Whether there is a picture of just this week."""
    return bool(picture and picture.file and picture.digest == _digest(week))


def _digest(week: tuple[Day, ...]) -> str:
    return hashlib.sha256(repr(week).encode()).hexdigest()


async def overview(svc: Services) -> Overview:
    """What is going on now. A system that does not answer costs its part, not the page.

    Without Redis, the leases are those that the Deployments carry.
    """
    silent: list[str] = []

    async def asked(work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except (BotError, Unavailable) as error:
            lost = isinstance(error, Unavailable) and error.system == "Redis"
            silent.append(
                f"{error}: nothing goes up until it does, and what was asked for is not shown" if lost else str(error)
            )
            return otherwise

    held, operations, people, users, bills = await asyncio.gather(
        asked(svc.leases.held(), None),
        asked(svc.store.open(), []),
        asked(svc.people(), People(frozenset(), frozenset(), frozenset())),
        asked(svc.cluster.gpu_users(), None),
        asked(svc.sessions.bills(svc.clock() - _WEEK), ()),
    )
    marked = [Lease.of_mark(user.mark, user.name) for user in users or ()]
    leases = tuple(mark for mark in marked if mark) if held is None else held
    now, leased = svc.clock(), {lease.model for lease in leases}
    active, spent = {}, {}
    for lease in leases:
        session = await asked(svc.sessions.of(lease.model), None) if held else None
        node = None
        if session and session.fence == lease.fence:
            active[lease.model], node = session.active, session.node
        usd, _ = running_total(svc, lease, node, now)
        spent[lease.model] = round(usd, 1)
    week = daily(bills, now)
    drawn = await asked(svc.store.week_picture(), None)
    return Overview(
        leases=leases,
        active=active,
        spent=spent,
        strangers=tuple(str(user) for user in users or () if user.name not in leased),
        known=held is not None and users is not None,
        drains=draining(bills, now),
        open=tuple(op for op in operations if op.message),
        endpoints=await asked(_endpoints(svc), ()),
        week=week,
        picture=drawn.file if drawn and _drawn(drawn, week) else "",
        approvers=people.approvers,
        workspace=await asked(svc.slack.address(), ""),
        silent=tuple(sorted(set(silent))),
    )


async def _endpoints(svc: Services) -> tuple[EndpointState, ...]:
    return await endpoint_states(svc, await svc.repository.head())
