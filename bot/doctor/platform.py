"""Checks of the platform: GitHub, the repository, the cluster's rights and Applications, LiteLLM and Hugging Face."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer
from bot.clients.github import GitHub
from bot.clients.github_app import AppToken
from bot.clients.huggingface import HuggingFace
from bot.clients.job import Jobs
from bot.clients.litellm import LiteLLM
from bot.clients.rights import ENGINE_KEY, MASTER_KEY, Right, rights
from bot.doctor.findings import Finding, ok, unchecked, warning, wrong
from bot.errors import BotError
from bot.git.repository import Repository
from bot.platform.deploying import deploys, deploys_gateway
from bot.services import Token
from bot.settings.config import Config
from bot.settings.environment import Settings
from manifests.contract import Layout, ModelEndpoint, check, read_endpoints
from manifests.platform import Platform
from manifests.tree import ManifestError, Tree

GITHUB, GIT, CONTRACT = "GitHub", "git", "contract"
KUBERNETES, ARGOCD, GATEWAY, HUB = "Kubernetes", "Argo CD", "LiteLLM", "Hugging Face"
ADD_RIGHT = "Add this right to its Role; the chart grants all rights."
_LISTED = 10
"""Maximum number of listed contract violations; the others are only counted."""


async def github(settings: Settings, client: GitHub, token: Token) -> AsyncIterator[Finding]:
    """Check the permissions of the token or App, the protection of the main branch, and the webhook."""
    access = await client.access()
    name, branch = settings.github_repository, settings.config.platform.branch
    if access.archived:
        yield wrong(GITHUB, f"{name} is archived", "Unarchive it, or set GITHUB_REPOSITORY to another repository.")
    if isinstance(token, AppToken):
        missing = await token.lacking()
        if missing is None:
            yield unchecked(
                GITHUB,
                "the App's permissions",
                "GitHub's answer does not list them",
                "Compare the permissions of the App's installation with docs/install.md.",
            )
        elif lacking := ", ".join(missing):
            yield wrong(
                GITHUB,
                f"the App's installation lacks {lacking}",
                "Add this to the App's repository permissions, and accept the change in its installation.",
            )
        else:
            yield ok(GITHUB, f"the App has the permissions that Stoker uses on {name}")
    elif access.push is None:
        yield unchecked(
            GITHUB,
            f"whether the token may write to {name}",
            "GitHub's answer does not list its permissions",
            "Make sure that it has Contents and Pull requests: read and write.",
        )
    elif not access.push:
        yield wrong(GITHUB, f"the token may not write to {name}", "Give it Contents and Pull requests: read and write.")
    elif access.scopes is not None and not {"repo", "public_repo"} & set(access.scopes):
        yield wrong(
            GITHUB,
            "the classic token lacks the scope repo",
            "Create a token with this scope, or preferably use a GitHub App.",
        )
    elif access.scopes is None:
        yield ok(
            GITHUB,
            f"the token's owner may write to {name}; GitHub does not report the rights of a fine-grained token",
        )
    else:
        yield ok(GITHUB, f"the token may write to {name}")
    protected = await client.protected(branch)
    if protected is None:
        yield wrong(GITHUB, f"{name} has no branch {branch}", "Set platform.branch to the branch that Argo CD follows.")
    elif not protected:
        yield warning(
            GITHUB,
            f"{branch} is not protected, so a change can bypass the pull request",
            "Protect the branch: require a pull request and its checks.",
        )
    else:
        yield ok(GITHUB, f"{branch} is protected")
    if settings.github_webhook_secret is None:
        every = settings.config.github.poll_every.total_seconds()
        yield ok(GITHUB, f"no webhook: pull requests are polled every {every:.0f} s")


class Contract:
    """Checks of the repository. They also read its endpoints, which the checks of the cluster need."""

    def __init__(self, config: Config, repository: Repository) -> None:
        self._config, self._repository = config, repository
        self.endpoints: tuple[ModelEndpoint, ...] = ()
        self.tree: Tree | None = None

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
        self.tree = tree
        try:
            platform = Platform(tree, layout)
            self.endpoints = read_endpoints(platform)
            disagreements = check(platform)
        except ManifestError as error:
            return [wrong(CONTRACT, str(error), "Fix this file: the bot reads it for every request.")]
        # If a default path does not exist, the layout is different; this is acceptable if endpoints were found anyway.
        missing = [
            wrong(CONTRACT, f"the repository has no {place}", f"Set {key} to the right path.")
            for key, place in places.items()
            if not tree.files(place) and not (self.endpoints and _is_default(layout, key))
        ]
        if missing:
            return missing
        if not self.endpoints:
            return [
                wrong(
                    CONTRACT,
                    f"no endpoint below {layout.serving_dir} follows the contract",
                    "See `stoker model check`.",
                )
            ]
        problems = [
            warning(CONTRACT, f"{disagreement.path}:{disagreement.line}: {disagreement.message}", disagreement.fix)
            for disagreement in disagreements[:_LISTED]
        ]
        if len(disagreements) > _LISTED:
            problems.append(warning(CONTRACT, f"and {len(disagreements) - _LISTED} more", "See `stoker model check`."))
        names = {endpoint.name for endpoint in self.endpoints}
        if layout.template not in names and not _is_default(layout, "platform.template"):
            problems.append(
                wrong(
                    CONTRACT,
                    f"there is no endpoint {layout.template}",
                    "Set platform.template to an endpoint that new models may copy.",
                )
            )
        return problems or [ok(CONTRACT, f"{len(self.endpoints)} endpoints have consistent files")]


def _is_default(layout: Layout, key: str) -> bool:
    name = key.removeprefix("platform.")
    return bool(getattr(layout, name) == getattr(Layout(), name))


async def cluster(config: Config, client: Cluster) -> AsyncIterator[Finding]:
    """Check the rights of the bot's account, and the Secrets that it reads."""
    needed = rights(config)
    try:
        lacking: tuple[Right, ...] | None = await client.lacking(needed)
    except BotError as error:
        lacking = None
        yield unchecked(
            KUBERNETES,
            f"the {len(needed)} rights that the bot uses",
            error.message,
            "Compare the Roles of the bot's account with the output of `stoker rights`.",
        )
    unstaged = config.model_copy(update={"staging": config.staging.model_copy(update={"mode": "off"})})
    basic = rights(unstaged)
    for right in lacking or ():
        if right not in basic:
            yield wrong(
                KUBERNETES,
                f"the bot may not {right}, which staging needs (staging.mode is {config.staging.mode})",
                "Set staging.mode in the chart's values, so that it grants this right, or set it to off.",
            )
            continue
        finding = warning if right.without else wrong
        consequence = f": {right.without}" if right.without else ""
        yield finding(KUBERNETES, f"the bot may not {right}{consequence}", ADD_RIGHT)
    if lacking == ():
        yield ok(KUBERNETES, f"the bot has all {len(needed)} rights that it uses")
    for access, ref, use, key in (
        (ENGINE_KEY, config.vllm.api_key, "vLLM's key", "vllm.api_key"),
        (MASTER_KEY, config.litellm.master_key, "LiteLLM's master key", "litellm.master_key"),
    ):
        if not ref.namespace:
            yield ok(KUBERNETES, f"{key} is not set, so {use} is not used")
            continue
        try:
            await client.secret(access, ref)
        except BotError as error:
            yield wrong(
                KUBERNETES,
                f"{use} cannot be read: {error!s}",
                f"Set {key} to the right Secret.",
            )
        else:
            yield ok(KUBERNETES, f"{use} can be read")


