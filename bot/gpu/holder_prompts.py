"""Questions posted to the GPU holder; their buttons are removed once answered or obsolete."""

from bot.component import component
from bot.domain.leases import Lease, Question
from bot.domain.operations import Operation
from bot.domain.values import Message
from bot.slack.presentation import Presentation
from bot.state.messages import Messages
from bot.state.questions import Questions
from bot.text.mrkdwn import Mrkdwn
from bot.views import View, section, settled_reminder, without_buttons


def idle(lease: Lease) -> str:
    """The key of the session's reminder in the channel; those of the direct messages begin with it."""
    return f"idle:{lease.fence}"


def is_idle_dm(key: str) -> bool:
    """Return whether it is the key of a reminder by direct message."""
    return key.startswith("idle:") and (key.endswith(":dm") or ":last:" in key)


@component
class HolderPrompts:
    """Posts questions to the holder, and removes their buttons."""

    questions: Questions
    messages: Messages
    presentation: Presentation

    async def about_idling(self, op_id: str) -> tuple[str, ...]:
        """The reminders about an operation's session that have buttons."""
        return tuple(key for key in await self.questions.of(op_id) if key.startswith("idle:"))

    async def ask(self, lease: Lease, key: str, place: str, view: View) -> None:
        """Post a question about a session, once for `key`, and record its message."""
        await self.presentation.post(key, place, view, question=lease.op)

    async def ask_again(self, lease: Lease, key: str, place: str, view: View) -> None:
        """Update the earlier message, which notifies nobody; if there is none, post the question."""
        message = await self.messages.posted(key)
        if message is None:
            await self.ask(lease, key, place, view)
            return
        await self._edit(lease.op, key, message, view)

    async def correct_ready(self, op: Operation) -> None:
        """Show the session's new end in the message that its model is ready, unless its buttons are gone."""
        said = await self.presentation.announcements.ready(op)
        if said and (question := (await self.questions.of(op.id)).get(said[0])):
            await self._edit(op.id, said[0], question.message, said[1])

    async def _edit(self, op_id: str, key: str, message: Message, view: View) -> None:
        answered = without_buttons(view)
        question = Question(message=message, text=answered.text, blocks=tuple(answered.blocks))
        await self.questions.note(op_id, key, question)
        await self.presentation.edit(message, view)

    async def settle(self, op_id: str, answer: Mrkdwn = Mrkdwn(), *, keys: tuple[str, ...] | None = None) -> None:
        """Remove the buttons of the questions about an operation's session, or of those with these keys.

        `answer` replaces their text; without it, it stays. An unposted question is posted as `answer`, or not at all.
        """
        if keys == ():
            return
        await self.presentation.withdraw(op_id, keys or (), settled_reminder(answer) if answer else None)
        for key, question in (await self.questions.of(op_id)).items():
            if keys and key not in keys:
                continue
            view = settled_reminder(answer) if answer else View(text=question.text, blocks=list(question.blocks))
            await self.presentation.edit(question.message, view)
            await self.questions.forget(op_id, key)

    async def ending(self, op_id: str, said: Mrkdwn) -> None:
        """The session is about to end: its questions keep their text, `said` replaces their buttons."""
        await self.presentation.withdraw(op_id, (), settled_reminder(said))
        for question in (await self.questions.of(op_id)).values():
            await self.presentation.edit(question.message, _with(question, said))

    async def close(self, lease: Lease, text: Mrkdwn) -> None:
        """The session is over: in its reminders and its ready message `text` replaces the buttons, others lose them.

        A reminder that is not posted yet is posted as `text`.
        """
        questions = await self.questions.of(lease.op)
        known = {idle(lease), f"{idle(lease)}:dm", f"ready:{lease.op}", *(key for key in questions if is_idle_dm(key))}
        await self.presentation.withdraw(lease.op, tuple(known), settled_reminder(text))
        for key in known & questions.keys():
            await self.presentation.edit(questions[key].message, _with(questions[key], text))
            await self.questions.forget(lease.op, key)
        await self.settle(lease.op)


def _with(question: Question, said: Mrkdwn) -> View:
    return View(text=question.text, blocks=[*question.blocks, section(said)])
