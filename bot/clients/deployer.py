"""Deploys the endpoints from git: one interface for Argo CD (`argocd`) and Flux (`flux`).

An `Application` is the deployer's object for a part of the repository: an Application of Argo CD, or a Kustomization of
Flux. Operations refer to it by name.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from bot.clients.application import Application
from bot.clients.workload import Workload
from bot.errors import BotError

OnMessage = Callable[[str], Awaitable[None]]
"""Callback for the deployer's messages about running work."""


async def ignore_message(_: str) -> None:
    """No-op callback."""


class ObjectName(NamedTuple):
    """An object in the manifests of an application, in any namespace."""

    group: str
    kind: str
    name: str


class SyncFailed(BotError):
    """The deployer refused or failed to deploy a commit, or did not finish in time. The message is the deployer's."""

    remedy = "Read the deployer's message, fix the manifests (or the rule that forbids the sync), and request it again."


class Deployer(Protocol):
    """All calls are idempotent, and raise `SyncFailed` if the deployer cannot do what was requested."""

    @property
    def word(self) -> str:
        """The deployer's name in messages."""

    async def get(self, name: str) -> Application | None:
        """The application of this name; None if it does not exist."""

    async def list(self) -> tuple[Application, ...]: ...

    async def of(self, workload: Workload) -> Application | None:
        """The application that deploys a Deployment, according to its labels; the repository is not read."""

    async def refresh(self, name: str) -> None:
        """Make the deployer poll git now instead of at its next interval."""

    async def sync(
        self,
        name: str,
        revision: str,
        *,
        actor: str,
        timeout: float,
        on_message: OnMessage = ignore_message,
        only: tuple[ObjectName, ...] = (),
    ) -> Application:
        """Deploy a commit on behalf of `actor`, and wait until it is deployed. `only` limits the deployment to these
        objects, if the deployer supports that.
        """

    async def wait_synced(
        self,
        name: str,
        commit: str,
        *,
        includes: Callable[[str], Awaitable[bool]],
        actor: str,
        timeout: float,
        on_message: OnMessage = ignore_message,
    ) -> Application:
        """Wait until an automated application has deployed a commit for which `includes` is true."""

    async def terminate(self, name: str, revision: str, actor: str) -> bool:
        """Terminate the work that `actor` requested; returns whether there was such work and it has ended."""

    async def wait_for(self, name: str, *, timeout: float, until: Callable[[Application], bool]) -> Application:
        """Wait until the application exists and `until` is true."""

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        """Wait until the application and its objects no longer exist."""
