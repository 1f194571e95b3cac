"""The bare git repository that a sandbox starts from: the sample platform, or a copy of somebody's own."""

import asyncio
import os
import shutil
from pathlib import Path

SAMPLE = Path(__file__).parent / "platform"
BRANCH = "main"
CLONE_LIMIT = 120.0
"""Seconds that a clone of somebody's platform may take."""


class RemoteError(Exception):
    """The platform cannot be made into a git remote; one sentence says why."""


async def make_remote(platform: str | None, bare: Path) -> None:
    """Make a bare repository at `bare` with the platform on branch `main`.

    `platform` is None for the sample, else a git URL, a git repository's directory (its commits are taken), or a
    plain directory (its files are committed). The original is never written to.
    """
    source = Path(platform) if platform else SAMPLE
    if platform and not source.exists():
        if "://" not in platform and "@" not in platform:
            raise RemoteError(f"--platform {platform}: there is no such directory, and it is not a git URL")
        await _clone(platform, bare)
    elif (source / ".git").exists() or (source / "HEAD").is_file():
        await _clone(str(source.resolve()), bare)
    else:
        await _commit(source, bare)


async def _clone(source: str, bare: Path) -> None:
    await _git("clone", "--quiet", "--bare", "--no-hardlinks", source, str(bare))
    head = (await _git("-C", str(bare), "symbolic-ref", "--short", "HEAD")).strip()
    if head != BRANCH:
        await _git("-C", str(bare), "branch", "--quiet", "--move", "--force", head, BRANCH)


async def _commit(source: Path, bare: Path) -> None:
    """Commit the files through a copy: the source may be read-only, or part of another repository."""
    work = bare.with_name(bare.name + ".work")
    await asyncio.to_thread(_copy, source, work)
    await _git("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(bare))
    tree = ("--git-dir", str(bare), "--work-tree", str(work))
    await _git(*tree, "add", "--all", "--force", ".")
    await _git(*tree, "commit", "--quiet", "--message", "chore: the platform as it is today")
    await asyncio.to_thread(shutil.rmtree, work)
    (bare / "index").unlink(missing_ok=True)


def _copy(source: Path, work: Path) -> None:
    ignore = shutil.ignore_patterns(".git", "__pycache__", "*.pyc")
    shutil.copytree(source, work, ignore=ignore, copy_function=_copy_writable)
    for directory in (work, *(d for d in work.rglob("*") if d.is_dir())):
        directory.chmod(0o755)


def _copy_writable(source: str, target: str) -> str:
    mode = Path(source).stat().st_mode
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if mode & 0o100 else 0o644)
    return target


async def _git(*arguments: str) -> str:
    """Run git untouched by this machine's configuration and hooks; RemoteError carries its last line."""
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _PLATFORM_TEAM.items()}
    environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", **identity}
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(CLONE_LIMIT):
        out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise RemoteError(f"git {' '.join(arguments[:2])} failed: {said[-1]}")
    return out.decode()


_PLATFORM_TEAM = {"NAME": "Platform team", "EMAIL": "platform@example.com"}
