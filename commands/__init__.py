"""What people can ask in Slack: one file per noun. Parse, decide, enqueue, answer."""

from slack_bolt.async_app import AsyncApp

from bot.services import Services
from commands import approval, change, gpu, model, reminder, waiting


def register(app: AsyncApp, svc: Services) -> None:
    """Every listener of the app; nothing else listens."""
    gpu.register(app, svc)
    model.register(app, svc)
    approval.register(app, svc)
    reminder.register(app, svc)
    change.register(app, svc)
    waiting.register(app, svc)
