"""The platform: its repository and contract, the cluster's rights and Applications, the gateway and the Hub."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.github import GitHub
from bot.clients.github_app import AppToken
from bot.clients.huggingface import HuggingFace
from bot.clients.job import Jobs
from bot.clients.kube import rights
from bot.clients.litellm import LiteLLM
from bot.doctor.findings import Finding, ok, warning, wrong
from bot.errors import BotError
from bot.gitops import Repository
from bot.services import Token
from bot.settings import Config, Settings
from manifests.contract import ModelEndpoint, check, read_endpoints
from manifests.tree import ManifestError, Tree

GITHUB, GIT, CONTRACT = "GitHub", "git", "contract"
KUBERNETES, ARGOCD, GATEWAY, HUB = "Kubernetes", "Argo CD", "LiteLLM", "Hugging Face"
_SHOWN = 10
"""Disagreements of the contract that are listed; the rest are counted."""


async def github(settings: Settings, client: GitHub, token: Token) -> AsyncIterator[Finding]:
    access = await client.access()
    name, branch = settings.github_repository, settings.config.platform.branch
    if access.archived:
        yield wrong(GITHUB, f"{name} is archived", "Unarchive it, or set GITHUB_REPOSITORY to the one in use.")
    if isinstance(token, AppToken):
        if lacking := ", ".join(await token.lacking()):
            yield wrong(
                GITHUB,
                f"the App's installation lacks {lacking}",
                "Add that to the App's repository permissions, and accept the change at its installation.",
            )
        else:
            yield ok(GITHUB, f"the App has the permissions in use on {name}")
    elif not access.push:
        yield wrong(GITHUB, f"the token may not write to {name}", "Give it Contents and Pull requests: read and write.")
    elif access.scopes is not None and not {"repo", "public_repo"} & set(access.scopes):
        yield wrong(GITHUB, "the classic token lacks the scope repo", "Make one with it, or better a GitHub App.")
    else:
        yield ok(GITHUB, f"the token may write to {name}")
    protected = await client.protected(branch)
    if protected is None:
        yield wrong(GITHUB, f"{name} has no branch {branch}", "Set platform.branch to the branch that Argo CD follows.")
    elif not protected:
        yield warning(
            GITHUB,
            f"{branch} is not protected, so a change can pass the pull request by",
            "Protect the branch: require a pull request and its checks.",
        )
    else:
        yield ok(GITHUB, f"{branch} is protected")
    if settings.github_webhook_secret is None:
        every = settings.config.github.poll_every.total_seconds()
        yield ok(GITHUB, f"no webhook: pull requests are looked at every {every:.0f} s")


class Contract:
    """The repository's checks, and the endpoints that they found for the checks of the cluster."""

    def __init__(self, config: Config, repository: Repository) -> None:
        self._config, self._repository = config, repository
        self.endpoints: tuple[ModelEndpoint, ...] = ()

    async def checks(self) -> AsyncIterator[Finding]:
        commit = await self._repository.head()
        tree = await self._repository.tree(commit)
        yield ok(GIT, f"{self._config.platform.branch} is at {commit[:7]}")
        for finding in await asyncio.to_thread(self._layout, tree):
            yield finding

    def _layout(self, tree: Tree) -> list[Finding]:
        layout = self._config.platform
        places = {
            "platform.serving_dir": layout.serving_dir,
            "platform.catalog_dir": layout.path(layout.catalog_dir),
            "platform.litellm_values": layout.litellm_values,
            "platform.config": layout.path(layout.config),
        }
        missing = [
            wrong(CONTRACT, f"the repository has no {place}", f"Set {key} to where the platform keeps it.")
            for key, place in places.items()
            if not tree.files(place)
        ]
        if missing:
            return missing
        try:
            self.endpoints = read_endpoints(tree, layout)
            disagreements = check(tree, layout)
        except ManifestError as error:
            return [wrong(CONTRACT, str(error), "Mend that file; the bot reads it for every request.")]
        if not self.endpoints:
            return [
                wrong(
                    CONTRACT,
                    f"no endpoint below {layout.serving_dir} follows the contract",
                    "See `stoker model check`.",
                )
            ]
        found = [
            warning(CONTRACT, f"{each.path}:{each.line}: {each.message}", each.fix) for each in disagreements[:_SHOWN]
        ]
        if len(disagreements) > _SHOWN:
            found.append(warning(CONTRACT, f"and {len(disagreements) - _SHOWN} more", "See `stoker model check`."))
        if layout.template not in {endpoint.name for endpoint in self.endpoints}:
            found.append(
                wrong(
                    CONTRACT,
                    f"there is no endpoint {layout.template}",
                    "Set platform.template to one that new models may copy.",
                )
            )
        return found or [ok(CONTRACT, f"{len(self.endpoints)} endpoints agree with themselves")]


