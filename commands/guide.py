"""Help text, and suggestions for mistyped commands."""

import asyncio
from difflib import get_close_matches

from bot.component import component
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.settings.config import Config
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code
from commands.help_topics import COMMANDS, Topic
from commands.parsing import Misunderstood, is_question
from manifests.frozen import frozen

_DECISIONS = frozenset({"approve", "approved", "deny", "denied", "reject", "yes", "no", "ok", "lgtm", "override"})
"""Words that people type to decide about a card. No command with a similar spelling is suggested for them."""
_PATIENCE = 2.5
"""Timeout in seconds for reading the endpoints; without them, the examples use the template's name."""


@frozen
class Names:
    """The endpoints that the examples use: one that needs the GPU, and any other one."""

    gpu: str
    any: str


@component
class ExampleNames:
    """Finds endpoints for the examples in the help."""

    repository: Repository
    endpoints: Endpoints
    config: Config

    async def read(self) -> Names:
        """Read the names from the main branch; returns the template's name if git does not answer."""
        template = self.config.platform.template
        try:
            async with asyncio.timeout(_PATIENCE):
                endpoints = await self.endpoints.all(await self.repository.head())
        except (BotError, Unavailable, TimeoutError):
            return Names(gpu=template, any=template)
        on_gpu = next((endpoint.name for endpoint in endpoints if endpoint.gpus), template)
        return Names(gpu=on_gpu, any=endpoints[-1].name if endpoints else on_gpu)


def guide(command: str, verb_or_text: str, examples: Names) -> Mrkdwn:
    """Return the list of verbs, or the details of one verb; raises Misunderstood for an unknown verb."""
    about_command, topics = COMMANDS[command].about, COMMANDS[command].topics
    if not verb_or_text:
        more = md(
            "`{command} help VERB` shows details, e.g. `{command} help {verb}`.", command=command, verb=topics[0].verb
        )
        return md("\n").join(
            [md("*{command}* — {about_command}", command=command, about_command=about_command), *_list(command), more]
        )
    topic = next((topic for topic in topics if topic.verb == verb_or_text), None)
    if topic is None:
        raise unknown(command, verb_or_text)
    example = topic.example.format(gpu=examples.gpu, any=examples.any)
    rows = [_row(command, topic), *([topic.more] if topic.more else [])]
    example_code = code(" ".join(filter(None, (command, topic.verb, example))))
    return md("\n").join([*rows, md("For example: {example}", example=example_code)])


def unknown(command: str, text: str) -> Misunderstood:
    """Return the error for an unknown verb. It suggests the closest match, or lists all verbs of `command` (of both
    commands if `command` is empty).
    """
    verb, _, arguments = text.strip().partition(" ")
    text_line = md("Unknown command: {error}.", error=code(f"{command} {verb[:80]}".strip()))
    if verb.lower().strip(".!") in _DECISIONS:
        return Misunderstood(
            md(
                "{error} To decide about a request, use the buttons on its card or in Stoker's Home.",
                error=text_line,
            )
        )
    if verb.lower() == "bring" and arguments.lower().partition(" ")[0] in ("up", "down"):  # cards use these words
        verb, _, arguments = arguments.partition(" ")
    if not _is_sentence(command, f"{verb} {arguments}") and (suggestion := _suggestion(command, verb.lower())):
        if not command:  # in a mention or a direct message
            suggestion = suggestion.removeprefix("/")
        return Misunderstood(
            md(
                "{error} Did you mean {suggestion}? {everything} lists everything.",
                error=text_line,
                suggestion=code(f"{suggestion} {arguments[:200]}".strip()),
                everything=code(f"{command} help".strip()),
            )
        )
    rows = [row for name in COMMANDS if command in ("", name) for row in _list(name)]
    return Misunderstood(md("\n").join([text_line, *rows]))


def noun_of(verb: str) -> str:
    """Return the command that has this verb; empty if there is none."""
    return next((name for name, command in COMMANDS.items() if any(topic.verb == verb for topic in command.topics)), "")


def _is_sentence(command: str, text: str) -> bool:
    """Return whether the text is a sentence and not a mistyped command. No verb is suggested for a sentence, because most
    verbs change something.
    """
    words = text.lower().partition(" because ")[0].partition(" for ")[0].split()
    bare = [word for word in words if "=" not in word and not word[0].isdigit()]
    asks = not command and is_question(text)
    return asks or "please" in bare or len(bare) > 3 or any(noun_of(word) for word in bare[1:])


def _suggestion(command: str, verb: str) -> str:
    """Return the command and verb for a verb or synonym of either command, otherwise for the verb of `command` with the
    most similar spelling; empty if there is none.
    """
    candidates = {name: entry for name, entry in COMMANDS.items() if command in ("", name)}
    for name, entry in {**candidates, **COMMANDS}.items():
        for topic in entry.topics:
            if verb in (topic.verb, *topic.also):
                return f"{name} {topic.verb}"
    verbs = {topic.verb: f"{name} {topic.verb}" for name, entry in candidates.items() for topic in entry.topics}
    return next((verbs[match] for match in get_close_matches(verb, verbs, n=1, cutoff=0.5)), "")


def _list(command: str) -> list[Mrkdwn]:
    return [md("• {row}", row=_row(command, topic)) for topic in COMMANDS[command].topics]


def _row(command: str, topic: Topic) -> Mrkdwn:
    usage = code(" ".join(filter(None, (command, topic.verb, topic.usage))))
    return md("{usage} — {does}", usage=usage, does=topic.does)
