"""The complete examination: its clients, the order of the checks, and the lines of the report."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
from pydantic import SecretStr

from bot.clients.github import GitHub
from bot.clients.huggingface import HuggingFace
from bot.clients.job import Jobs
from bot.clients.litellm import LiteLLM
from bot.clients.redis import durability
from bot.clients.rights import MASTER_KEY
from bot.clients.staging import Stager
from bot.clients.whereabouts import Address
from bot.doctor import people, platform
from bot.doctor.findings import Finding, gathered, ok, warning, wrong
from bot.doctor.links import LINKS, links
from bot.doctor.staging import staging
from bot.services import (
    cluster_of,
    deployer_of,
    github_http,
    github_token,
    hub_http,
    open_kubernetes,
    open_redis,
    open_slack,
    platform_http,
    repository,
)
from bot.settings.environment import Settings

REDIS, MACHINE = "Redis", "machine"
OLDEST = (6, 2)
"""docket takes over the tasks of a dead worker with XAUTOCLAIM, which requires Redis 6.2."""


async def examine(settings: Settings) -> tuple[Finding, ...]:
    """Run every check that the settings allow; a failed one does not prevent the others."""
    config = settings.config
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(platform_http(settings))
        files = await stack.enter_async_context(hub_http(settings))
        hosted = await stack.enter_async_context(github_http(settings))
        # A separate mirror: two processes would damage a shared one. It is placed beside the bot's mirror, because a
        # large repository could overfill a small /tmp, and the pod would be evicted with the bot.
        beside = settings.stoker_data_dir if os.access(settings.stoker_data_dir, os.W_OK) else None
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-doctor-", dir=beside))
        token = github_token(settings, hosted)
        contract = platform.Contract(
            config, repository(settings.model_copy(update={"stoker_data_dir": Path(scratch)}), token)
        )
        hub = HuggingFace(files, settings.hf_endpoint, partial(settings.current, "hf_token"))
        hosting = GitHub(hosted, settings.github_repository, token)

        async def platform_and_cluster() -> list[Finding]:
            """In order: the cluster checks need the endpoints of the repository."""
            found = await gathered(platform.GIT, contract.checks(), "GIT_REMOTE_URL")
            found += await gathered(platform.KUBERNETES, _cluster(settings, stack, http, contract), "KUBECONFIG")
            return found + await gathered(LINKS, links(config, contract.endpoints))

        # Concurrently, so that unavailable systems take half a minute in total and not each.
        parts = await asyncio.gather(
            gathered(MACHINE, _machine(settings)),
            gathered(people.SLACK, people.slack(settings, await open_slack(settings, stack)), "SLACK_API_URL"),
            gathered(platform.GITHUB, platform.github(settings, hosting, token), "GITHUB_API_URL"),
            platform_and_cluster(),
            gathered(REDIS, _redis(settings, stack), "REDIS_URL"),
            gathered(platform.HUB, platform.hub(hub), "HF_ENDPOINT"),
        )
    return tuple(finding for part in parts for finding in part)


async def _cluster(
    settings: Settings, stack: AsyncExitStack, http: httpx.AsyncClient, contract: platform.Contract
) -> AsyncIterator[Finding]:
    """The cluster, and the checks that need it: Argo CD, and LiteLLM with its key."""
    config = settings.config
    api = await open_kubernetes(settings, stack)
    cluster = cluster_of(api, config)

    async def master_key() -> SecretStr:
        return await cluster.secret(MASTER_KEY, config.litellm.master_key)

    # If it does not answer, skip the rest, which would only repeat that.
    async for finding in platform.cluster(config, cluster):
        yield finding
    deployer, litellm = (
        deployer_of(api, settings.config, settings.github_repository, _unknown),
        LiteLLM(http, settings.litellm_url, master_key),
    )
    deployed = platform.applications(config, deployer, contract.endpoints, contract.tree, settings.github_repository)
    endpoints, places = contract.endpoints, cluster.whereabouts
    places.learn({each.name: Address(each.namespace, each.workload) for each in endpoints})
    for system, checks, setting in (
        (platform.KUBERNETES, platform.benchmarks(config, Jobs(api, places), endpoints), "KUBECONFIG"),
        (platform.KUBERNETES, staging(config, Stager(api, places), endpoints), "KUBECONFIG"),
        (deployer.word, deployed, "KUBECONFIG"),
        (platform.GATEWAY, platform.gateway(config, litellm, endpoints), "LITELLM_URL"),
    ):
        for finding in await gathered(system, checks, setting):
            yield finding


async def _unknown(_later: str, _earlier: str) -> bool:
    """Nothing is deployed here."""
    return False


async def _machine(settings: Settings) -> AsyncIterator[Finding]:
    if shutil.which("git") is None:
        yield wrong(MACHINE, "git is not on PATH", "Install git (the image contains it).")
    directory = settings.stoker_data_dir
    above = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    if not os.access(above, os.W_OK):
        yield wrong(MACHINE, f"{directory} cannot be written", "Set STOKER_DATA_DIR to a writable directory.")
    else:
        yield ok(MACHINE, f"git is installed, and {directory} is writable")


async def _redis(settings: Settings, stack: AsyncExitStack) -> AsyncIterator[Finding]:
    if not settings.redis_url:
        yield ok(REDIS, f"an embedded server keeps its data in {settings.stoker_data_dir}; it supports one replica")
        return
    said = await durability(await open_redis(settings, settings.redis_url, stack))
    version = tuple(int(part) for part in said.version.split(".")[:2] if part.isdigit())
    if version and version < OLDEST:
        yield wrong(REDIS, f"version {said.version} is too old", "Use Redis 6.2 or newer, or Valkey.")
    if said.evicts not in (None, "noeviction"):
        yield wrong(
            REDIS,
            f"when its memory is full it evicts keys ({said.evicts}), and a lease may be among them",
            "Set maxmemory-policy to noeviction.",
        )
    if said.appends is False:
        yield wrong(REDIS, "it keeps no append-only file, so a restart loses leases", "Set appendonly to yes.")
    if said.last_write_ok is False:
        yield wrong(REDIS, "its last write to disk failed", "Check its log and its disk; new data is not safe there.")
    if said.appends is None or said.evicts is None:
        yield warning(
            REDIS, "its persistence settings are unknown", "Check persistence and eviction with its operator."
        )
    if said.appends and said.last_write_ok is not False and said.evicts == "noeviction":
        yield ok(REDIS, f"version {said.version} keeps an append-only file and evicts nothing")
