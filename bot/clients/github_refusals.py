"""GitHub's error responses: their message, the fix, and the time to wait."""

import time

import httpx

from bot.clients.http import body
from bot.errors import BotError

_LONGEST_PAUSE = 3600.0
"""Maximum pause in seconds: GitHub counts the primary limit per hour."""


def refusal(method: str, url: str, response: httpx.Response) -> BotError:
    """The error for a refused request, with the fix for its status."""
    refused = f"GitHub refused {method} {url}: {message_of(response)}"
    match response.status_code:
        case httpx.codes.UNAUTHORIZED:
            return BotError("GitHub does not accept the token (401): set a valid GITHUB_TOKEN or GitHub App.")
        case httpx.codes.FORBIDDEN if needed := response.headers.get("x-accepted-github-permissions"):
            return BotError(f"{refused}. Give the token the permission {needed.replace('=', ': ')}.")
        case httpx.codes.NOT_FOUND:
            return BotError(
                f"{refused}. It does not exist, or the token may not see it: check GITHUB_REPOSITORY and the token."
            )
        case httpx.codes.FORBIDDEN:
            return BotError(f"{refused}. Give the token that right, or change the repository's rule that forbids it.")
        case _:
            return BotError(f"{refused}. Fix this on GitHub, then request it again.")


def pause(response: httpx.Response) -> float:
    """Seconds to wait before the next request; a minute by default, as GitHub's documentation recommends."""
    after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
    if after.isdigit():
        return min(float(after), _LONGEST_PAUSE)
    if reset.isdigit() and response.headers.get("x-ratelimit-remaining") == "0":
        return min(max(float(reset) - time.time(), 0.0), _LONGEST_PAUSE)
    return 60.0


def rate_limited(response: httpx.Response) -> bool:
    """Return whether the response is a rate limit (status 403 or 429). The primary limit has 0 remaining requests; the
    secondary limit has a Retry-After header or only a message.
    """
    if response.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS):
        return False
    headers = response.headers
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "rate limit" in str(body(response).get("message", "")).lower()
    )


def message_of(response: httpx.Response) -> str:
    """GitHub's message with the details of a 422, and the status."""
    answer = body(response)
    errors = answer.get("errors")
    details = [
        str(error.get("message") or error.get("code") or "") if isinstance(error, dict) else str(error)
        for error in (errors if isinstance(errors, list) else [])
    ]
    words = [str(answer.get("message") or "no reason given").rstrip("."), *(detail for detail in details if detail)]
    return f"{': '.join(words)[:500]} ({response.status_code})"
