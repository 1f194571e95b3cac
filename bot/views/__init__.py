"""How things look in Slack. Pure: domain values in, Block Kit out; no client and no clock.

text.py      what people and APIs wrote, made safe; how money and times are written
blocks.py    Block Kit's pieces within Slack's limits
card.py      the one message of an operation, and its thread
reminder.py  what is said to the holder of the GPU
bench.py     what a benchmark measured
gpu.py       what is said about the GPU beside the cards
modals.py    the forms
"""

from bot.views.blocks import Blocks, View, actions, button, context, header, lines, section
from bot.views.card import APPROVE, ASK_HOLDER, BECAUSE, CANCEL, DENY, LEAVE, QUEUE, REPLACE, ROLL_OUT, card, thread
from bot.views.gpu import ADOPT, END_USE, NOT_NOW, PASS_ON, TAKE, offered, please_release, unmanaged
from bot.views.modals import BECAUSE_FORM, KeepUntil, because_form, keep_form
from bot.views.reminder import BRING_DOWN, KEEP, KEEP_UNTIL, blind, busy_line, reminder, settled_reminder
from bot.views.text import clock, code, escape, inline, moment, money, person, unmarked

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
    "blind",
    "busy_line",
    "button",
    "card",
    "clock",
    "code",
    "context",
    "escape",
    "header",
    "inline",
    "keep_form",
    "lines",
    "moment",
    "money",
    "offered",
    "person",
    "please_release",
    "reminder",
    "section",
    "settled_reminder",
    "thread",
    "unmanaged",
    "unmarked",
]
