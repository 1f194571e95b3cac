"""A GitHub App's token: requested with a signed assertion, cached until it expires, and each refusal explained."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from bot.clients.github_app import AppToken
from bot.errors import BotError
from tests.clients.wire import Wire, client, wire

PATH = "/app/installations/7/access_tokens"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()


def github(server: Wire, *, lives: timedelta = timedelta(hours=1), status: int = 201) -> None:
    """GitHub's side: it verifies the assertion with the App's public key, and issues tokens that expire."""

    async def answer(request: web.Request, _: Any) -> web.Response:
        assertion = request.headers["Authorization"].removeprefix("Bearer ")
        try:
            claims = jwt.decode(assertion, KEY.public_key(), algorithms=["RS256"])
        except jwt.InvalidTokenError:
            return web.json_response({"message": "A JSON web token could not be decoded"}, status=401)
        assert claims["iss"] == "42"
        assert claims["exp"] - claims["iat"] <= 600
        if status != 201:
            return web.json_response({"message": "Not Found"}, status=status)
        token = f"ghs_{len(server.calls('POST', PATH))}"
        ends = (datetime.now(UTC) + lives).strftime("%Y-%m-%dT%H:%M:%SZ")
        return web.json_response({"token": token, "expires_at": ends}, status=201)

    server.answers["POST", PATH] = answer


async def test_a_token_is_reused_until_it_expires() -> None:
    """Successive requests use the same token, which is requested once."""
    async with wire() as server, client(server.url) as http:
        github(server)
        token = AppToken(http, "42", "7", lambda: SecretStr(PEM))
        assert [(await token()).get_secret_value() for _ in range(3)] == ["ghs_1"] * 3


async def test_a_token_is_renewed_before_it_ends() -> None:
    """A token with less than five minutes to live is not used for another request."""
    async with wire() as server, client(server.url) as http:
        github(server, lives=timedelta(minutes=4))
        token = AppToken(http, "42", "7", lambda: SecretStr(PEM))
        assert [(await token()).get_secret_value() for _ in range(2)] == ["ghs_1", "ghs_2"]


@pytest.mark.parametrize(
    ("pem", "status", "expected"),
    [
        ("not a key", 201, "GITHUB_APP_PRIVATE_KEY is not a private key"),
        (None, 201, "GITHUB_APP_PRIVATE_KEY is not a private key"),
        (PEM, 404, "has no installation 7: set GITHUB_APP_INSTALLATION_ID"),
        (PEM, 403, "GitHub refused to issue a token for the App: Not Found"),
    ],
)
async def test_a_refusal_names_the_setting_to_fix(pem: str | None, status: int, expected: str) -> None:
    """The error names the key or the installation, or quotes GitHub."""
    async with wire() as server, client(server.url) as http:
        github(server, status=status)
        token = AppToken(http, "42", "7", lambda: SecretStr(pem) if pem else None)
        with pytest.raises(BotError, match=expected):
            await token()


async def test_the_key_of_another_app_is_named() -> None:
    """An unknown key and an invalid key have different messages."""
    another_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    async with wire() as server, client(server.url) as http:
        github(server)
        with pytest.raises(BotError, match="GITHUB_APP_PRIVATE_KEY must be a key of App 42"):
            await AppToken(http, "42", "7", lambda: SecretStr(another_key.decode()))()
