"""Run git commands with a complete environment, a limit for their output, and error messages without secrets.

The token is passed to git only in environment variables (GIT_CONFIG_*), and never in a URL, an argument or a log line.
"""

import base64
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from bot.errors import BotError
from bot.observability.logs import cleaned


class TooMuch(BotError):
    """The output of a git command exceeds its limit."""

    remedy = "Find out why the repository is so large: Stoker reads up to a few hundred thousand files of up to 4 MB."


class Bounded(io.BytesIO):
    """Keeps the first `size` bytes of git's output and drops the rest, so that git can finish."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._room = size

    def write(self, data: Any) -> int:
        self._room -= len(data)
        return super().write(data) if self._room >= 0 else len(data)

    def whole(self) -> bytes:
        """The complete output; raises TooMuch if it exceeded the limit."""
        if self._room < 0:
            raise TooMuch("The repository is too large: the output of git exceeds Stoker's limit.")
        return self.getvalue()


class GitProcess:
    """Runs git in one bare directory. Its methods block."""

    def __init__(self, directory: Path, remote_url: str, token: SecretStr | None) -> None:
        self._directory, self._token = directory, token
        self._environment = _environment(remote_url, token)

    def execute(
        self,
        arguments: tuple[str, ...],
        stdin: str | None,
        env: Mapping[str, str],
        seconds: float | None = None,
        output: "Bounded | None" = None,
    ) -> tuple[int, bytes, str]:
        """Run a command; returns its status, output and error message. GitPython's exception is not raised, because its
        text may contain the token.

        Pass `output` only for local commands: with it, GitPython reads stderr last, and a long message would block git.
        """
        # Imported here, because the import raises if git is not on PATH, and commands that do not need git must work.
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from git.cmd import Git
        from git.exc import GitCommandNotFound

        with tempfile.TemporaryFile() as typed:
            typed.write((stdin or "").encode())
            typed.seek(0)
            try:
                status, output_bytes, complaint = Git(str(self._directory)).execute(
                    ["git", f"--git-dir={self._directory}", *arguments],
                    istream=typed,
                    env={**self._environment, **env},
                    with_extended_output=True,
                    kill_after_timeout=seconds,
                    output_stream=output,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                )
            except GitCommandNotFound as error:
                raise BotError("git is not on PATH: install it (the image contains it).") from error
        return status, _bytes(output_bytes), self._scrubbed(_bytes(complaint).decode(errors="replace"))

    def _scrubbed(self, complaint: str) -> str:
        """The error message in one line, without the token in any form and without other known secrets."""
        if self._token is not None:
            for form in (self._token.get_secret_value().strip(), _basic(self._token)):
                complaint = complaint.replace(form, "***")
        return " ".join(cleaned(complaint).split())[-800:].rstrip(".")


def _environment(remote_url: str, token: SecretStr | None) -> dict[str, str]:
    """The environment with the configuration of the remote. git aborts a stalled transfer after a minute."""
    config = [("remote.origin.url", remote_url), ("http.lowSpeedLimit", "100"), ("http.lowSpeedTime", "60")]
    # git streams larger contents to the disk instead of loading them into memory.
    config.append(("core.bigFileThreshold", "8m"))
    address = urlsplit(remote_url)
    if token is not None and address.scheme in ("http", "https"):
        # git sends the header only to this host, so a redirect cannot leak the token; credential helpers are disabled.
        config += [
            (f"http.{address.scheme}://{address.netloc}/.extraHeader", f"Authorization: Basic {_basic(token)}"),
            ("credential.helper", ""),
        ]
    return {
        **{f"GIT_CONFIG_KEY_{i}": key for i, (key, _) in enumerate(config)},
        **{f"GIT_CONFIG_VALUE_{i}": text for i, (_, text) in enumerate(config)},
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    }


def _basic(token: SecretStr) -> str:
    return base64.b64encode(f"x-access-token:{token.get_secret_value().strip()}".encode()).decode()


def _bytes(output: str | bytes | None) -> bytes:
    return output.encode() if isinstance(output, str) else output or b""
