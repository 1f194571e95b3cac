"""`/model`: the endpoints, and the pull requests that add or swap one."""

import asyncio
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.errors import BotError
from bot.services import Services
from bot.views import code
from commands.answers import answered
from commands.change import ask, open_form
from commands.guide import Topic, guide, names, unknown
from commands.words import Misunderstood, Words, read
from manifests.contract import read_endpoints
from manifests.tree import ManifestError

_OPTIONS = (
    "Options: `like=TEMPLATE` (add), `served=NAME`, `context=16384`, `quantization=awq_marlin|none`, `gpu-util=0.9`,"
    " `storage=20Gi`, `price-in=`, `price-out=`, `group=`, `arg=--flag=value` (repeatable). What is not said is derived"
    " from the model on Hugging Face and shown before anything is opened."
)
ABOUT = "what is served"
TOPICS = (
    Topic("list", "", "the endpoints, and whether they are up"),
    Topic(
        "add",
        "NAME [HF_ID] [options]",
        "a pull request with a new endpoint; without `HF_ID` a form asks",
        example="coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ like={gpu}",
        more=_OPTIONS,
    ),
    Topic(
        "swap",
        "NAME [HF_ID] [options]",
        "a pull request that changes what an endpoint serves",
        example="{gpu} Qwen/Qwen2.5-Coder-3B-Instruct-AWQ context=16384",
        more=_OPTIONS,
    ),
    Topic("help", "[VERB]", "this, or all about one of them", example="swap"),
)


def register(app: AsyncApp, svc: Services) -> None:
    @app.command("/model")
    async def model(ack: AsyncAck, respond: AsyncRespond, command: dict[str, Any]) -> None:
        await ack()
        await answered(respond, answer(svc, command))


async def answer(svc: Services, command: dict[str, Any]) -> str | None:
    """Do what was typed (`text`, `user_id`, `trigger_id`); returns what its sender alone is told."""
    said = read(command.get("text") or "")
    match said.verb:
        case "" | "help":
            return guide("/model", ABOUT, TOPICS, " ".join(said.names), await names(svc))
        case "list":
            return await endpoints(svc)
        case "add" | "swap":
            return await _change(svc, said, command)
        case _:
            raise unknown("/model", said.verb, TOPICS)


async def _change(svc: Services, said: Words, command: dict[str, Any]) -> str | None:
    if len(said.names) < 2:
        await open_form(svc, "add" if said.verb == "add" else "swap", "".join(said.names), command["trigger_id"])
        return None
    if len(said.names) != 2:
        raise Misunderstood(f"Say which endpoint and which model: `/model {said.verb} NAME HF_ID [options]`.")
    wanted = Request(
        kind=Kind.MODEL_ADD if said.verb == "add" else Kind.MODEL_SWAP,
        model=said.names[0],
        hf_id=said.names[1],
        actor=command["user_id"],
        channel=svc.config.slack.channel,
        at=svc.clock(),
        options=said.options,
        reason=said.reason,
    )
    return await ask(svc, wanted, command["trigger_id"])


async def endpoints(svc: Services) -> str:
    """The endpoints in the repo, joined with the cluster."""
    commit = await svc.repository.head()
    tree = await svc.repository.tree(commit)
    try:
        found = await asyncio.to_thread(read_endpoints, tree, svc.config.platform)
    except ManifestError as error:
        raise BotError(str(error)) from error
    leases = {lease.model: lease for lease in await svc.leases.held()}
    pulls = {op.request.model: op.plan.pull for op in await svc.store.open() if op.plan and op.plan.pull}
    lines = [f"*{len(found)} endpoints* at {code(commit[:10])}"]
    for endpoint in found:
        app = await svc.argocd.get(endpoint.application)
        workload = await svc.cluster.workload(endpoint.name)
        up = "up" if workload and workload.ready_replicas else "booting" if workload and workload.replicas else "down"
        sync = app.sync if app else "no Application"
        line = f"• {code(endpoint.name)} — {up}, {sync} — {endpoint.hf_id}"
        if lease := leases.get(endpoint.name):
            line += f", held by <@{lease.holder}>"
        if pull := pulls.get(endpoint.name):
            line += f", <{pull.url}|pull request #{pull.number}>"
        lines.append(line)
    return "\n".join(lines)
