"""The bookmark of the channel that shows the holder of the GPU (`slack.bookmark`). Operations do not wait for it."""

import structlog

from bot.domain.leases import Lease
from bot.errors import BotError, Unavailable
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.leases import Leases

log = structlog.get_logger(__name__)

_LONGEST = 100
"""Maximum length of the title in characters; Slack shows about 40."""


class HolderBookmark:
    """Keeps the title of one bookmark up to date, if `slack.bookmark` is set."""

    def __init__(self, slack: Slack, leases: Leases, config: Config) -> None:
        self._slack, self._leases, self._config = slack, leases, config
        self._shown = ""

    async def refresh(self) -> None:
        """Update the bookmark if the holders have changed since this process last updated it. Errors are logged."""
        if not self._config.slack.bookmark:
            return
        try:
            title = await self._title()
            if title == self._shown:
                return
            await self._slack.bookmark(self._config.slack.channel, title)
            self._shown = title
        except (BotError, Unavailable) as error:
            log.warning("bookmark not updated", error=str(error))

    async def _title(self) -> str:
        leases = await self._leases.held()
        names = await self._slack.names(lease.holder for lease in leases)
        return "; ".join(_words(lease, names.get(lease.holder, "")) for lease in leases)[:_LONGEST] or "GPU: free"


def _words(lease: Lease, name: str) -> str:
    """The part of the title about one lease. A title cannot be formatted, so its time is in UTC."""
    until = f" until {lease.ends:%H:%M} UTC" if lease.ends else ", booting"
    return f"GPU: {lease.model}" + (f", {name}" if name else "") + until
