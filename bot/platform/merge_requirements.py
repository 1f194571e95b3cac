"""The conditions that a pull request must meet before it can be approved. The card, the buttons and the merge use the
same conditions.
"""

from datetime import datetime, timedelta

from bot.clients.checks import Expected
from bot.clients.github import PullRequest
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code


def lacking(pull: PullRequest, expected: Expected, repository: str, config: Config, unchanged: timedelta) -> Mrkdwn:
    """Return the condition that is missing for an approval, as text that follows "when"; empty if there is none.

    `expected` are the expected checks, `unchanged` is the time since the head changed or the last check appeared.
    """
    branch = config.platform.branch
    if pull.base_ref != branch:
        return md(
            "its base is {branch} again: somebody changed it to {base}, and nothing is merged there",
            branch=code(branch),
            base=code(pull.base_ref),
        )
    if pull.head_repository.lower() != repository.lower():
        return md(
            "its branch is in {own} again, not in {other}", own=code(repository), other=code(pull.head_repository)
        )
    if pull.draft:
        return md("it is no longer a draft")
    if pull.mergeable is False:
        return md("the conflict is resolved")
    return _checks(pull, expected, config, unchanged)


def _checks(pull: PullRequest, expected: Expected, config: Config, unchanged: timedelta) -> Mrkdwn:
    ci, waited = pull.ci, unchanged >= config.approvals.checks_grace
    if ci.verdict in ("failure", "pending"):
        return md("its checks have passed")
    if config.approvals.checks == "none":
        return md("")
    if missing := [name for name in expected.required if name not in ci.names]:
        return md("the required check {names} has appeared and passed", names=_named(missing))
    if "check runs" in ci.unread and ci.verdict == "none":
        return md(
            "its checks can be read: give the token the permission Checks: read (or set `approvals.checks: none`, if this"
            " repository has no CI)"
        )
    if ci.verdict == "none" and waited:
        return md("a check has run: none has appeared (set `approvals.checks: none`, if this repository has no CI)")
    usual = [name for name in expected.usual if name not in ci.names]
    if usual and not waited:
        return md("the check {names}, which recent pull requests had, has appeared and passed", names=_named(usual))
    if ci.verdict == "none":
        return md("a check has appeared and passed")
    if not waited and not expected.required and not expected.usual:
        return md("no further checks are expected")
    return md("")


def _named(names: list[str]) -> Mrkdwn:
    listed = md(", ").join(code(name[:60]) for name in names[:3])
    return listed + (" …" if len(names) > 3 else "")


def changed_at(head: str, names: tuple[str, ...], pull: PullRequest, since: datetime | None, now: datetime) -> datetime:
    """Return the time at which the bot first saw the current head and checks of the pull request. `head`, `names` and
    `since` are from the previous call.
    """
    same = (head, names) == (pull.head_sha, pull.ci.names)
    return since if same and since else now
