"""`/model add` and `/model swap`: the text commands, and the form that evaluates its input while the user types."""

import asyncio
import dataclasses
import difflib
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clients.huggingface import HuggingFace, model_id
from bot.component import component
from bot.domain.requests import AddModel, ChangeRequest, SwapModel
from bot.engine.lifecycle import Lifecycle
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.change_planning import Options, look_up_model, plan_change, read_options
from bot.platform.endpoints import Endpoints
from bot.platform.pull_requests import ChangeChecks
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.state.endpoint_history import EndpointHistory
from bot.text.mrkdwn import Mrkdwn, link, md, person
from bot.views import code
from bot.views.form_terms import in_form
from bot.views.modals import (
    ADVANCED,
    ADVANCED_FORM,
    CHANGE_FORM,
    TYPED,
    ChangeForm,
    Verb,
    advanced_form,
    change_form,
    form_values,
    model_options,
    shows_problem,
)
from commands.replies import elsewhere, ephemeral_responder, open_and_fill, send_answer
from manifests.add import refuse_taken
from manifests.change import Change
from manifests.platform import Platform
from manifests.sizing import FIGURES, MissingFigures, ModelFacts
from manifests.tree import ManifestError, Tree

Body = dict[str, Any]
log = structlog.get_logger(__name__)

_OPTIONS = ("like", "context", "served", *FIGURES)
"""The option fields of the first page."""

_PAUSE, _SUBMIT = 0.25, 2.0
"""Delay in seconds after the last character before a form is evaluated, and timeout in seconds for the check of a
submitted form before its acknowledgement.
"""

_BELOW = "The pull request cannot be opened: see the reason at the end of the form."
"""The error beside a field if the form already shows the details."""


class Forms:
    """The open forms for a change, which are evaluated while the user types."""

    def __init__(
        self,
        hub: HuggingFace,
        repository: Repository,
        slack: Slack,
        endpoint_history: EndpointHistory,
        endpoints: Endpoints,
        config: Config,
    ) -> None:
        self._hub, self._repository, self._slack = hub, repository, slack
        self._endpoint_history, self._endpoints, self._config = endpoint_history, endpoints, config
        self._facts: dict[str, ModelFacts] = {}
        self._newest: dict[str, object] = {}
        """The latest event of each open form; older events are skipped."""

    async def suggestions(self, text: str) -> list[Body]:
        """Return the models that Hugging Face finds for the typed text, and the text itself if it is a model id."""
        try:
            async with asyncio.timeout(_SUBMIT):
                ids = await self._hub.search(model_id(text))
        except (BotError, Unavailable, TimeoutError) as error:
            log.info("no suggestions", error=str(error))
            ids = ()
        return model_options(ids, model_id(text))

    async def refresh(self, view: Body) -> None:
        """Evaluate a form again, unless another character arrives in the meantime."""
        event = self._newest[view["id"]] = object()
        await asyncio.sleep(_PAUSE)
        if self._newest.get(view["id"]) is event:
            del self._newest[view["id"]]
            metadata = json.loads(view["private_metadata"])
            await self.show(view["id"], metadata, form_values(view), _options(metadata))

    async def show(self, view_id: str, metadata: Body, values: Mapping[str, str], options: Options) -> None:
        """Evaluate a form and show the result in it."""
        try:
            form = await self._evaluate(metadata["verb"], metadata["commit"], values, options)
            await self._slack.update_form(view_id, change_form(_with(form, asked_in=metadata.get("asked_in", ""))))
        except (BotError, Unavailable) as error:
            log.info("form not updated", error=str(error))  # usually because it has been submitted or closed

    async def _evaluate(self, verb: Verb, commit: str, values: Mapping[str, str], options: Options) -> ChangeForm:
        names = tuple(endpoint.name for endpoint in await self._endpoints.all(commit))
        form = ChangeForm(verb=verb, commit=commit, values=values, options=options, names=names)
        if not values.get("hf_id") or not values.get("name"):
            return form
        try:
            tree = await self._repository.tree(commit)
            change = await self._change(tree, verb, values, options)
        except MissingFigures as missing:
            return _with(form, problem=in_form(str(missing)), figures=_figures({*values, *missing.options}))
        except (BotError, ManifestError, Unavailable) as error:
            return _with(form, problem=in_form(str(error)), figures=_figures(values))
        files = await asyncio.to_thread(_changed, tree, change)
        sizing = change.sizing
        return _with(
            form,
            summary=change.summary,
            verdict=sizing.verdict if sizing else "",
            sizing=tuple((row.label, row.value, row.limit, row.ok) for row in sizing.numbers) if sizing else (),
            files=files,
            warnings=tuple(map(in_form, change.warnings)),
            figures=_figures(values),
        )

    async def _change(self, tree: Tree, verb: Verb, values: Mapping[str, str], options: Options) -> Change:
        facts = await self._look_up(model_id(values["hf_id"]))
        all_options = self.chosen_options(verb, values, options)
        return await asyncio.to_thread(plan_change, tree, self._config, verb, values["name"], all_options, facts)

    async def _look_up(self, hf_id: str) -> ModelFacts:
        """Look up a model's facts, and cache them. If Hugging Face does not answer, the form asks for the missing figures."""
        if hf_id not in self._facts:
            observed = await self._endpoint_history.observations()
            facts = await look_up_model(self._hub, hf_id, observed)
            if not facts.revision and not facts.weight_bytes:
                return facts
            if len(self._facts) >= 100:
                self._facts.pop(next(iter(self._facts)))
            self._facts[hf_id] = facts
        return self._facts[hf_id]

    def chosen_options(self, verb: Verb, values: Mapping[str, str], advanced: Options) -> Options:
        """Return every option in the form. The default template is omitted if the model is known, so that the template
        closest to the model is used.
        """
        options = [(key, values[key]) for key in _OPTIONS if key in values and (verb == "add" or key != "like")]
        usual = ("like", self._config.platform.template) if model_id(values["hf_id"]) in self._facts else None
        return (*(pair for pair in options if pair != usual), *advanced)

    async def advanced_problems(
        self, verb: Verb, commit: str, values: Mapping[str, str], advanced: Options
    ) -> dict[str, str]:
        """Return the errors of the second page by field. Invalid arguments are reported here, because the first page has no
        field for them.
        """
        errors = _parse_errors(verb, advanced)
        arguments = [key for key, _ in advanced if key == "arg"]
        if errors or not arguments or not values.get("hf_id") or not values.get("name"):
            return errors
        with suppress(BotError, ManifestError, Unavailable, TimeoutError):
            async with asyncio.timeout(_SUBMIT):
                tree = await self._repository.tree(commit)
                await self._change(tree, verb, values, tuple(pair for pair in advanced if pair[0] != "arg"))
                try:
                    await self._change(tree, verb, values, advanced)
                except ManifestError as error:
                    errors["arg"] = in_form(str(error))
        return errors

    async def problems(self, verb: Verb, commit: str, values: Mapping[str, str], options: Options) -> dict[str, str]:
        """Return the errors by field. Checks that take too long are repeated after the acknowledgement, and a message then
        shows their errors.
        """
        errors = _parse_errors(verb, tuple((key, values[key]) for key in _OPTIONS if key in values))
        try:
            async with asyncio.timeout(_SUBMIT):
                tree = await self._repository.tree(commit)
                if verb == "add":
                    try:
                        platform = Platform(tree, self._config.platform)
                        await asyncio.to_thread(refuse_taken, platform, values["name"])
                    except ManifestError as error:
                        errors["name"] = in_form(str(error))
                if not errors:
                    await self._change(tree, verb, values, options)
        except (BotError, ManifestError) as error:
            errors["hf_id"] = in_form(str(error))
        except (Unavailable, TimeoutError) as error:
            log.info("form not checked in time", error=str(error))
        return errors


