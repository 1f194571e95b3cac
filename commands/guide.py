"""Finding one's way: what can be said, with examples from this platform, and the nearest of it for a typo."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from bot.errors import BotError, Unavailable
from bot.operations.endpoints import all_endpoints
from bot.services import Services
from bot.views import code
from commands.words import Misunderstood

_PATIENCE = 2.5
"""Seconds that help waits for git; without an answer the examples name the template."""


@dataclass(frozen=True)
class Topic:
    """One thing that can be said after a command.

    In `example`, `{gpu}` stands for an endpoint of this platform that needs the GPU and `{any}` for any; `more` is
    what `help VERB` says beyond the line in the list.
    """

    verb: str
    usage: str
    does: str
    example: str = ""
    more: str = ""


@dataclass(frozen=True)
class Names:
    """Endpoints of this platform to put into examples."""

    gpu: str
    any: str


async def names(svc: Services) -> Names:
    """From the main branch; help must also work when git does not answer."""
    template = svc.config.platform.template
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await all_endpoints(svc, await svc.repository.head())
    except (BotError, Unavailable, TimeoutError):
        return Names(gpu=template, any=template)
    on_gpu = next((endpoint.name for endpoint in found if endpoint.gpus), template)
    return Names(gpu=on_gpu, any=found[-1].name if found else on_gpu)


def guide(command: str, about: str, topics: Sequence[Topic], wanted: str, examples: Names) -> str:
    """What can be said, or all about one verb; Misunderstood for a verb that is none."""
    if not wanted:
        rows = [f"*{command}* — {about}", *_list(command, topics)]
        return "\n".join([*rows, f"`{command} help VERB` says more, e.g. `{command} help {topics[0].verb}`."])
    topic = next((topic for topic in topics if topic.verb == wanted), None)
    if topic is None:
        raise unknown(command, wanted, topics)
    example = topic.example.format(gpu=examples.gpu, any=examples.any)
    rows = [f"{_said(command, topic)} — {topic.does}", *([topic.more] if topic.more else [])]
    return "\n".join([*rows, f"For example: `{' '.join(filter(None, (command, topic.verb, example)))}`"])


def unknown(command: str, verb: str, topics: Sequence[Topic]) -> Misunderstood:
    """For what is no verb: the nearest one, and what can be said."""
    near = get_close_matches(verb.lower(), [topic.verb for topic in topics], n=1, cutoff=0.5)
    hint = f" Did you mean {code(f'{command} {near[0]}'.strip())}?" if near else ""
    return Misunderstood(
        "\n".join([f"I don't know {code(f'{command} {verb[:80]}'.strip())}.{hint}", *_list(command, topics)])
    )


def _list(command: str, topics: Sequence[Topic]) -> list[str]:
    return [f"• {_said(command, topic)} — {topic.does}" for topic in topics]


def _said(command: str, topic: Topic) -> str:
    return f"`{' '.join(filter(None, (command, topic.verb, topic.usage)))}`"
