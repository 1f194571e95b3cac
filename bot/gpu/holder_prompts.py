"""Questions to the holder of the GPU. The buttons of a question are removed when it is answered or obsolete."""

from bot.component import component
from bot.domain.leases import Lease, Question
from bot.domain.operations import Operation
from bot.domain.values import Message
from bot.slack.presentation import Presentation
from bot.state.messages import Messages
from bot.state.questions import Questions
from bot.text.mrkdwn import Mrkdwn
from bot.views import View, section, settled_reminder, without_buttons


def idle_key(lease: Lease) -> str:
    """Return the key of the session's reminder in the channel; the keys of the direct messages begin with it."""
    return f"idle:{lease.fence}"


def is_idle_dm(key: str) -> bool:
    """Return whether `key` is the key of a reminder by direct message."""
    return key.startswith("idle:") and (key.endswith(":dm") or ":last:" in key)


@component
class HolderPrompts:
    """Posts questions to the holder, and removes their buttons."""

    questions: Questions
    messages: Messages
    presentation: Presentation

    async def idle_reminders(self, op_id: str) -> tuple[str, ...]:
        """Return the keys of the idle reminders about an operation's session that have buttons."""
        return tuple(key for key in await self.questions.of(op_id) if key.startswith("idle:"))

    async def ask(self, lease: Lease, key: str, place: str, view: View) -> None:
        """Post a question about a session, once per `key`, and record its message."""
        await self.presentation.post(key, place, view, question=lease.op)

    async def ask_again(self, lease: Lease, key: str, place: str, view: View) -> None:
        """Update the earlier message with this key, which notifies nobody; if there is none, post the question."""
        message = await self.messages.posted(key)
        if message is None:
            await self.ask(lease, key, place, view)
            return
        await self._edit(lease.op, key, message, view)

    async def correct_ready(self, op: Operation) -> None:
        """Show the session's new end in its ready message, unless the buttons of that message are gone."""
        announcement = await self.presentation.announcements.ready(op)
        if announcement is None:
            return
        key, view = announcement
        if question := (await self.questions.of(op.id)).get(key):
            await self._edit(op.id, key, question.message, view)

    async def _edit(self, op_id: str, key: str, message: Message, view: View) -> None:
        answered = without_buttons(view)
        question = Question(message=message, text=answered.text, blocks=tuple(answered.blocks))
        await self.questions.note(op_id, key, question)
        await self.presentation.edit(message, view)

    async def settle(self, op_id: str, answer: Mrkdwn = Mrkdwn(), *, keys: tuple[str, ...] | None = None) -> None:
        """Remove the buttons of all questions about an operation's session, or only of the questions with these keys.

        `answer` replaces their text; without an answer the text stays. A question that is not posted yet is posted as
        `answer`, or not at all.
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

    async def announce_end(self, op_id: str, text: Mrkdwn) -> None:
        """Replace the buttons of a session's questions with `text`, because the session is about to end."""
        await self.presentation.withdraw(op_id, (), settled_reminder(text))
        for question in (await self.questions.of(op_id)).values():
            await self.presentation.edit(question.message, _with_text(question, text))

    async def close(self, lease: Lease, text: Mrkdwn) -> None:
        """Remove the buttons of all questions of a session that is over.

        `text` replaces the buttons of its reminders and of its ready message. A reminder that is not posted yet is
        posted as `text`.
        """
        questions = await self.questions.of(lease.op)
        keys = {
            idle_key(lease),
            f"{idle_key(lease)}:dm",
            f"ready:{lease.op}",
            *(key for key in questions if is_idle_dm(key)),
        }
        await self.presentation.withdraw(lease.op, tuple(keys), settled_reminder(text))
        for key in keys & questions.keys():
            await self.presentation.edit(questions[key].message, _with_text(questions[key], text))
            await self.questions.forget(lease.op, key)
        await self.settle(lease.op)


def _with_text(question: Question, text: Mrkdwn) -> View:
    return View(text=question.text, blocks=[*question.blocks, section(text)])
