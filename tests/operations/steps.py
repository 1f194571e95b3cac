"""Actions of people on a platform that many tests use."""

import asyncio
import subprocess
from pathlib import Path

from bot.domain.leases import Lease
from sandbox.slack.history import CHANNEL
from tests.operations.platform import Platform

LEASES = "{stoker}:leases"


async def bring_up(platform: Platform, model: str = "coder-chat", user: str = "dev", words: str = "") -> None:
    await platform.say(user, f"/gpu up {model} {words}".strip())
    await platform.sees(f"Bring up {model}", user)
    await platform.click("lead" if user != "lead" else "admin", "Approve")
    await platform.sees(f"{model} is up and answers", user)


async def queue_for_gpu(platform: Platform, words: str = "") -> None:
    """@lead requests coder-fim and queues for the GPU, which @dev holds."""
    await platform.say("lead", f"/gpu up coder-fim {words}".strip())
    await platform.click("lead", "Queue")
    await platform.sees("In the queue, next")


async def replace_model(platform: Platform) -> None:
    """@lead replaces the running model with coder-fim, and @admin approves."""
    await platform.say("lead", "/gpu up coder-fim because demo")
    await platform.click("lead", "Replace")
    await platform.sees("Displaces coder-chat")
    await platform.click("admin", "Approve")


def card_of(platform: Platform, title: str) -> str:
    """Return the current text of the newest card with this title; empty if there is no such card."""
    cards = [text for text in platform.workspace.posted(CHANNEL) if title in text.partition("\n")[0]]
    return cards[-1] if cards else ""


async def clone_of(platform: Platform) -> Path:
    """Return a person's clone, which may push to the remote."""
    work = platform.directory / "work"
    if not work.exists():
        await asyncio.to_thread(git, "clone", "-q", str(platform.remote), str(work), cwd=platform.directory)
        for key, value in {"user.name": "octocat", "user.email": "octocat@example.com"}.items():
            git("config", key, value, cwd=work)
    return work


def git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def push_change(platform: Platform, branch: str, path: str, old: str, new: str) -> None:
    """Change a file on a branch with git, not through the bot."""
    work = await clone_of(platform)
    git("fetch", "-q", "origin", cwd=work)
    git("checkout", "-q", "-B", branch, f"origin/{branch}", cwd=work)
    text = (work / path).read_text()
    assert old in text
    (work / path).write_text(text.replace(old, new))
    git("commit", "-qam", f"change {path}", cwd=work)
    remote = platform.github.git_url.replace("http://", f"http://x-access-token:{platform.github.token}@")
    await asyncio.to_thread(git, "push", "-q", remote, f"HEAD:{branch}", cwd=work)


def replicas(platform: Platform, model: str) -> int:
    deployment = platform.object("Deployment", model)
    return int(deployment["spec"]["replicas"]) if deployment else 0


async def read_leases(platform: Platform) -> list[Lease]:
    return [Lease.model_validate_json(text) for text in await platform.redis.hvals(LEASES)]
