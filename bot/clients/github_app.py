"""A GitHub App's installation token: created with the App's key, valid for one hour, renewed before it expires."""

import asyncio
import time
from collections.abc import Callable

import httpx
from pydantic import SecretStr

from bot.clients.github_answers import InstallationToken, read
from bot.clients.http import body, refuse_if_busy, send
from bot.errors import BotError
from bot.observability.logs import conceal

SYSTEM = "GitHub"
_RENEW_BEFORE = 300.0
"""Minimum remaining lifetime of a token in seconds; a push or a merge takes less."""
_NEEDED = {"contents": "write", "pull_requests": "write", "issues": "write", "checks": "read", "statuses": "read"}
"""The required repository permissions, with GitHub's names. `issues` is for labels and comments."""
_RANKS = ("read", "write", "admin")


class AppToken:
    """Returns the token of one installation; the key is read at each renewal, so that it can be rotated."""

    def __init__(
        self, http: httpx.AsyncClient, app_id: str, installation_id: str, key: Callable[[], SecretStr | None]
    ) -> None:
        self._http, self._app_id, self._installation, self._key = http, app_id, installation_id, key
        self._token: SecretStr | None = None
        self._granted: dict[str, str] | None = None
        self._ends = 0.0
        self._renewal = asyncio.Lock()

    async def __call__(self) -> SecretStr:
        async with self._renewal:
            if self._token is None or time.time() > self._ends - _RENEW_BEFORE:
                self._token, self._ends = await self._create_token()
            return self._token

    async def lacking(self) -> tuple[str, ...] | None:
        """The missing permissions of the installation, like `contents: write`. None if GitHub does not return them.

        GitHub returns the permissions with each token. A repository's `permissions.push` is false for every App.
        """
        await self()
        granted = self._granted
        if granted is None:
            return None
        return tuple(
            f"{name}: {needed}"
            for name, needed in _NEEDED.items()
            if granted.get(name) not in _RANKS[_RANKS.index(needed) :]
        )

    async def _create_token(self) -> tuple[SecretStr, float]:
        path = f"/app/installations/{self._installation}/access_tokens"
        headers = {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {self._assertion()}"}
        response = await send(self._http, SYSTEM, "POST", path, headers=headers)
        refuse_if_busy(SYSTEM, response)
        match response.status_code:
            case httpx.codes.CREATED:
                answer = read(InstallationToken, response, "the App's token")
                self._granted = answer.permissions
                return conceal(answer.token), answer.expires_at.timestamp()
            case httpx.codes.UNAUTHORIZED:
                raise BotError(
                    "GitHub does not accept the App's key: GITHUB_APP_PRIVATE_KEY must be a key of App "
                    f"{self._app_id} (GITHUB_APP_ID), and this machine's clock must be right."
                )
            case httpx.codes.NOT_FOUND:
                raise BotError(
                    f"GitHub App {self._app_id} has no installation {self._installation}: "
                    "set GITHUB_APP_INSTALLATION_ID to the number at the end of the installation's address."
                )
            case status:
                raise BotError(
                    f"GitHub refused to issue a token for the App: {body(response).get('message') or status} ({status})."
                )

    def _assertion(self) -> str:
        """The App's signed JWT. GitHub accepts at most ten minutes of validity. The issue time is one minute in the past,
        in case this machine's clock is ahead.
        """
        import jwt  # imported here, because only an App needs these 9 MB of memory

        key = self._key()
        now = int(time.time())
        claims = {"iat": now - 60, "exp": now + 540, "iss": self._app_id}
        try:
            return jwt.encode(claims, key.get_secret_value() if key else "", algorithm="RS256")
        except (ValueError, TypeError, jwt.InvalidKeyError) as error:
            raise BotError(
                "GITHUB_APP_PRIVATE_KEY is not a private key: paste the whole .pem file from GitHub."
            ) from error