async def cluster(config: Config, client: Cluster) -> AsyncIterator[Finding]:
    wanted = rights(config)
    lacking = await client.lacking(wanted)
    for right in lacking:
        made = warning if right.without else wrong
        lost = f": {right.without}" if right.without else ""
        yield made(
            KUBERNETES, f"the bot may not {right}{lost}", "Add that right to its Role; the chart grants all of them."
        )
    if not lacking:
        yield ok(KUBERNETES, f"the bot has each of the {len(wanted)} rights in use")
    for ref, use, key in (
        (config.vllm.api_key, "vLLM's key", "vllm.api_key"),
        (config.litellm.master_key, "LiteLLM's master key", "litellm.master_key"),
    ):
        try:
            await client.secret(ref.name, ref.field, namespace=ref.namespace)
        except BotError as error:
            yield wrong(
                KUBERNETES,
                f"{use} cannot be read: {error.message}",
                f"Name the right Secret in {key}.",
            )
        else:
            yield ok(KUBERNETES, f"{use} can be read")


async def benchmarks(config: Config, client: Jobs, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    """What `/model bench` needs beside the rights on Jobs, once its image is set."""
    if not config.bench.image:
        yield ok(KUBERNETES, "no benchmarks: bench.image names no image of GuideLLM")
        return
    key, home = config.vllm.api_key, config.platform.namespace
    if key.namespace != home:
        yield wrong(
            KUBERNETES,
            f"a benchmark runs in namespace {home} and cannot use vLLM's key from {key.namespace}",
            "Put the Secret into the models' namespace and name it in vllm.api_key.",
        )
    found = [await client.obstacle(endpoint.name, config.bench, key) for endpoint in endpoints if endpoint.gpus]
    for obstacle in filter(None, found):
        yield warning(KUBERNETES, obstacle.partition(". ")[0], obstacle.partition(". ")[2])
    if not any(found):
        yield ok(KUBERNETES, "each GPU model that is deployed can be measured with /model bench")


async def applications(config: Config, client: ArgoCD, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    """Each endpoint's Application, and whether its cost gate is shut in the cluster too."""
    live = {found.name: found for found in await client.list()}
    if config.litellm.application not in live:
        yield wrong(
            ARGOCD,
            f"there is no Application {config.litellm.application} in {config.argocd.namespace}",
            "Set litellm.application and argocd.namespace to where LiteLLM's is.",
        )
    bad = 0
    for endpoint in endpoints:
        found = live.get(endpoint.application)
        if found is None:
            bad += 1
            yield warning(
                ARGOCD,
                f"{endpoint.name} has no Application {endpoint.application or '(none in the repository)'} in the cluster",
                "Switch its group on, and let Argo CD pick it up.",
            )
        elif endpoint.gpus and found.automated:
            bad += 1
            yield wrong(
                ARGOCD,
                f"{found.name} uses a GPU and syncs by itself, so a merge can start the bill",
                "Take syncPolicy.automated out of the Application.",
            )
        elif found.sync == "Unknown":
            bad += 1
            yield warning(
                ARGOCD, f"{found.name} cannot be compared with git: {found.message}", "Look at it in Argo CD."
            )
    if endpoints and not bad:
        yield ok(ARGOCD, f"{len(endpoints)} Applications, and no GPU model syncs by itself")


async def gateway(client: LiteLLM, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    database = await client.has_database()
    if database is False:
        yield wrong(
            GATEWAY, "it has no database, so it knows no virtual keys and no budgets", "Set DATABASE_URL for LiteLLM."
        )
    known = await client.aliases()
    yield ok(GATEWAY, f"the master key is accepted, and {len(known)} aliases are known")
    for endpoint in endpoints:
        if endpoint.alias and endpoint.alias not in known:
            yield warning(
                GATEWAY,
                f"it does not know the alias {endpoint.alias} of {endpoint.name}",
                "Sync LiteLLM's Application.",
            )


async def hub(client: HuggingFace) -> AsyncIterator[Finding]:
    name = await client.whoami()
    yield ok(HUB, f"answers, as {name}" if name else "answers; without HF_TOKEN gated models cannot be added")
