"""`stoker sandbox`: runs a simulated platform on loopback with the unchanged bot.

It has two modes: a page for manual use until Ctrl-C, and a story without a browser, which ends with an exit code.
"""

import asyncio
import contextlib
import re
import shutil
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sandbox.faults import KNOWN
from sandbox.git import GitFailed
from sandbox.process import ProcessError
from sandbox.slack.manifest import BadManifest
from sandbox.story import Story, StoryError, parse
from sandbox.story_runner import run_story
from sandbox.world import Sandbox, merged, nested, opened

SAMPLES = Path(__file__).parent / "platforms"
"""Small sample repositories, each with another structure."""
USERS = frozenset({"dev", "lead", "admin", "stranger", "guest"})
CHECKS_PASS_AFTER = 5.0
"""Seconds after which the checks of a pull request pass automatically in the browser mode."""


IDLE_SETTINGS: Mapping[str, Any] = {
    "idle": {"remind_after": "30m", "down_after": "2h", "queue_remind_after": "30m", "queue_down_after": "2h"}
}
"""Idle settings of a story without its own (`given idle.…`), so that models stay up on a slow machine."""
STORY_LIMITS: Mapping[str, Any] = {
    "gpu": {"boot_limit": "120s"},
    "argocd": {"sync_limit": "120s"},
    "litellm": {"wait": "15s"},
    "lease": {"offer": "10m"},
}
"""Limits in real time for a story, during which the machine may stall for many seconds."""


class UsageError(Exception):
    """The options are invalid."""


async def run(
    *,
    platform: str | None,
    speed: float,
    port: int,
    script: Path | None,
    config: Path | None,
    http: bool = False,
    open_browser: bool = False,
    patience: float = 0,
) -> int:
    """Start a sandbox, use it, and shut it down. Each step of a story waits at least `patience` seconds for its outcome.

    Returns the exit code: 0 for success, 1 if a story failed or the bot exited, 2 if the start failed, 130 if a story
    was interrupted. Without a story, Ctrl-C is a success.
    """
    directory = Path(tempfile.mkdtemp(prefix="stoker-sandbox-"))
    working = asyncio.create_task(_run(platform, speed, port, script, config, http, open_browser, patience, directory))
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, working.cancel)
    try:
        code = await working
    except asyncio.CancelledError:
        code = 130 if script else 0
    except (StoryError, UsageError, GitFailed, BadManifest) as problem:
        print(problem, file=sys.stderr)
        code = 2
    except ProcessError as problem:
        print(problem, file=sys.stderr)
        code = 1
    if code == 1:
        print(f"All files of the sandbox are kept in {directory}.", file=sys.stderr)
    else:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return code


async def _run(
    platform: str | None,
    speed: float,
    port: int,
    script: Path | None,
    config: Path | None,
    http: bool,
    open_browser: bool,
    patience: float,
    directory: Path,
) -> int:
    story = _story(script) if script else None
    overrides = dict(story.given) if story else {}
    speed, one_clock = _clock(overrides, speed, demonstration=story is None)
    named = overrides.pop("platform", platform)
    platform = str(named) if named else None
    story_settings = merged(IDLE_SETTINGS, {} if one_clock else STORY_LIMITS) if story else {}
    settings = merged(merged(story_settings, _settings(config) if config else {}), nested(overrides))
    async with opened(
        platform=_platform(platform),
        speed=speed,
        one_clock=one_clock,
        port=0 if story else _free_or_next(port),
        checks_pass_after=None if story else CHECKS_PASS_AFTER,
        settings=settings,
        directory=directory,
        http=http,
    ) as world:
        return await _until_bot_ends(
            world, story_exit_code(story, world, patience=patience) if story else _browse(world, speed, open_browser)
        )


