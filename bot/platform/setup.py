"""Sets Stoker up for a repository that its settings do not describe: a pull request with `.stoker.yaml`, and the
use of its settings after the merge.

One set-up is open at a time. Its record in Redis is made before the pull request, and every step is repeated by the
watch until it is done, so a crash at any point neither loses it nor opens a second pull request.
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
from bot.platform.proposal import Question, is_understood, open_questions, propose, report, written
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
from manifests.tree import ChangeSet, Tree

log = structlog.get_logger(__name__)

_LISTED = 8
"""Maximum number of endpoints, of deployers and of unreadable items in a report in Slack."""
_FETCH_EVERY = 600.0
"""Seconds after which the branch is read although nothing else has fetched it."""


@dataclass(frozen=True)
class Found:
    """A repository that the settings do not describe, and settings that describe it."""

    commit: str
    report: tuple[str, ...]
    settings: Mapping[str, Any]
    readable: bool
    """True if it has an endpoint that Stoker can read."""
    own: str
    """The text of its `.stoker.yaml`."""


@dataclass(frozen=True)
class Proposed:
    """The result of a set-up: its pull request, or the settings to write into the installation's file."""

    text: str
    config: Config
    """The settings that result from it."""
    pull: PullRequest | None = None
    is_new: bool = True
    """True if this request opened it."""
    overruled: tuple[str, ...] = ()
    """The settings of the installation that would take precedence."""


@dataclass
class PlatformSetup:
    """`config` are the settings in use, `installed` those without `.stoker.yaml`."""

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
    """True if the settings describe the repository, which is then not checked again until the next start."""
    _found: Found | None = field(default=None, init=False)
    _seen: str = field(default="", init=False)
    """The last commit whose settings were checked: they are in use, or cannot be used."""
    _fetched: float = field(default=float("-inf"), init=False)

    async def found(self) -> Found | None:
        """Return the contents of the repository if the settings do not describe them; None if they do."""
        if self._understood:
            return None
        commit = await self.repository.head()
        if self._found is None or self._found.commit != commit:
            tree = await self.repository.tree(commit)
            self._found = await asyncio.to_thread(_look, commit, tree, self.config)
            self._understood = self._found is None
        return self._found

    async def needed(self) -> SetupNeeded | None:
        """Return the view to show; None if Stoker is set up."""
        if (survey := await self.found()) is None:
            return None
        people, setup, used = await self.roles.people(), await self.state.open(), await self.state.in_use()
        return SetupNeeded(
            survey.report,
            survey.readable,
            people.admins,
            pull=setup.url if setup else "",
            waits=survey.own != (used.text if used else ""),
        )

    async def ask(self, actor: str) -> tuple[Found, tuple[tuple[Question, str], ...]]:
        """Return the data of the form: the survey, and each open question with its current value."""
        survey = await self._for(actor)
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
        """Open the pull request with the settings and the answers; returns the open one if there is one.

        `delivery` identifies the submitted form, so that it never opens a second pull request.
        """
        survey = await self._for(actor)
        text = written(merged(survey.settings, answers))
        if text == survey.own:
            raise BotError(
                "The main branch has these settings already. A direct message to the admins has the reason why Stoker does not use them."
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

    async def _for(self, actor: str) -> Found:
        verdict = may_set_up(actor, await self.roles.people())
        if not verdict.allowed:
            await self.audit.note_turned_away(actor, "set-up", str(verdict.reason), self.clock())
        require(verdict)
        if (survey := await self.found()) is None:
            raise BotError("Stoker is set up: its settings describe the repository.")
        return survey

    async def _pull_of(self, setup: Setup) -> PullRequest:
        """Return the pull request of a set-up, and open it if there is none. Idempotent.

        If GitHub or git refuses it, the set-up is over: the next one starts from the current commit.
        """
        try:
            return await self._opened(setup)
        except BotError:
            if not setup.url:
                await self.state.close(setup)
                with suppress(BotError, Unavailable):  # the first error names the problem
                    await self.github.withdraw(setup.branch)
            raise

    async def _opened(self, setup: Setup) -> PullRequest:
        pull = await self.github.find_pull(setup.branch)
        if pull is None:
            title = f"chore(stoker): describe this platform in {OWN_CONFIG}"
            message = f"{title}\n\nRequested-by: {setup.actor}\nOperation: {setup.id}\n"
            changes = ChangeSet(files={OWN_CONFIG: setup.text})
            await self.repository.push(changes, base=setup.base, branch=setup.branch, message=message, when=setup.at)
            branch, labels = self.config.platform.branch, self.config.github.labels
            who = await self.roles.directory.signature(setup.actor)
            pull = await self.github.open_pull(setup.branch, branch, title, _body(setup, who), labels)
        await self.state.note_pull(setup, pull.url)
        return pull

    async def watch(self) -> None:
        """Finish an interrupted set-up, and use the settings of the main branch once they can be used."""
        setup = await self.state.open()
        pull = await self._pull_of(setup) if setup else None
        if setup and pull and pull.closed_unmerged:
            await self.state.close(setup)
        commit = self.repository.newest
        if (pull and pull.merged) or time.monotonic() - self._fetched > _FETCH_EVERY:
            commit, self._fetched = await self.repository.head(), time.monotonic()
        if commit != self._seen:
            tree = await self.repository.tree(commit)
            text = await asyncio.to_thread(tree.read, OWN_CONFIG) or ""
            if await self._is_used(commit, text):
                self._seen = commit
        if setup and pull and pull.merged:
            await self.state.close(setup)

    async def _is_used(self, commit: str, text: str) -> bool:
        """Use the text of `.stoker.yaml` if it is new and valid; otherwise notify the admins once of the reason."""
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
        await self.presentation.tell_admins(f"setup:{digest}", lines(not_used(commit, reason)))
        return False

    async def _obstacle(self, config: Config) -> str:
        """The reason why these settings cannot be used now; empty if they can."""
        if leases := await self.leases.held():
            who = md("{holder} holds the GPU", holder=person(leases[0].holder))
            return md("{who}, and settings change only when no model is up", who=who)
        try:
            lacking = await self.cluster.lacking(rights(config))
        except BotError as error:
            log.info("rights not checked", error=str(error))
            return ""
        needed = [str(right) for right in lacking if not right.without]
        if not needed:
            return ""
        return md(
            "Stoker's account lacks {count} rights that they need, for example to {first}. Write the same settings below "
            "`config` in the chart's values, which then grants them, or apply what `stoker rights` prints for them",
            count=len(needed),
            first=needed[0],
        )


def _look(commit: str, tree: Tree, config: Config) -> Found | None:
    if is_understood(tree, config):
        return None
    try:
        settings = parsed(tree.read(OWN_CONFIG) or "")
    except SettingsError:
        settings = {}  # the watch reports an invalid file
    proposal = propose(tree, settings, config.platform)
    readable, own = bool(proposal.found.endpoints), tree.read(OWN_CONFIG) or ""
    return Found(commit, report(proposal.found, _LISTED), proposal.settings, readable, own)


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _body(setup: Setup, who: str) -> str:
    return (
        f"Requested in Slack by {who}. Stoker uses these settings once this is merged; nothing is rolled "
        f"out by it. A setting of the installation itself takes precedence.\n\n<sub>Operation {setup.id}</sub>\n"
    )
