"""Actions of people on a platform that many tests use."""

import asyncio
import subprocess
from pathlib import Path

from bot.domain.leases import Lease
from sandbox.slack.history import CHANNEL
from tests.operations.platform import Platform

LEASES = "{stoker}:leases"


async def up(it: Platform, model: str = "coder-chat", user: str = "dev", words: str = "") -> None:
    await it.say(user, f"/gpu up {model} {words}".strip())
    await it.sees(f"Bring up {model}", user)
    await it.click("lead" if user != "lead" else "admin", "Approve")
    await it.sees(f"{model} is up and answers", user)


async def queues(it: Platform, words: str = "") -> None:
    """@lead waits for the GPU that @dev holds, with coder-fim."""
    await it.say("lead", f"/gpu up coder-fim {words}".strip())
    await it.click("lead", "Queue")
    await it.sees("In the queue, next")


async def replaces(it: Platform) -> None:
    """@lead's coder-fim replaces the model that is up."""
    await it.say("lead", "/gpu up coder-fim because demo")
    await it.click("lead", "Replace")
    await it.sees("Displaces coder-chat")
    await it.click("admin", "Approve")


def card_of(it: Platform, title: str) -> str:
    """The current text of the newest card with this title; empty if there is none."""
    found = [text for text in it.workspace.posted(CHANNEL) if title in text.partition("\n")[0]]
    return found[-1] if found else ""


async def work_of(it: Platform) -> Path:
    """A person's clone, which may push to the remote."""
    work = it.directory / "work"
    if not work.exists():
        await asyncio.to_thread(git, "clone", "-q", str(it.remote), str(work), cwd=it.directory)
        for key, value in {"user.name": "octocat", "user.email": "octocat@example.com"}.items():
            git("config", key, value, cwd=work)
    return work


def git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def pushes(it: Platform, branch: str, path: str, old: str, new: str) -> None:
    """Somebody changes a file on a branch, with git and not through the bot."""
    work = await work_of(it)
    git("fetch", "-q", "origin", cwd=work)
    git("checkout", "-q", "-B", branch, f"origin/{branch}", cwd=work)
    text = (work / path).read_text()
    assert old in text
    (work / path).write_text(text.replace(old, new))
    git("commit", "-qam", f"change {path}", cwd=work)
    remote = it.github.git_url.replace("http://", f"http://x-access-token:{it.github.token}@")
    await asyncio.to_thread(git, "push", "-q", remote, f"HEAD:{branch}", cwd=work)


def replicas(it: Platform, model: str) -> int:
    found = it.object("Deployment", model)
    return int(found["spec"]["replicas"]) if found else 0


async def held(it: Platform) -> list[Lease]:
    return [Lease.model_validate_json(text) for text in await it.redis.hvals(LEASES)]