@component
class Changes:
    """Starts changes, and opens the form for them."""

    slack: Slack
    repository: Repository
    endpoints: Endpoints
    lifecycle: Lifecycle
    change_checks: ChangeChecks
    config: Config

    async def ask(self, request: ChangeRequest, delivery: str, asked_in: str | None = None) -> Mrkdwn:
        """Start a change, and return the answer. Raises an error if the request cannot become a pull request.

        `asked_in` is the channel of the request, if it is known.
        """
        await self.change_checks.check(request)
        if opened := await self.change_checks.already_open(request):
            earlier, pull = opened
            return md(
                "This is already open: {pull}, requested by {actor}.",
                pull=link(pull.url, f"pull request #{pull.number}"),
                actor=person(earlier.request.actor),
            )
        await self.lifecycle.request(request, delivery)
        answer = md(
            "Preparing a pull request that {does} {model} …", does=request.kind.spec.does, model=code(request.model)
        )
        card_text = elsewhere(asked_in, self.config.slack.channel, md(" The card will be in")) if asked_in else None
        return answer + (card_text or md(""))

    async def open_form(self, verb: Verb, name: str, trigger_id: str, asked_in: str = "") -> None:
        """Open the form immediately, then fill it from the main branch."""

        async def fill() -> Body:
            commit = await self.repository.head()
            names = tuple(endpoint.name for endpoint in await self.endpoints.all(commit))
            if verb == "swap" and not names:
                raise BotError(md("There are no endpoints to swap yet. `/model add` adds one."))
            chosen = name if verb == "add" or name in names else names[0]
            values = {"name": chosen} | ({"like": self.config.platform.template} if verb == "add" else {})
            return change_form(ChangeForm(verb=verb, commit=commit, values=values, names=names, asked_in=asked_in))

        await open_and_fill(self.slack, trigger_id, ChangeForm(verb=verb).name, fill)