async def _until_bot_ends(world: Sandbox, use: Coroutine[Any, Any, int]) -> int:
    """Run `use` to its end; raises ProcessError if the bot exits before."""
    using = asyncio.create_task(use)
    watching = asyncio.create_task(world.bot.watch())
    try:
        await asyncio.wait({using, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not using.done():
            await watching
        return await using
    finally:
        for task in (using, watching):
            task.cancel()
        await asyncio.gather(using, watching, return_exceptions=True)


# -------------------------------------------------------------------------------------------------------- with a story


def _story(script: Path) -> Story:
    try:
        text = script.read_text(encoding="utf-8")
    except OSError as e:
        raise UsageError(f"--script {script}: {e.strerror}") from e
    return parse(text, script, users=USERS, faults=frozenset(KNOWN))


async def story_exit_code(story: Story, world: Sandbox, *, patience: float = 0) -> int:
    """Run a story and return its exit code.

    The story fails immediately if Kubernetes refuses a request of the bot that none of its Roles grants.
    """
    running = asyncio.create_task(run_story(story, world, lambda line: print(line, flush=True), patience=patience))
    refusal = asyncio.create_task(world.account.refusal())
    try:
        await asyncio.wait({running, refusal}, return_when=asyncio.FIRST_COMPLETED)
        if refusal.done():
            print(
                f"Kubernetes refused a request of the bot, which no Role grants: {refusal.result()}.", file=sys.stderr
            )
        elif await running:
            return 0
    finally:
        for task in (running, refusal):
            task.cancel()
        await asyncio.gather(running, refusal, return_exceptions=True)
    print(world.bot.tail(), file=sys.stderr)
    return 1


# --------------------------------------------------------------------------------------------------------- with a page


WELCOME = """
  Stoker's sandbox is up. Open this page; it looks like a Slack channel:

      {url}

  Try, as @dev:   /gpu up {model} for 2h because demo
  then as @lead:  Approve, and watch the model come up and answer
  and then:       leave it idle for a while · /gpu status · /gpu down
                  /model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
                  /model swap {model} Qwen/Qwen2.5-Coder-14B-Instruct-AWQ

  Everything uses one clock, {speed:g} times faster than real time: two hours pass in {two:g} s.
  Ctrl-C ends it.
"""


async def _browse(world: Sandbox, speed: float, open_browser: bool) -> int:
    url = world.workspace.url
    first = re.search(r"^Endpoints: \d+\n  (\S+):", world.report, re.MULTILINE)
    model = first[1] if first else "coder-chat"
    if world.report:
        print(world.report, flush=True)
    print(_box(WELCOME.format(url=url, speed=speed, two=7200 / speed, model=model)), flush=True)
    if open_browser:
        await asyncio.to_thread(webbrowser.open, url)
    await asyncio.Event().wait()  # until the task is cancelled, by Ctrl-C
    return 0


def _box(text: str) -> str:
    lines = text.strip("\n").splitlines()
    width = max(map(len, lines)) + 2
    return "\n".join(["", f"╭{'─' * width}╮", *(f"│{line.ljust(width)}│" for line in lines), f"╰{'─' * width}╯", ""])


# ------------------------------------------------------------------------------------------------------------ settings


def _clock(overrides: dict[str, Any], speed: float, *, demonstration: bool) -> tuple[float, bool]:
    """Return the clock's speed, and whether the bot uses it too: in a demonstration, and after `given clock 60x`."""
    shared = overrides.pop("clock", f"{speed:g}x" if demonstration else "")
    fast = _speed(overrides.pop("speed", speed))
    if not shared:
        return fast, False
    times = str(shared).removesuffix("x")
    return _speed(float(times) if times.replace(".", "", 1).isdigit() else shared), True


def _speed(value: object) -> float:
    if isinstance(value, int | float) and value > 0:
        return float(value)
    raise UsageError(f"speed must be a number above 0, not {value!r}")


def _platform(platform: str | None) -> str | None:
    """Return the path or URL of a platform; the name of a sample is replaced by its path."""
    if platform and (SAMPLES / platform).is_dir() and "/" not in platform:
        return str(SAMPLES / platform)
    if platform and "://" not in platform and "@" not in platform and not Path(platform).exists():
        samples = ", ".join(sorted(directory.name for directory in SAMPLES.iterdir() if directory.is_dir()))
        raise UsageError(
            f"--platform {platform}: there is no such directory or sample, and it is not a git URL. Samples: {samples}."
        )
    return platform


def _free_or_next(port: int) -> int:
    """Return the requested port, or the next one that is free."""
    for candidate in range(port, min(port + 20, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            return candidate
    raise UsageError(f"--port {port}: this port and the next 19 are in use")


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    except OSError as e:
        raise UsageError(f"--config {path}: {e.strerror}") from e
    except YAMLError as e:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(settings, Mapping):
        raise UsageError(f"--config {path}: expected sections such as “idle:”, found a {type(settings).__name__}")
    return settings
