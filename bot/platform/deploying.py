"""Finds the application of Argo CD or Flux that deploys an endpoint, and deploys a commit with it."""

import asyncio
import posixpath
from collections.abc import Sequence

from bot.clients.application import Application, repository_of
from bot.clients.deployer import Deployer, ObjectName, OnMessage
from bot.clock import Clock
from bot.component import component
from bot.git.repository import Repository
from bot.settings.config import Config
from manifests.contract import ModelEndpoint, read_endpoints
from manifests.deployed import reachable
from manifests.edit import value
from manifests.objects import objects
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree

_NOT_AT_ALL = (0, 0)


@component
class Applications:
    """Finds the application that deploys an endpoint or the gateway, and deploys a commit with it."""

    deployer: Deployer
    repository: Repository
    config: Config
    clock: Clock

    async def of(self, endpoint: ModelEndpoint, commit: str) -> Application | None:
        """Return the application that deploys an endpoint: the one named in the repository, otherwise the one that deploys
        its files; None if there is none.

        The second case covers applications that an ApplicationSet creates, or that deploy many endpoints.
        """
        if endpoint.application and (named := await self.deployer.get(endpoint.application)):
            return named
        tree = await self.repository.tree(commit)
        applications = await self.deployer.list()
        # In a thread, because reading a git tree starts processes.
        return await asyncio.to_thread(deploys, applications, endpoint, tree, self.repository.name)

    async def of_gateway(self, commit: str) -> Application | None:
        """Return the application that deploys LiteLLM's configuration: the one in the settings, otherwise the one that
        deploys the files with its list of models; None if there is none.
        """
        if named := await self.deployer.get(self.config.litellm.application):
            return named
        tree, applications = await self.repository.tree(commit), await self.deployer.list()
        return await asyncio.to_thread(
            deploys_gateway, applications, Platform(tree, self.config.platform), self.repository.name
        )

    async def bring_to(
        self, application: str, commit: str, *, actor: str, on_message: OnMessage, model: str = ""
    ) -> Application:
        """Deploy the commit: refresh an automated application and wait for it, or sync an application that is not automated.

        If the application also deploys other models, only the objects of `model` are synced, because git may have
        replicas for the others.
        """
        limit = self.clock.patience(self.config.argocd.sync_limit)

        async def includes(revision: str) -> bool:
            return await self.repository.includes(revision, commit)

        current = await self.deployer.get(application)
        if current is None or not current.automated:
            only = await self._own_objects(application, model, commit) if model and current is not None else ()
            return await self.deployer.sync(
                application, commit, actor=actor, timeout=limit, on_message=on_message, only=only
            )
        await self.deployer.refresh(application)
        return await self.deployer.wait_synced(
            application, commit, includes=includes, actor=actor, timeout=limit, on_message=on_message
        )

    async def _own_objects(self, application: str, model: str, commit: str) -> tuple[ObjectName, ...]:
        tree, listed = await self.repository.tree(commit), await self.deployer.list()
        platform = Platform(tree, self.config.platform)
        return await asyncio.to_thread(own_objects, platform, listed, application, model, self.repository.name)


def own_objects(
    platform: Platform, applications: Sequence[Application], application: str, model: str, repository: str = ""
) -> tuple[ObjectName, ...]:
    """The objects of a model if its application also deploys other models; otherwise empty."""
    try:
        endpoints = read_endpoints(platform)
    except ManifestError:
        return ()
    endpoint = next((endpoint for endpoint in endpoints if endpoint.name == model), None)
    others_apps = (
        deploys(applications, candidate, platform, repository)
        for candidate in endpoints
        if candidate.gpus and candidate.name != model
    )
    if endpoint is None or not any(app is not None and app.name == application for app in others_apps):
        return ()
    rename = platform.require(model).rendering.name
    names = (
        ObjectName(
            value(item.node, "apiVersion").rpartition("/")[0], kind, rename(value(item.node, "metadata", "name"))
        )
        for path in endpoint.files
        for kind, item in objects(platform, path)
    )
    return tuple(dict.fromkeys(name for name in names if name.name and name.kind != "Kustomization"))


def deploys(
    applications: Sequence[Application], endpoint: ModelEndpoint, tree: Tree, repository: str = ""
) -> Application | None:
    """Return the application that matches the endpoint's files best; None if none matches.

    The best match is an application that refers to one of the files (as its values), then the one with the longest
    directory that contains them, then one whose kustomization includes them. Applications of other repositories are
    used only if none of this repository matches.
    """
    named = next((candidate for candidate in applications if candidate.name == endpoint.application), None)
    return named or _closest(applications, _own_files(endpoint), tree, repository)


def deploys_gateway(
    applications: Sequence[Application], platform: Platform, repository: str = ""
) -> Application | None:
    """Return the application that deploys LiteLLM's list of models: the one whose values contain it, otherwise the one
    that deploys its file.
    """
    files = {models.document.path for models in platform.model_lists()}
    declared = {
        value(declaration.node, "metadata", "name")
        for path in files
        for kind, declaration in objects(platform, path)
        if kind == "Application"
    }
    with_values = [application for application in applications if application.name in declared]
    return with_values[0] if len(with_values) == 1 else _closest(applications, files, platform, repository)


def _closest(applications: Sequence[Application], files: set[str], tree: Tree, repository: str) -> Application | None:
    of_repository = [
        application
        for application in applications
        if any(repository_of(url) == repository.lower() for url in application.repositories)
    ]
    best = max(
        of_repository or applications, key=lambda application: _closeness(application, files, tree), default=None
    )
    return best if best is not None and _closeness(best, files, tree) > _NOT_AT_ALL else None


def closeness(application: Application, endpoint: ModelEndpoint, tree: Tree) -> tuple[int, int]:
    """Return how closely an application matches an endpoint's files; (0, 0) if it does not."""
    return _closeness(application, _own_files(endpoint), tree)


def _own_files(endpoint: ModelEndpoint) -> set[str]:
    return set(endpoint.files) - {endpoint.application_file}


def _closeness(application: Application, files: set[str], tree: Tree) -> tuple[int, int]:
    if files & set(application.files):
        return 3, 0
    parents = [len(path) for path in application.paths if any(_is_within(file, path) for file in files)]
    if parents:
        return 2, max(parents)
    includes = any(files & reachable(tree, path) for path in application.paths if path)
    return (1, 0) if includes else _NOT_AT_ALL


def _is_within(file: str, directory: str) -> bool:
    return directory in ("", ".") or file == directory or file.startswith(f"{posixpath.normpath(directory)}/")
