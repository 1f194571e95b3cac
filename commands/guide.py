"""Finding one's way: what can be said, with examples from this platform, and the nearest of it for a typo."""

import asyncio
from dataclasses import dataclass
from difflib import get_close_matches

from bot.errors import BotError, Unavailable
from bot.operations.endpoints import all_endpoints
from bot.services import Services
from bot.views import code
from commands.topics import COMMANDS, Topic
from commands.words import Misunderstood

_PATIENCE = 2.5
"""Seconds that help waits for git; without an answer the examples name the template."""


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


def guide(command: str, wanted: str, examples: Names) -> str:
    """What can be said, or all about one verb; Misunderstood for a verb that is none."""
    about, topics = COMMANDS[command].about, COMMANDS[command].topics
    if not wanted:
        more = f"`{command} help VERB` says more, e.g. `{command} help {topics[0].verb}`."
        return "\n".join([f"*{command}* — {about}", *_list(command), more])
    topic = next((topic for topic in topics if topic.verb == wanted), None)
    if topic is None:
        raise unknown(command, wanted)
    example = topic.example.format(gpu=examples.gpu, any=examples.any)
    rows = [f"{_said(command, topic)} — {topic.does}", *([topic.more] if topic.more else [])]
    return "\n".join([*rows, f"For example: `{' '.join(filter(None, (command, topic.verb, example)))}`"])


def unknown(command: str, text: str) -> Misunderstood:
    """For what begins with no verb: what was probably meant, else what can be said. Without a command, of both."""
    verb, _, rest = text.strip().partition(" ")
    said = f"I don't know {code(f'{command} {verb[:80]}'.strip())}."
    if meant := _meant(command, verb.lower()):
        if not command:  # where no slash can be typed
            meant = meant.removeprefix("/")
        everything = f"`{command} help`".replace("` ", "`")
        return Misunderstood(
            f"{said} Did you mean {code(f'{meant} {rest[:200]}'.strip())}? {everything} lists everything."
        )
    return Misunderstood("\n".join([said, *(row for name in COMMANDS if command in ("", name) for row in _list(name))]))


def noun_of(verb: str) -> str:
    """The command that a verb belongs to when it is said alone; empty for none."""
    return next((name for name, each in COMMANDS.items() if any(topic.verb == verb for topic in each.topics)), "")


def _meant(command: str, verb: str) -> str:
    """A verb of either command, or another word for one; else the verb of this command that is written nearly so."""
    own = {name: each for name, each in COMMANDS.items() if command in ("", name)}
    for name, each in {**own, **COMMANDS}.items():
        for topic in each.topics:
            if verb in (topic.verb, *topic.also):
                return f"{name} {topic.verb}"
    verbs = {topic.verb: f"{name} {topic.verb}" for name, each in own.items() for topic in each.topics}
    return next((verbs[near] for near in get_close_matches(verb, verbs, n=1, cutoff=0.5)), "")


def _list(command: str) -> list[str]:
    return [f"• {_said(command, topic)} — {topic.does}" for topic in COMMANDS[command].topics]


def _said(command: str, topic: Topic) -> str:
    return f"`{' '.join(filter(None, (command, topic.verb, topic.usage)))}`"
