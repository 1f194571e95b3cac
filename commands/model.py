"""`/model`: the endpoints, and the pull requests that add, swap or remove one."""

import asyncio
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.operations.bench import refuse_unmeasurable
from bot.operations.endpoints import endpoint_states, known_endpoint
from bot.operations.life import request
from bot.operations.pulls import plain_refusals
from bot.operations.smoke import refuse_untestable
from bot.services import Services
from bot.views.endpoints import details, disagreements, listing
from commands.answers import answered
from commands.change import ask, open_form
from commands.guide import guide, names, unknown
from commands.words import Misunderstood, Words, read
from manifests import contract
from manifests.fitting import fitted
from manifests.tree import ManifestError, Tree


def register(app: AsyncApp, svc: Services) -> None:
    @app.command("/model")
    async def model(ack: AsyncAck, respond: AsyncRespond, command: dict[str, Any]) -> None:
        await ack()
        await answered(respond, answer(svc, command), urgent=_opens_form(command.get("text") or ""))


def _opens_form(text: str) -> bool:
    words = text.split()
    return bool(words) and words[0].lower() in ("add", "swap") and len(words) < 3


async def answer(svc: Services, command: dict[str, Any]) -> str | None:
    """Do what was typed (`text`, `user_id`, `trigger_id`); returns what its sender alone is told."""
    said = read(command.get("text") or "")
    match said.verb:
        case "" | "help":
            return guide("/model", " ".join(said.names), await names(svc))
        case "list":
            commit = await svc.repository.head()
            return listing(await endpoint_states(svc, commit), commit)
        case "show":
            return await _show(svc, _one(said))
        case "check":
            return await _check(svc, _one(said) if said.names else None)
        case "add" | "swap":
            return await _change(svc, said, command)
        case "remove":
            return await ask(svc, _request(svc, Kind.MODEL_REMOVE, said, command), command["trigger_id"])
        case "smoke":
            await refuse_untestable(svc, _one(said))
            await request(svc, _request(svc, Kind.MODEL_SMOKE, said, command), command["trigger_id"])
            return None
        case "bench":
            await refuse_unmeasurable(svc, command["user_id"], _one(said))
            await request(svc, _request(svc, Kind.MODEL_BENCH, said, command), command["trigger_id"])
            return None
        case _:
            raise unknown("/model", command["text"])


def _one(said: Words) -> str:
    if len(said.names) != 1:
        raise Misunderstood(f"Say which endpoint: `/model {said.verb} NAME`; `/model list` has their names.")
    return said.names[0]


def _request(svc: Services, kind: Kind, said: Words, command: dict[str, Any]) -> Request:
    return Request(
        kind=kind,
        model=_one(said),
        actor=command["user_id"],
        channel=svc.config.slack.channel,
        at=svc.clock(),
        options=said.options,
        reason=said.reason,
    )


async def _show(svc: Services, name: str) -> str:
    commit = await svc.repository.head()
    await known_endpoint(svc, commit, name)  # with the nearest name for one that is unknown
    states = await endpoint_states(svc, commit)
    tree = await svc.repository.tree(commit)
    with plain_refusals():
        findings = await asyncio.to_thread(contract.check, tree, svc.config.platform, name)
    state = next(each for each in states if each.endpoint.name == name)
    return details(state, commit, findings)


async def _check(svc: Services, name: str | None) -> str:
    commit = await svc.repository.head()
    tree = await svc.repository.tree(commit)
    with plain_refusals():
        findings, guessed = await asyncio.to_thread(_checked, tree, svc.config.platform, name)
    found = [(each, await svc.github.file_url(commit, each.path, each.line)) for each in findings]
    return disagreements(found, name or "", commit, guessed)


def _checked(
    tree: Tree, layout: contract.Layout, name: str | None
) -> tuple[tuple[contract.Finding, ...], dict[str, str]]:
    """What the check finds, and the settings that it had to take from the files, since the given ones lead nowhere."""
    fitting = fitted(tree, layout)
    findings = contract.check(tree, fitting, name)
    if not findings and not contract.read_endpoints(tree, fitting):
        raise ManifestError(f"The main branch has no endpoint in {layout.serving_dir}/: set platform.serving_dir.")
    given = layout.model_dump()
    return findings, {key: value for key, value in fitting.model_dump().items() if value != given[key]}


async def _change(svc: Services, said: Words, command: dict[str, Any]) -> str | None:
    if len(said.names) < 2:
        await open_form(svc, "add" if said.verb == "add" else "swap", "".join(said.names), command["trigger_id"])
        return None
    extra = {word.lower() for word in said.names[2:]}
    if extra - {"up", "keep"} or (extra and "up" not in extra) or (said.hold and "up" not in extra):
        raise Misunderstood(
            f"Say which endpoint and which model: `/model {said.verb} NAME HF_ID [options] [up [keep] [for 2h]]`."
        )
    wanted = Request(
        kind=Kind.MODEL_ADD if said.verb == "add" else Kind.MODEL_SWAP,
        model=said.names[0],
        hf_id=said.names[1],
        actor=command["user_id"],
        channel=svc.config.slack.channel,
        at=svc.clock(),
        options=said.options,
        reason=said.reason,
        up="up" in extra,
        keep="keep" in extra,
        hold=said.hold,
    )
    return await ask(svc, wanted, command["trigger_id"])
