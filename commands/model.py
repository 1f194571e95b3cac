"""`/model`: questions about endpoints, and requests to change, test, stage or benchmark one."""

import asyncio
import re
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clients.github import GitHub
from bot.clients.huggingface import HuggingFace, model_id
from bot.component import component
from bot.domain.requests import AddModel, RemoveModel, RunBenchmark, SmokeTest, StageWeights, SwapModel, TuneModel
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints, EndpointStates
from bot.platform.fit import accounts
from bot.platform.pull_requests import plain_refusals
from bot.platform.runtime_aliases import GatewayAliases
from bot.settings.config import Config
from bot.state.endpoint_history import EndpointHistory
from bot.text.mrkdwn import Mrkdwn, code, md
from bot.views import View
from bot.views.endpoint_list import LIST_NEXT, LIST_PREVIOUS, Search, listing
from bot.views.endpoints import details, disagreements
from bot.views.fit import comparison
from bot.views.modals import Verb
from bot.workflows.benchmark import BenchmarkWorkflow
from bot.workflows.smoke_test import SmokeTestWorkflow
from bot.workflows.stage_weights import StagingWorkflow
from commands.change import Changes
from commands.guide import ExampleNames, guide, unknown
from commands.parsing import Misunderstood, Words, read
from commands.replies import Answer, card_reference, send_answer
from manifests import contract
from manifests.fitting import fitted_layout
from manifests.platform import Platform
from manifests.tree import ManifestError


@component
class EndpointQuestions:
    """The verbs of `/model` that only read."""

    endpoint_history: EndpointHistory
    hub: HuggingFace
    github: GitHub
    repository: Repository
    endpoint_states: EndpointStates
    endpoints: Endpoints
    gateway_aliases: GatewayAliases
    config: Config

    async def show(self, name: str) -> Mrkdwn:
        """Answer `show`; raises UnknownModel."""
        commit = await self.repository.head()
        await self.endpoints.require(commit, name)
        states = await self.endpoint_states.at(commit)
        tree = await self.repository.tree(commit)
        with plain_refusals():
            findings = await asyncio.to_thread(contract.check, Platform(tree, self.config.platform), name)
        state = next(endpoint_state for endpoint_state in states if endpoint_state.endpoint.name == name)
        return details(state, commit, findings)

    async def check(self, name: str | None) -> Mrkdwn:
        """Answer `check` for one endpoint, or for all of them and LiteLLM's aliases."""
        commit = await self.repository.head()
        tree = await self.repository.tree(commit)
        with plain_refusals():
            findings, guessed = await asyncio.to_thread(_check, Platform(tree, self.config.platform), name)
        linked = [(finding, await self.github.file_url(commit, finding.path, finding.line)) for finding in findings]
        answer = disagreements(linked, name or "", commit, guessed)
        return answer if name else md("\n").join([answer, *await self._runtime_aliases(commit)])

    async def _runtime_aliases(self, commit: str) -> list[Mrkdwn]:
        """Report the aliases in LiteLLM's database that are not in git, or the reason why they are not compared."""
        tree = await self.repository.tree(commit)
        try:
            listed = await asyncio.to_thread(Platform(tree, self.config.platform).entries)
            strangers = await self.gateway_aliases.strangers({entry.alias for entry in listed})
        except (BotError, Unavailable, ManifestError) as error:
            return [md("ℹ️ LiteLLM's runtime aliases could not be compared with git: {error}", error=error)]
        if not strangers:
            return []
        names = md(", ").join(map(code, strangers))
        return [
            md(
                "⚠️ LiteLLM has runtime aliases that are not in git: {names}. Add them to git, or delete them in LiteLLM.",
                names=names,
            )
        ]

    async def fit(self, words: Words) -> Mrkdwn:
        """Answer `fit`. The context and the limits are taken from the template on the main branch."""
        tree = await self.repository.tree(await self.repository.head())
        with plain_refusals():
            template = await asyncio.to_thread(contract.template_of, Platform(tree, self.config.platform))
            observed = await self.endpoint_history.observations()
            answers = await accounts(self.hub, self.config, words.names, words.options, template, observed)
        fits = [answer for answer in answers if not isinstance(answer, BotError)]
        return comparison(fits, [str(answer) for answer in answers if isinstance(answer, BotError)])


