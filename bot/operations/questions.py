"""What the holder of the GPU is asked: once answered, or once the session is over, no button of it is left."""

import structlog

from bot.domain import Lease, Question
from bot.errors import BotError, Unavailable
from bot.services import Services
from bot.views import View, settled_reminder

log = structlog.get_logger(__name__)


async def ask(svc: Services, lease: Lease, key: str, place: str, view: View) -> None:
    """Post a question about a session, once for `key`, and remember where it stands."""
    message = await svc.slack.post(key, place, view)
    kept = tuple(block for block in view.blocks if block["type"] != "actions")
    await svc.sessions.note_question(lease.op, key, Question(message=message, text=view.text, blocks=kept))


async def settle(svc: Services, op_id: str, said: str = "", *, keys: tuple[str, ...] = ()) -> None:
    """Take the buttons off the questions about an operation's session, or off those with these keys.

    `said` is what they become; without it they stay as they were asked. Slack that does not answer costs nothing but
    buttons, whose click is answered in words.
    """
    for key, question in (await svc.sessions.questions(op_id)).items():
        if keys and key not in keys:
            continue
        view = settled_reminder(said) if said else View(text=question.text, blocks=list(question.blocks))
        try:
            await svc.slack.update(question.message, view)
        except (BotError, Unavailable) as error:
            log.warning("question not settled", op=op_id, key=key, error=str(error))
        await svc.sessions.forget_question(op_id, key)
