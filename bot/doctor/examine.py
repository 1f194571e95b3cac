"""Runs every check of an installation: opens the clients, runs the checks concurrently, and collects the findings."""

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
from bot.doctor.findings import Finding, collect, ok, warning, wrong
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
"""Oldest supported version of Redis: docket takes over the tasks of a dead worker with XAUTOCLAIM, new in 6.2."""


async def examine(settings: Settings) -> tuple[Finding, ...]:
    """Run every check that the settings allow. A check that fails does not prevent the others."""
    config = settings.config
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(platform_http(settings))
        files = await stack.enter_async_context(hub_http(settings))
        hosted = await stack.enter_async_context(github_http(settings))
        # Use a separate git mirror, because two processes would damage a shared one. It is next to the bot's mirror:
        # a large repository could fill a small /tmp, and Kubernetes would evict the bot's pod.
        parent = settings.stoker_data_dir if os.access(settings.stoker_data_dir, os.W_OK) else None
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-doctor-", dir=parent))
        token = github_token(settings, hosted)
        contract = platform.Contract(
            config, repository(settings.model_copy(update={"stoker_data_dir": Path(scratch)}), token)
        )
        hub = HuggingFace(files, settings.hf_endpoint, partial(settings.current, "hf_token"))
        hosting = GitHub(hosted, settings.github_repository, token)

        async def platform_and_cluster() -> list[Finding]:
            """Run these checks in order: the checks of the cluster need the endpoints of the repository."""
            results = await collect(platform.GIT, contract.checks(), "GIT_REMOTE_URL")
            results += await collect(platform.KUBERNETES, _cluster(settings, stack, http, contract), "KUBECONFIG")
            return results + await collect(LINKS, links(config, contract.endpoints))

        # The checks run concurrently, so several unavailable systems take half a minute in total, not half a minute each.
        parts = await asyncio.gather(
            collect(MACHINE, _machine(settings)),
            collect(people.SLACK, people.slack(settings, await open_slack(settings, stack)), "SLACK_API_URL"),
            collect(platform.GITHUB, platform.github(settings, hosting, token), "GITHUB_API_URL"),
            platform_and_cluster(),
            collect(REDIS, _redis(settings, stack), "REDIS_URL"),
            collect(platform.HUB, platform.hub(hub), "HF_ENDPOINT"),
        )
    return tuple(finding for part in parts for finding in part)


async def _cluster(
    settings: Settings, stack: AsyncExitStack, http: httpx.AsyncClient, contract: platform.Contract
) -> AsyncIterator[Finding]:
    """Check the cluster, and the systems that are checked through it: Argo CD, and LiteLLM with its key."""
    config = settings.config
    api = await open_kubernetes(settings, stack)
    cluster = cluster_of(api, config)

    async def master_key() -> SecretStr:
        return await cluster.secret(MASTER_KEY, config.litellm.master_key)

    # If the cluster does not answer, this raises, and the checks below are skipped: they would fail for the same reason.
    async for finding in platform.cluster(config, cluster):
        yield finding
    deployer, litellm = (
        deployer_of(api, settings.config, settings.github_repository, _unknown),
        LiteLLM(http, settings.litellm_url, master_key),
    )
    deployed = platform.applications(config, deployer, contract.endpoints, contract.tree, settings.github_repository)
    endpoints, places = contract.endpoints, cluster.whereabouts
    places.update({endpoint.name: Address(endpoint.namespace, endpoint.workload) for endpoint in endpoints})
    for system, checks, setting in (
        (platform.KUBERNETES, platform.benchmarks(config, Jobs(api, places), endpoints), "KUBECONFIG"),
        (platform.KUBERNETES, staging(config, Stager(api, places), endpoints), "KUBECONFIG"),
        (deployer.word, deployed, "KUBECONFIG"),
        (platform.GATEWAY, platform.gateway(config, litellm, endpoints), "LITELLM_URL"),
    ):
        for finding in await collect(system, checks, setting):
            yield finding


async def _unknown(_later: str, _earlier: str) -> bool:
    """Return False: the doctor does not compare commits."""
    return False


async def _machine(settings: Settings) -> AsyncIterator[Finding]:
    if shutil.which("git") is None:
        yield wrong(MACHINE, "git is not on PATH", "Install git (the image contains it).")
    directory = settings.stoker_data_dir
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield wrong(MACHINE, f"{directory} cannot be written", "Set STOKER_DATA_DIR to a writable directory.")
    else:
        yield ok(MACHINE, f"git is installed, and {directory} is writable")


async def _redis(settings: Settings, stack: AsyncExitStack) -> AsyncIterator[Finding]:
    if not settings.redis_url:
        yield ok(REDIS, f"an embedded server keeps its data in {settings.stoker_data_dir}; it supports one replica")
        return
    redis_settings = await durability(await open_redis(settings, settings.redis_url, stack))
    version = tuple(int(part) for part in redis_settings.version.split(".")[:2] if part.isdigit())
    if version and version < OLDEST:
        yield wrong(REDIS, f"version {redis_settings.version} is too old", "Use Redis 6.2 or newer, or Valkey.")
    if redis_settings.evicts not in (None, "noeviction"):
        yield wrong(
            REDIS,
            f"when its memory is full it evicts keys ({redis_settings.evicts}), and a lease may be among them",
            "Set maxmemory-policy to noeviction.",
        )
    if redis_settings.appends is False:
        yield wrong(REDIS, "it keeps no append-only file, so a restart loses leases", "Set appendonly to yes.")
    if redis_settings.last_write_ok is False:
        yield wrong(REDIS, "its last write to disk failed", "Check its log and its disk; new data is not safe there.")
    if redis_settings.appends is None or redis_settings.evicts is None:
        yield warning(
            REDIS, "its persistence settings are unknown", "Check persistence and eviction with its operator."
        )
    if redis_settings.appends and redis_settings.last_write_ok is not False and redis_settings.evicts == "noeviction":
        yield ok(REDIS, f"version {redis_settings.version} keeps an append-only file and evicts nothing")
