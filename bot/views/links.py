"""Links from messages to other messages and to the systems that they are about."""

from dataclasses import dataclass
from urllib.parse import quote

from bot.domain.values import Message
from bot.mrkdwn import Mrkdwn, link, md
from bot.views.text import inline


def permalink(workspace: str, message: Message | None) -> str:
    """The address of a message; empty if the workspace's address, which ends with a slash, or the message is unknown."""
    if not workspace or message is None:
        return ""
    return f"{workspace}archives/{message.channel}/p{message.ts.replace('.', '')}"


@dataclass(frozen=True)
class Links:
    """The addresses that the views need; empty ones give the label without a link."""

    workspace: str = ""
    """The prefix of Slack's links to messages."""
    argocd: str = ""
    """Argo CD's web UI."""
    argocd_namespace: str = ""

    def message(self, message: Message | None, label: str) -> Mrkdwn:
        return link(permalink(self.workspace, message), label)

    def applications(self, names: tuple[str, ...]) -> Mrkdwn:
        """Links to Applications in Argo CD's web UI; empty without its address."""
        if not self.argocd or not names:
            return md("")
        base = f"{self.argocd.rstrip('/')}/applications/{quote(self.argocd_namespace)}"
        return md("Argo CD: {each}", each=md(", ").join(link(f"{base}/{quote(n)}", inline(n, 60)) for n in names[:5]))


NO_LINKS = Links()
