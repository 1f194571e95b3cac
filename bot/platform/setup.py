"""Sets Stoker up for a repository that its settings do not describe: opens a pull request with `.stoker.yaml`, and uses
its settings after the merge.

One set-up can be open at a time. It is recorded in Redis before the pull request is opened, and the watch repeats every
step until it is done, so a crash does not lose the set-up and does not open a second pull request.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from bot.clients.cluster import Cluster
from bot.clients.github import GitHub, PullRequest
from bot.clients.rights import rights
from bot.clock import Clock
from bot.engine.lifecycle import require
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.proposal import Question, is_understood, open_questions, propose, report, settings_yaml
from bot.policy import may_set_up
from bot.settings.config import Config, SettingsError
from bot.settings.of_repository import OWN_CONFIG, Installed, layered, merged, overruled, parsed, same
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.audit import AuditLog
from bot.state.leases import Leases
from bot.state.setup import InUse, Setup, SetupState
from bot.text.mrkdwn import md, person
from bot.views import lines
from bot.views.setup import SetupNeeded, not_used
from manifests.frozen import frozen
from manifests.tree import ChangeSet, Tree

log = structlog.get_logger(__name__)

_LISTED = 8
"""Maximum number of endpoints, of deployers and of unreadable items in a report in Slack."""
_FETCH_EVERY = 600.0
"""Interval in seconds at which the main branch is fetched, even without an event."""


@frozen
class Undescribed:
    """The survey of a repository that the settings do not describe, and settings that describe it."""

    commit: str
    report: tuple[str, ...]
    settings: Mapping[str, Any]
    readable: bool
    """True if it has an endpoint that Stoker can read."""
    own: str
    """The text of its `.stoker.yaml`."""


@frozen
class Proposed:
    """The result of a set-up: its pull request, or the settings to write into the installation's file."""

    text: str
    config: Config
    """The resulting settings."""
    pull: PullRequest | None = None
    is_new: bool = True
    """True if this request opened the pull request."""
    overruled: tuple[str, ...] = ()
    """The settings of the installation that would take precedence."""


