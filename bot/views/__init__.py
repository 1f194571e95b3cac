"""Rendering for Slack. Pure: domain values in, Block Kit out; no client and no clock.

- text.py: escaped text from people and APIs; formats of money and times
- blocks.py: Block Kit's elements within Slack's limits
- card.py: the message of an operation; thread.py: the messages below it
- progress.py: the phases of an operation; outcomes.py: its result; decisions.py: the buttons of approvers
- reminder.py: messages to the holder of the GPU
- bench.py: benchmark results
- newer.py, rich_text.py: Slack's newer blocks; older.py: the same content in older ones
- gpu.py: messages about the GPU outside cards
- modals.py: the forms
"""

from bot.views.blocks import (
    Blocks,
    View,
    actions,
    button,
    context,
    header,
    lines,
    plain_view,
    section,
    without_buttons,
)
from bot.views.card import (
    ASK_HOLDER,
    BECAUSE,
    CANCEL,
    LEAVE,
    QUEUE,
    REPLACE,
    card,
    plan_in_words,
)
from bot.views.decisions import APPROVE, DENY, ROLL_OUT
from bot.views.gpu import ADOPT, END_USE, NOT_NOW, PASS_ON, TAKE, gpu_offer, release_question, unmanaged_alert
from bot.views.modals import BECAUSE_FORM, KeepUntil, because_form, keep_form
from bot.views.reminder import BRING_DOWN, KEEP, KEEP_UNTIL, busy_line, metrics_unavailable, reminder, settled_reminder
from bot.views.text import clock, code, escape, inline, moment, money, person, unmarked
from bot.views.thread import thread

__all__ = [
    "ADOPT",
    "APPROVE",
    "ASK_HOLDER",
    "BECAUSE",
    "BECAUSE_FORM",
    "BRING_DOWN",
    "CANCEL",
    "DENY",
    "END_USE",
    "KEEP",
    "KEEP_UNTIL",
    "LEAVE",
    "NOT_NOW",
    "PASS_ON",
    "QUEUE",
    "REPLACE",
    "ROLL_OUT",
    "TAKE",
    "Blocks",
    "KeepUntil",
    "View",
    "actions",
    "because_form",
    "busy_line",
    "button",
    "card",
    "clock",
    "code",
    "context",
    "escape",
    "gpu_offer",
    "header",
    "inline",
    "keep_form",
    "lines",
    "metrics_unavailable",
    "moment",
    "money",
    "person",
    "plain_view",
    "plan_in_words",
    "release_question",
    "reminder",
    "section",
    "settled_reminder",
    "thread",
    "unmanaged_alert",
    "unmarked",
    "without_buttons",
]
