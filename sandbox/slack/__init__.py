"""A Slack workspace on loopback: Slack's documented wire protocol, a page to use it by hand, a control API for stories."""

from sandbox.slack.page import Outside
from sandbox.slack.workspace import Workspace

__all__ = ["Outside", "Workspace"]
