"""GitHub's refusals: their message, and the time to wait."""

import time

import httpx

from bot.clients.http import body
from bot.errors import BotError

_LONGEST_PAUSE = 3600.0
"""Maximum seconds of a pause: GitHub counts the primary limit per hour."""


def refusal(method: str, url: str, response: httpx.Response) -> BotError:
    """GitHub's refusal, with the fix if the status determines it."""
    refused = f"GitHub refused {method} {url}: {said(response)}"
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
    """Seconds for which nothing should be sent; a minute by default, as GitHub's documentation recommends."""
    after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
    if after.isdigit():
        return min(float(after), _LONGEST_PAUSE)
    if reset.isdigit() and response.headers.get("x-ratelimit-remaining") == "0":
        return min(max(float(reset) - time.time(), 0.0), _LONGEST_PAUSE)
    return 60.0


def rate_limited(response: httpx.Response) -> bool:
    """Return whether it is a rate limit, with status 403 or 429: the primary one has remaining 0, the secondary one
    Retry-After or only a sentence.
    """
    if response.status_code not in (httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS):
        return False
    headers = response.headers
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "rate limit" in str(body(response).get("message", "")).lower()
    )


def said(response: httpx.Response) -> str:
    """GitHub's message with the details of a 422, and the status."""
    answer = body(response)
    errors = answer.get("errors")
    details = [
        str(error.get("message") or error.get("code") or "") if isinstance(error, dict) else str(error)
        for error in (errors if isinstance(errors, list) else [])
    ]
    words = [str(answer.get("message") or "no reason given").rstrip("."), *(detail for detail in details if detail)]
    return f"{': '.join(words)[:500]} ({response.status_code})"