@component
class ChangeForms:
    """The listeners of the forms for a change."""

    slack: Slack
    forms: Forms
    changes: Changes
    lifecycle: Lifecycle
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.options(f"{TYPED}:hf_id")
        async def suggest_models(ack: AsyncAck, payload: Body) -> None:
            await ack(options=await self.forms.suggestions(str(payload.get("value") or "")))

        @app.action(re.compile(rf"^{TYPED}:"))
        async def field_changed(ack: AsyncAck, body: Body) -> None:
            await ack()
            if body.get("view", {}).get("callback_id") == CHANGE_FORM:
                await self.forms.refresh(body["view"])

        @app.action(ADVANCED)
        async def advanced_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
            await ack()
            await send_answer(respond, self._push_advanced(body["view"], body["trigger_id"]), urgent=True)

        @app.view(ADVANCED_FORM)
        async def advanced_submitted(ack: AsyncAck, view: Body) -> None:
            await self._submit_advanced(ack, view)

        @app.view(CHANGE_FORM)
        async def form_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await self._submit(ack, body["user"]["id"], view)

    async def _push_advanced(self, view: Body, trigger_id: str) -> None:
        """Open the second page. Its metadata contains the input of the first page."""
        state = json.loads(view["private_metadata"])
        metadata = json.dumps({**state, "values": form_values(view), "root": view["id"]}, ensure_ascii=False)
        await self.slack.push_form(trigger_id, advanced_form(state["verb"], _options(state), metadata))

    async def _submit_advanced(self, ack: AsyncAck, view: Body) -> None:
        """Report the errors beside the fields of the second page, or evaluate the first page with its options."""
        state, advanced = json.loads(view["private_metadata"]), _advanced(form_values(view))
        if errors := await self.forms.advanced_problems(state["verb"], state["commit"], state["values"], advanced):
            await ack(response_action="errors", errors=errors)
            return
        await ack()
        await self.forms.show(state["root"], state, state["values"], advanced)

    async def _submit(self, ack: AsyncAck, actor: str, view: Body) -> None:
        """Report the errors beside the fields, or start the change."""
        state, values = json.loads(view["private_metadata"]), form_values(view)
        options = _options(state)
        if errors := await self.forms.problems(state["verb"], state["commit"], values, options):
            messages = {field: _BELOW if shows_problem(view, error) else error for field, error in errors.items()}
            await ack(response_action="errors", errors=messages)
            return
        await ack()
        request = (AddModel if state["verb"] == "add" else SwapModel)(
            model=values["name"],
            hf_id=model_id(values["hf_id"]),
            options=self.forms.chosen_options(state["verb"], values, options),
            **self.lifecycle.request_fields(actor, values.get("reason", "")),
        )
        asked_in = state.get("asked_in", "")
        respond = ephemeral_responder(self.slack, asked_in or self.config.slack.channel, actor)
        await send_answer(respond, self.changes.ask(request, view["id"], asked_in))


def _with(form: ChangeForm, **changes: Any) -> ChangeForm:
    return dataclasses.replace(form, **changes)


def _options(metadata: Body) -> Options:
    """Read the options of the second page from a form's metadata."""
    return tuple((key, value) for key, value in metadata["options"])


def _figures(options: Collection[str]) -> tuple[tuple[str, str, str], ...]:
    """Return the figures to ask for, with their labels and examples: missing and already entered figures."""
    return tuple((option, *FIGURES[option][1:]) for option in FIGURES if option in options)


def _changed(tree: Tree, change: Change) -> tuple[tuple[str, int, int], ...]:
    """Return each file of a change with the numbers of its added and removed lines."""
    rows = []
    for path, text in change.changes.files.items():
        old_lines, new_lines = (tree.read(path) or "").splitlines(), (text or "").splitlines()
        diff = [line[:1] for line in difflib.ndiff(old_lines, new_lines)]
        rows.append((path, diff.count("+"), diff.count("-")))
    return tuple(rows)


def _advanced(values: Mapping[str, str]) -> Options:
    arguments = [("arg", line.strip()) for line in values.get("arg", "").splitlines() if line.strip()]
    return (*((key, value) for key, value in values.items() if key != "arg"), *arguments)


def _parse_errors(verb: Verb, options: Options) -> dict[str, str]:
    """Return the errors of options that cannot be parsed, by field."""
    errors = {}
    for key, value in options:
        try:
            read_options(verb, ((key, value),))
        except (BotError, ManifestError) as error:
            text = str(error)
            hint = text.partition(" cannot be read: ")[2]  # a form has no `key=value`
            errors[key] = hint[:1].upper() + hint[1:] if hint else in_form(text)
    return errors
