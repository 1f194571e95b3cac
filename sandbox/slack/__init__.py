"""A Slack workspace on loopback: Slack's documented protocol, a page for manual use, and actions for stories."""

from sandbox.slack.page import Outside
from sandbox.slack.workspace import Workspace

__all__ = ["Outside", "Workspace"]