@dataclass
class PlatformSetup:
    """The set-up. `config` are the settings in use; `installed` are the settings without `.stoker.yaml`."""

    state: SetupState
    audit: AuditLog
    leases: Leases
    cluster: Cluster
    github: GitHub
    repository: Repository
    roles: RoleMembers
    presentation: Presentation
    config: Config
    installed: Installed
    clock: Clock
    _understood: bool = field(default=False, init=False)
    """True if the settings describe the repository; it is then not checked again until a restart."""
    _survey: Undescribed | None = field(default=None, init=False)
    _checked_commit: str = field(default="", init=False)
    """The last commit whose `.stoker.yaml` was found to be in use."""
    _fetched_at: float = field(default=float("-inf"), init=False)

    async def survey(self) -> Undescribed | None:
        """Survey the repository if the settings do not describe it; None if they do."""
        if self._understood:
            return None
        commit = await self.repository.head()
        if self._survey is None or self._survey.commit != commit:
            tree = await self.repository.tree(commit)
            self._survey = await asyncio.to_thread(_survey_if_undescribed, commit, tree, self.config)
            self._understood = self._survey is None
        return self._survey

    async def needed(self) -> SetupNeeded | None:
        """Return the view to show; None if Stoker is set up."""
        if (survey := await self.survey()) is None:
            return None
        people, setup, used = await self.roles.people(), await self.state.open(), await self.state.in_use()
        return SetupNeeded(
            survey.report,
            survey.readable,
            people.admins,
            pull=setup.url if setup else "",
            waits=survey.own != (used.text if used else ""),
        )

    async def ask(self, actor: str) -> tuple[Undescribed, tuple[tuple[Question, str], ...]]:
        """Return the content of the form: the survey, and each open question with its current value."""
        survey = await self._survey_for(actor)
        if not survey.readable:
            raise BotError(
                md("The repository has no endpoint that Stoker can read: describe it in `platform.endpoints` first.")
            )
        settings = merged(survey.settings, self.installed.config.model_dump(mode="json", exclude_unset=True))
        values = self.config.model_dump(mode="json")
        return survey, tuple(
            (question, _text(values[question.section][question.key])) for question in open_questions(settings)
        )

    async def propose(self, actor: str, answers: Mapping[str, Any], delivery: str) -> Proposed:
        """Open the pull request with the settings and the answers, or return the one that is already open.

        `delivery` identifies the submitted form, so that a second delivery does not open a second pull request.
        """
        survey = await self._survey_for(actor)
        text = settings_yaml(merged(survey.settings, answers))
        if text == survey.own:
            raise BotError(
                "The main branch already has these settings. Stoker has sent the admins a direct message with the reason why it"
                " does not use them."
            )
        config = layered(self.installed.config, text)
        if stronger := overruled(parsed(text), config):
            return Proposed(text, config, overruled=stronger)
        mine = Setup(
            id=hashlib.sha256(delivery.encode()).hexdigest()[:10],
            actor=actor,
            text=text,
            base=survey.commit,
            at=self.clock(),
        )
        setup = await self.state.claim(mine)
        pull = await self._pull_of(setup)
        if pull.closed_unmerged and setup.id != mine.id:
            await self.state.close(setup)  # somebody rejected the earlier one
            setup = await self.state.claim(mine)
            pull = await self._pull_of(setup)
        if setup.id == mine.id:
            await self.audit.note_setup(actor, pull.url, setup.base, self.clock())
        return Proposed(setup.text, layered(self.installed.config, setup.text), pull, is_new=setup.id == mine.id)

    async def _survey_for(self, actor: str) -> Undescribed:
        """Survey the repository for a person who may set Stoker up; a refusal is recorded in the audit log."""
        verdict = may_set_up(actor, await self.roles.people())
        if not verdict.allowed:
            await self.audit.note_turned_away(actor, "set-up", str(verdict.reason), self.clock())
        require(verdict)
        if (survey := await self.survey()) is None:
            raise BotError("Stoker is already set up: its settings describe the repository.")
        return survey

    async def _pull_of(self, setup: Setup) -> PullRequest:
        """Return the pull request of a set-up, and open it if it does not exist. Idempotent.

        If GitHub or git refuses it, the set-up ends, and the next one starts from the current commit.
        """
        try:
            return await self._find_or_open(setup)
        except BotError:
            if not setup.url:
                await self.state.close(setup)
                with suppress(BotError, Unavailable):  # the first error is raised
                    await self.github.withdraw(setup.branch)
            raise

    async def _find_or_open(self, setup: Setup) -> PullRequest:
        pull = await self.github.find_pull(setup.branch)
        if pull is None:
            title = f"chore(stoker): describe this platform in {OWN_CONFIG}"
            message = f"{title}\n\nRequested-by: {setup.actor}\nOperation: {setup.id}\n"
            changes = ChangeSet(files={OWN_CONFIG: setup.text})
            await self.repository.push(changes, base=setup.base, branch=setup.branch, message=message, when=setup.at)
            branch, labels = self.config.platform.branch, self.config.github.labels
            requester = await self.roles.directory.signature(setup.actor)
            pull = await self.github.open_pull(setup.branch, branch, title, _body(setup, requester), labels)
        await self.state.note_pull(setup, pull.url)
        return pull

    async def watch(self) -> None:
        """Finish an interrupted set-up, and use the settings of the main branch as soon as possible."""
        setup = await self.state.open()
        pull = await self._pull_of(setup) if setup else None
        if setup and pull and pull.closed_unmerged:
            await self.state.close(setup)
        commit = self.repository.newest
        if (pull and pull.merged) or time.monotonic() - self._fetched_at > _FETCH_EVERY:
            commit, self._fetched_at = await self.repository.head(), time.monotonic()
        if commit != self._checked_commit:
            tree = await self.repository.tree(commit)
            text = await asyncio.to_thread(tree.read, OWN_CONFIG) or ""
            if await self._is_used(commit, text):
                self._checked_commit = commit
        if setup and pull and pull.merged:
            await self.state.close(setup)

    async def _is_used(self, commit: str, text: str) -> bool:
        """Return whether the text of `.stoker.yaml` is in use. Starts to use it if it is new and valid; otherwise notifies
        the admins once of the reason.
        """
        used = await self.state.in_use()
        try:
            config = layered(self.installed.config, text)
            if text == (used.text if used else ""):
                return True
            reason = "" if same(config, self.config) else await self._obstacle(config)
        except SettingsError as error:
            reason = error.shown
        except Unavailable as error:
            log.info("settings not checked", error=str(error))
            return False
        if not reason:
            await self.state.use(InUse(commit=commit, text=text, announced=same(config, self.config)))
            return True
        digest = hashlib.sha256(f"{text}\0{reason}".encode()).hexdigest()[:10]
        await self.presentation.notify_admins(f"setup:{digest}", lines(not_used(commit, reason)))
        return False

    async def _obstacle(self, config: Config) -> str:
        """Return the reason why these settings cannot be used now; empty if they can."""
        if leases := await self.leases.held():
            holding = md("{holder} holds the GPU", holder=person(leases[0].holder))
            return md("{holding}, and settings change only when no model is up", holding=holding)
        try:
            lacking = await self.cluster.lacking(rights(config))
        except BotError as error:
            log.info("rights not checked", error=str(error))
            return ""
        needed = [str(right) for right in lacking if not right.without]
        if not needed:
            return ""
        return md(
            "Stoker's account lacks {count} rights that the settings require, for example to {first}. Add the settings below "
            "`config` in the chart's values, so that the chart grants the rights, or apply the output of `stoker rights`",
            count=len(needed),
            first=needed[0],
        )


def _survey_if_undescribed(commit: str, tree: Tree, config: Config) -> Undescribed | None:
    if is_understood(tree, config):
        return None
    try:
        settings = parsed(tree.read(OWN_CONFIG) or "")
    except SettingsError:
        settings = {}  # the watch reports an invalid file
    proposal = propose(tree, settings, config.platform)
    readable, current_text = bool(proposal.survey.endpoints), tree.read(OWN_CONFIG) or ""
    return Undescribed(commit, report(proposal.survey, _LISTED), proposal.settings, readable, current_text)


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _body(setup: Setup, requester: str) -> str:
    return (
        f"Requested in Slack by {requester}. Stoker uses these settings after the merge, which does not roll anything "
        f"out. Settings of the installation take precedence.\n\n<sub>Operation {setup.id}</sub>\n"
    )