@component
class ModelCommand:
    """`/model`."""

    repository: Repository
    benchmark: BenchmarkWorkflow
    changes: Changes
    endpoint_questions: EndpointQuestions
    endpoint_states: EndpointStates
    example_names: ExampleNames
    lifecycle: Lifecycle
    smoke_test: SmokeTestWorkflow
    stage_weights: StagingWorkflow
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.command("/model")
        async def model(ack: AsyncAck, respond: AsyncRespond, command: dict[str, Any]) -> None:
            await ack()
            await send_answer(respond, self.answer(command), urgent=_opens_form(command.get("text") or ""))

        @app.action(re.compile(f"^({LIST_PREVIOUS}|{LIST_NEXT})$"))
        async def page_clicked(ack: AsyncAck, respond: AsyncRespond, action: dict[str, Any]) -> None:
            await ack()
            await send_answer(respond, self._list(Search.of_value(action["value"])), replace=True)

    async def _list(self, search: Search) -> View:
        commit = await self.repository.head()
        return listing(await self.endpoint_states.at(commit), commit, search)

    async def answer(self, command: dict[str, Any]) -> Answer:
        """Execute a command (`text`, `user_id`, `trigger_id`); returns the answer for its sender."""
        words = read(command.get("text") or "")
        match words.verb:
            case "" | "help":
                return guide("/model", " ".join(words.names), await self.example_names.read())
            case "list":
                return await self._list(Search.read(" ".join(words.names)))
            case "show":
                return await self.endpoint_questions.show(_one(words))
            case "check":
                return await self.endpoint_questions.check(_one(words) if words.names else None)
            case "fit":
                return await self.endpoint_questions.fit(words)
            case "add" | "swap":
                return await self._change(words, command)
            case "tune":
                tune = TuneModel(
                    model=_one(words),
                    options=words.options,
                    **self.lifecycle.request_fields(command["user_id"], words.reason),
                )
                return await self.changes.ask(tune, command["trigger_id"], command.get("channel_id"))
            case "remove":
                removal = RemoveModel(
                    model=_one(words),
                    options=words.options,
                    **self.lifecycle.request_fields(command["user_id"], words.reason),
                )
                return await self.changes.ask(removal, command["trigger_id"], command.get("channel_id"))
            case "smoke":
                await self.smoke_test.refuse_untestable(_one(words))
                await self.lifecycle.request(
                    SmokeTest(model=_one(words), **self.lifecycle.request_fields(command["user_id"], words.reason)),
                    command["trigger_id"],
                )
                return card_reference(command.get("channel_id"), self.config.slack.channel)
            case "stage":
                await self.stage_weights.refuse_unstageable(command["user_id"], _one(words))
                await self.lifecycle.request(
                    StageWeights(model=_one(words), **self.lifecycle.request_fields(command["user_id"], words.reason)),
                    command["trigger_id"],
                )
                return card_reference(command.get("channel_id"), self.config.slack.channel)
            case "bench":
                await self.benchmark.refuse_unmeasurable(command["user_id"], _one(words))
                await self.lifecycle.request(
                    RunBenchmark(model=_one(words), **self.lifecycle.request_fields(command["user_id"], words.reason)),
                    command["trigger_id"],
                )
                return card_reference(command.get("channel_id"), self.config.slack.channel)
            case _:
                raise unknown("/model", command["text"])

    async def _change(self, words: Words, command: dict[str, Any]) -> Mrkdwn | None:
        if len(words.names) < 2:
            verb: Verb = "add" if words.verb == "add" else "swap"
            await self.changes.open_form(
                verb, "".join(words.names), command["trigger_id"], command.get("channel_id") or ""
            )
            return None
        extra = {word.lower() for word in words.names[2:]}
        now = "now" in extra
        extra -= {"now"}
        if extra - {"up", "keep"} or (extra and "up" not in extra) or (words.hold and "up" not in extra):
            raise Misunderstood(
                md(
                    "Name the endpoint and the model: `/model {verb} NAME HF_ID [options] [up [keep] [for 2h]]`.",
                    verb=words.verb,
                )
            )
        if now and words.verb != "add":
            raise Misunderstood(md("`now` is for `/model add`: an endpoint that is swapped already has an alias."))
        origin, name, hf_id = (
            self.lifecycle.request_fields(command["user_id"], words.reason),
            words.names[0],
            model_id(words.names[1]),
        )
        up, keep, hold = "up" in extra, "keep" in extra, words.hold
        request: AddModel | SwapModel
        if words.verb == "add":
            request = AddModel(
                model=name, hf_id=hf_id, options=words.options, up=up, keep=keep, hold=hold, now=now, **origin
            )
        else:
            request = SwapModel(model=name, hf_id=hf_id, options=words.options, up=up, keep=keep, hold=hold, **origin)
        return await self.changes.ask(request, command["trigger_id"], command.get("channel_id"))


def _opens_form(text: str) -> bool:
    words = text.split()
    return bool(words) and words[0].lower() in ("add", "swap") and len(words) < 3


def _one(words: Words) -> str:
    if len(words.names) != 1:
        raise Misunderstood(
            md("Name the endpoint: `/model {verb} NAME`. `/model list` shows the names.", verb=words.verb)
        )
    return words.names[0]


def _check(platform: Platform, name: str | None) -> tuple[tuple[contract.Finding, ...], dict[str, str]]:
    """Check the endpoints. Returns the findings, and the settings that were inferred from the files because the configured
    ones do not match them.
    """
    layout, fitting = platform.layout, fitted_layout(platform)
    platform = platform.with_layout(fitting)
    findings = contract.check(platform, name, advice=True)
    if not findings and not contract.read_endpoints(platform):
        raise ManifestError(f"The main branch has no endpoint in {layout.serving_dir}/: set platform.serving_dir.")
    configured = layout.model_dump()
    return findings, {key: value for key, value in fitting.model_dump().items() if value != configured[key]}
