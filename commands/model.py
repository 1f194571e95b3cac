"""`/model`: the endpoints, and the pull requests that add or swap one."""

import asyncio
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.errors import BotError, Unavailable
from bot.operations.life import request
from bot.operations.pulls import already_open, check
from bot.services import Services
from bot.views import add_form, code
from commands.answers import answered
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

    @app.view("model_add")
    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any]) -> None:
        values = {block: state["value"]["value"] for block, state in view["state"]["values"].items()}
        hf_id = (values.get("hf_id") or "").strip()
        if hf_id.count("/") != 1:
            await ack(response_action="errors", errors={"hf_id": "Write it as on Hugging Face: organisation/name."})
            return
        channel, _, name = view["private_metadata"].partition(" ")
        options = tuple((key, values[key].strip()) for key in ("context", "served") if values.get(key))
        wanted = Request(
            kind=Kind.MODEL_ADD,
            model=name,
            actor=body["user"]["id"],
            channel=channel,
            at=svc.clock(),
            hf_id=hf_id,
            options=options,
        )
        try:
            await request(svc, wanted, view["id"])
        except Unavailable as error:
            await ack(response_action="errors", errors={"hf_id": f"{error}. Nothing was opened; try again."})
            return
        await ack()


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
    if said.verb == "add" and len(said.names) == 1:
        form = add_form(said.names[0], svc.config.slack.channel, svc.config.platform.template)
        await svc.slack.open_form(command["trigger_id"], form)
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
    return await _ask(svc, wanted, command["trigger_id"])


async def _ask(svc: Services, wanted: Request, delivery: str) -> str:
    """Set a change going; what cannot become a pull request is refused here, before anything is promised."""
    await check(svc, wanted)
    if other := await already_open(svc, wanted):
        pull = other.plan.pull if other.plan else None
        return (
            f"That is open already: <{pull.url}|pull request #{pull.number}>, asked by <@{other.request.actor}>."
            if pull
            else ""
        )
    await request(svc, wanted, delivery)
    return (
        f"Preparing a pull request that {'adds' if wanted.kind is Kind.MODEL_ADD else 'swaps'} {code(wanted.model)} …"
    )


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