async def benchmarks(config: Config, client: Jobs, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    """Check the requirements of `/model bench`, except for the bot's rights."""
    if not config.bench.image:
        yield ok(KUBERNETES, "benchmarks are off: bench.image is not set")
        return
    key, home = config.vllm.api_key, config.platform.namespace
    if key.namespace not in ("", home):
        yield wrong(
            KUBERNETES,
            f"a benchmark runs in namespace {home} and cannot use vLLM's key from {key.namespace}",
            "Put the Secret into the models' namespace, and set vllm.api_key to it.",
        )
    obstacles = [await client.obstacle(endpoint.name, config.bench, key) for endpoint in endpoints if endpoint.gpus]
    for obstacle in filter(None, obstacles):
        yield warning(KUBERNETES, obstacle.partition(". ")[0], obstacle.partition(". ")[2])
    if not any(obstacles):
        yield ok(KUBERNETES, "every deployed GPU model can be measured with /model bench")


async def applications(
    config: Config, client: Deployer, endpoints: Sequence[ModelEndpoint], tree: Tree | None = None, repository: str = ""
) -> AsyncIterator[Finding]:
    """Check that each endpoint has an Application in the cluster, and that no GPU model syncs automatically."""
    listed, word = await client.list(), client.word
    live = {application.name: application for application in listed}
    gateway = live.get(config.litellm.application)
    if gateway is None and tree is not None and "application" not in config.litellm.model_fields_set:
        gateway = await asyncio.to_thread(deploys_gateway, listed, Platform(tree, config.platform), repository)
    if gateway is None and word == ARGOCD and config.litellm.namespace:
        yield wrong(
            ARGOCD,
            f"there is no Application {config.litellm.application} in {config.argocd.namespace}",
            "Set litellm.application and argocd.namespace to LiteLLM's Application and its namespace.",
        )
    bad = 0
    for endpoint in endpoints:
        application = live.get(endpoint.application)
        if application is None and tree is not None and not endpoint.application:
            application = await asyncio.to_thread(deploys, listed, endpoint, tree, repository)
        if application is None:
            bad += 1
            yield warning(
                word,
                f"{endpoint.name} has no Application {endpoint.application or '(none in the repository)'} in the cluster",
                "Enable its group, and wait until Argo CD has created it.",
            )
        elif endpoint.gpus and application.automated and not application.reverts_replicas:
            bad += 1
            yield wrong(
                ARGOCD,
                f"{application.name} uses a GPU and syncs automatically, so a merge can start the GPU without an approval",
                "Remove syncPolicy.automated from the Application.",
            )
        elif application.sync == "Unknown":
            bad += 1
            yield warning(
                word, f"{application.name} cannot be compared with git: {application.message}", f"Check it in {word}."
            )
    if endpoints and not bad and word == ARGOCD:
        yield ok(ARGOCD, f"{len(endpoints)} Applications, and no GPU model syncs automatically")
    elif endpoints and not bad:
        yield ok(word, f"it deploys {len(endpoints)} endpoints; models are started with a commit of their replicas")


async def gateway(config: Config, client: LiteLLM, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    """Check LiteLLM's key and database, and that its aliases are the same as in git."""
    if not config.litellm.master_key.namespace:
        yield ok(GATEWAY, "no gateway: litellm.master_key is not set")
        return
    database = await client.has_database()
    if database is False:
        yield wrong(
            GATEWAY, "it has no database, so it has no virtual keys and no budgets", "Set DATABASE_URL for LiteLLM."
        )
    elif database is None:
        yield unchecked(
            GATEWAY,
            "whether it has a database",
            "its /health/readiness does not report it",
            "Make sure that DATABASE_URL is set for LiteLLM: virtual keys and budgets need it.",
        )
    aliases = await client.aliases()
    yield ok(GATEWAY, f"the master key is accepted, and {len(aliases)} aliases exist")
    for endpoint in endpoints:
        if endpoint.alias and endpoint.alias not in aliases:
            yield warning(
                GATEWAY,
                f"it lacks the alias {endpoint.alias} of {endpoint.name}",
                "Sync LiteLLM's Application.",
            )
    in_git = {alias for endpoint in endpoints for alias in endpoint.aliases}
    for model in await client.runtime_models():
        if model.alias not in in_git and not model.operation:
            yield warning(
                GATEWAY,
                f"it has the alias {model.alias} at run time ({model.model}), which is not in git",
                "Add it to git, or delete it in LiteLLM.",
            )


async def hub(client: HuggingFace) -> AsyncIterator[Finding]:
    """Check that Hugging Face answers and accepts the token."""
    name = await client.whoami()
    yield ok(
        HUB, f"it accepts the token of {name}" if name else "it answers; without HF_TOKEN gated models cannot be added"
    )
