"""Links in messages: to other messages, Argo CD, logs and dashboards."""

import re
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

from bot.domain.values import Message
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, link, md
from bot.views.text import inline
from manifests.frozen import frozen


def permalink(workspace: str, message: Message | None) -> str:
    """Return the address of a message; empty if the workspace or the message is unknown.

    `workspace` is the workspace's address, with a slash at the end.
    """
    if not workspace or message is None:
        return ""
    return f"{workspace}archives/{message.channel}/p{message.ts.replace('.', '')}"


Place = Callable[[str], tuple[str, str] | None]
"""The namespace and the name of a model's Deployment; None if they are unknown."""


def unknown_place(_: str) -> None:
    return None


@frozen
class Links:
    """The addresses that the views need. If an address is empty, its label is shown without a link."""

    workspace: str = ""
    """The prefix of Slack's links to messages."""
    argocd: str = ""
    """Argo CD's web UI."""
    argocd_namespace: str = ""
    logs: str = ""
    """The address of a model's log, with the placeholders `{model}`, `{namespace}` and `{from}`."""
    dashboard: str = ""
    """The address of a model's dashboard, with the same placeholders."""
    namespace: str = ""
    """The namespace of a model's Deployment if `place` returns None; the Deployment then has the model's name."""
    place: Place = unknown_place

    @classmethod
    def of(cls, config: Config, workspace: str = "", place: Place = unknown_place) -> "Links":
        return cls(
            workspace=workspace,
            argocd=config.argocd.url,
            argocd_namespace=config.argocd.namespace,
            logs=config.links.logs,
            dashboard=config.links.dashboard,
            namespace=config.platform.namespace,
            place=place,
        )

    def message(self, message: Message | None, label: str) -> Mrkdwn:
        return link(permalink(self.workspace, message), label)

    def applications(self, names: tuple[str, ...]) -> Mrkdwn:
        """Links to Applications in Argo CD's web UI; empty if its address is not set."""
        if not self.argocd or not names:
            return md("")
        base = f"{self.argocd.rstrip('/')}/applications/{quote(self.argocd_namespace)}"
        return md("Argo CD: {links}", links=md(", ").join(link(f"{base}/{quote(n)}", inline(n, 60)) for n in names[:5]))

    def about(self, model: str, since: datetime) -> Mrkdwn:
        """Links to the model's log and dashboard, from `since` on; empty if their addresses are not set."""
        labels = {"logs": "Log", "dashboard": "Dashboard"}
        return md(" · ").join(link(url, labels[page]) for page, url in self.pages(model, since).items())

    def pages(self, model: str, since: datetime) -> dict[str, str]:
        """The addresses that are set, by the name of their setting."""
        namespace, name = self.place(model) or (self.namespace, model)
        values = {"model": name, "namespace": namespace, "from": str(int(since.timestamp() * 1000))}
        settings = {"logs": self.logs, "dashboard": self.dashboard}
        return {page: _fill_placeholders(address, values) for page, address in settings.items() if address}


def _fill_placeholders(address: str, values: dict[str, str]) -> str:
    """Replace the placeholders of an address. Values are percent-encoded, so they cannot change other parts of it."""
    return re.sub(r"\{(\w+)\}", lambda match: quote(values[match[1]], safe=""), address)


NO_LINKS = Links()
