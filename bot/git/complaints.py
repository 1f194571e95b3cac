"""Map git's error messages to one sentence each. The messages themselves are only in Stoker's log."""

import re

from bot.errors import BotError


class PushRefused(BotError):
    """The remote refused the commit: the branch contains other work, or a rule forbids it."""

    remedy = "Read the remote's reason: a rule of the repository forbids the branch, or the token may not write."


_OUTAGES = (
    (r"Could not resolve|[Nn]ame or service not known|name resolution", "its host name is unknown"),
    (r"returned error: (?P<status>\d{3})", "status {status}"),
    (r"certificate|SSL|TLS", "its certificate is not trusted"),
    (r"[Tt]imeout|timed out|too slow|less than \d+ bytes", "it took too long"),
    (r"[Ff]ailed to connect|[Cc]ould ?n[o']t connect|refused|unreachable|No route", "no connection to it is possible"),
    (r"early EOF|hung up|RPC failed|[Cc]onnection reset|unexpected|Broken pipe", "the connection was interrupted"),
)
_ABSENT = re.compile(
    r"returned error: 404|[Rr]epository '?.*'? ?(not found|does not exist)|does not appear to be a git repository"
)
_NOT_LET_IN = re.compile(
    r"Authentication failed|could not read (Username|Password)|returned error: 40[13]|Permission denied"
)
_REJECTED = re.compile(r"\[(?:remote )?rejected\](?:.*?\((?P<why>[^)]{1,100})\))?|pre-receive hook declined")
_REMOTE = re.compile(r"remote: (?:error: )?(.+?)\.? *(?=remote: |To \S|! \[|error: |$)")
_OTHER_WORK = ("stale info", "fetch first", "non-fast-forward")


def outage(complaint: str) -> str:
    """The reason why the remote did not answer; empty if git's message is unknown."""
    for pattern, meaning in _OUTAGES:
        if match := re.search(pattern, complaint):
            return meaning.format_map(match.groupdict())
    return ""


def refusal(complaint: str) -> BotError | None:
    """The error for a refusal that a retry does not resolve, with the remedy; None for any other message."""
    if _REJECTED.search(complaint):
        return _rejection(complaint)
    if "not allowed" in complaint and "transport" in complaint:
        return BotError(
            "Stoker does not use the protocol of the git remote: set GIT_REMOTE_URL to an address with https:// or ssh://."
        )
    if _ABSENT.search(complaint):
        return BotError(
            "The git remote has no such repository, or the token may not see it: check GIT_REMOTE_URL, GITHUB_REPOSITORY and"
            " the token's rights."
        )
    if _NOT_LET_IN.search(complaint):
        return BotError(
            "The git remote does not accept the token, or the token may not do this: check GITHUB_TOKEN or the GitHub App, and"
            " the token's rights."
        )
    return None


def _rejection(complaint: str) -> PushRefused:
    rejected = _REJECTED.search(complaint)
    reason = rejected["why"] if rejected and rejected["why"] else "pre-receive hook declined"
    if reason in _OTHER_WORK:
        return PushRefused(
            "The git remote refused the push: somebody else has pushed to the branch. Check their commit, then request it again."
        )
    remote_message = "; ".join(line for line in _REMOTE.findall(complaint) if line.strip())[:300]
    rule = f"{remote_message} ({reason})" if remote_message else reason
    return PushRefused(
        f"The git remote refused the push: {rule}. Change the branch's rules so that Stoker's account may push."
    )
