"""How a change of the platform is asked for: by words, or by a form that shows what comes of it as one types."""

import asyncio
import dataclasses
import difflib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Kind, Request
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import all_endpoints
from bot.operations.life import request
from bot.operations.proposal import Options, looked_up, planned, read_options
from bot.operations.pulls import already_open, check
from bot.services import Services
from bot.views import code
from bot.views.modals import (
    ADVANCED,
    ADVANCED_FORM,
    CHANGE_FORM,
    TYPED,
    ChangeForm,
    Verb,
    advanced_form,
    change_form,
    model_options,
    shows_problem,
    typed,
)
from commands.answers import answered, open_filled, whisperer
from manifests.add import refuse_taken
from manifests.change import Change
from manifests.sizing import FIGURES, MissingFigures, ModelFacts
from manifests.tree import ManifestError, Tree

Body = dict[str, Any]
log = structlog.get_logger(__name__)

_OPTIONS = ("like", "context", "served", *FIGURES)
"""The fields of the first page that become options."""

_PAUSE, _SUBMIT = 0.25, 2.0
"""Seconds without another character before a form is worked out, and for the last look before it is acknowledged."""

_BELOW = "This cannot be opened as it is: the reason stands at the end of the form."
"""Said beside a field instead of what the form says already."""

_DOES = {
    Kind.MODEL_ADD: "adds",
    Kind.MODEL_SWAP: "swaps",
    Kind.MODEL_REMOVE: "removes",
    Kind.MODEL_REVERT: "takes back the last change of",
}


async def ask(svc: Services, wanted: Request, delivery: str) -> str:
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
    return f"Preparing a pull request that {_DOES[wanted.kind]} {code(wanted.model)} …"


async def open_form(svc: Services, verb: Verb, name: str, trigger_id: str) -> None:
    """Open the form at once, then fill it from the main branch."""

    async def fill() -> Body:
        commit = await svc.repository.head()
        names = tuple(endpoint.name for endpoint in await all_endpoints(svc, commit))
        if verb == "swap" and not names:
            raise BotError("There is no endpoint yet whose model could be swapped; `/model add` makes one.")
        known = name if verb == "add" or name in names else names[0]
        values = {"name": known} | ({"like": svc.config.platform.template} if verb == "add" else {})
        return change_form(ChangeForm(verb=verb, commit=commit, values=values, names=names))

    await open_filled(svc, trigger_id, ChangeForm(verb=verb).name, fill)


def register(app: AsyncApp, svc: Services) -> None:
    forms = Forms(svc)

    @app.options(f"{TYPED}:hf_id")
    async def suggested(ack: AsyncAck, payload: Body) -> None:
        await ack(options=await forms.suggestions(str(payload.get("value") or "")))

    @app.action(re.compile(rf"^{TYPED}:"))
    async def looked_at(ack: AsyncAck, body: Body) -> None:
        await ack()
        if body.get("view", {}).get("callback_id") == CHANGE_FORM:
            await forms.refresh(body["view"])

    @app.action(ADVANCED)
    async def more(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
        await ack()
        view = body["view"]
        about = json.loads(view["private_metadata"])
        kept = json.dumps({**about, "values": typed(view), "root": view["id"]}, ensure_ascii=False)
        page = advanced_form(about["verb"], tuple((k, v) for k, v in about["options"]), kept)
        await answered(respond, svc.slack.push_form(body["trigger_id"], page), urgent=True)

    @app.view(ADVANCED_FORM)
    async def more_given(ack: AsyncAck, view: Body) -> None:
        about, given = json.loads(view["private_metadata"]), _advanced(typed(view))
        if errors := _misread(about["verb"], given):
            await ack(response_action="errors", errors=errors)
            return
        await ack()
        await forms.show(about["root"], about["verb"], about["commit"], about["values"], given)

    @app.view(CHANGE_FORM)
    async def submitted(ack: AsyncAck, body: Body, view: Body) -> None:
        about, values = json.loads(view["private_metadata"]), typed(view)
        options = tuple((key, value) for key, value in about["options"])
        if errors := await forms.problems(about["verb"], about["commit"], values, options):
            told = {field: _BELOW if shows_problem(view, said) else said for field, said in errors.items()}
            await ack(response_action="errors", errors=told)
            return
        await ack()
        actor = body["user"]["id"]
        wanted = Request(
            kind=Kind.MODEL_ADD if about["verb"] == "add" else Kind.MODEL_SWAP,
            model=values["name"],
            hf_id=values["hf_id"],
            actor=actor,
            channel=svc.config.slack.channel,
            at=svc.clock(),
            options=forms.said(about["verb"], values, options),
            reason=values.get("reason", ""),
        )
        await answered(whisperer(svc, svc.config.slack.channel, actor), ask(svc, wanted, view["id"]))


class Forms:
    """The open forms for a change: what they would come to, worked out as one types."""

    def __init__(self, svc: Services) -> None:
        self._svc = svc
        self._facts: dict[str, ModelFacts] = {}
        self._newest: dict[str, object] = {}
        """The last character's event of each open form: an older one is not worked out any more."""

    async def suggestions(self, text: str) -> list[Body]:
        """The Hub's models for what was typed; without the Hub, what was typed."""
        try:
            async with asyncio.timeout(_SUBMIT):
                found = await self._svc.hub.search(text)
        except (BotError, Unavailable, TimeoutError) as error:
            log.info("no suggestions", error=str(error))
            found = ()
        return model_options(found, text.strip())

    async def refresh(self, view: Body) -> None:
        """Work a form out again, unless another character comes meanwhile."""
        event = self._newest[view["id"]] = object()
        await asyncio.sleep(_PAUSE)
        if self._newest.get(view["id"]) is event:
            del self._newest[view["id"]]
            about = json.loads(view["private_metadata"])
            options = tuple((key, value) for key, value in about["options"])
            await self.show(view["id"], about["verb"], about["commit"], typed(view), options)

    async def show(self, view_id: str, verb: Verb, commit: str, values: Mapping[str, str], options: Options) -> None:
        try:
            form = await self._worked_out(verb, commit, values, options)
            await self._svc.slack.update_form(view_id, change_form(form))
        except (BotError, Unavailable) as error:
            log.info("form not updated", error=str(error))  # mostly: it has been submitted or closed meanwhile

    async def _worked_out(self, verb: Verb, commit: str, values: Mapping[str, str], options: Options) -> ChangeForm:
        names = tuple(endpoint.name for endpoint in await all_endpoints(self._svc, commit))
        form = ChangeForm(verb=verb, commit=commit, values=values, options=options, names=names)
        if not values.get("hf_id") or not values.get("name"):
            return form
        try:
            tree = await self._svc.repository.tree(commit)
            change = await self._change(tree, verb, values, options)
        except MissingFigures as missing:
            return _with(form, problem=str(missing), figures=_figures({*values, *missing.options}))
        except (BotError, ManifestError, Unavailable) as error:
            return _with(form, problem=str(error), figures=_figures(values))
        files = await asyncio.to_thread(_changed, tree, change)
        sizing = change.sizing
        return _with(
            form,
            summary=change.summary,
            verdict=sizing.verdict if sizing else "",
            sizing=tuple((row.label, row.value, row.limit, row.ok) for row in sizing.numbers) if sizing else (),
            files=files,
            warnings=change.warnings,
            figures=_figures(values),
        )

    async def _change(self, tree: Tree, verb: Verb, values: Mapping[str, str], options: Options) -> Change:
        facts = await self._known(values["hf_id"])
        every = self.said(verb, values, options)
        return await asyncio.to_thread(planned, tree, self._svc.config, verb, values["name"], every, facts)

    async def _known(self, hf_id: str) -> ModelFacts:
        """The facts, asked for once; without Hugging Face, what the name says: the form then asks for the rest."""
        if hf_id not in self._facts:
            facts = await looked_up(self._svc.hub, hf_id)
            if facts == ModelFacts.unseen(hf_id):
                return facts
            if len(self._facts) >= 100:
                self._facts.pop(next(iter(self._facts)))
            self._facts[hf_id] = facts
        return self._facts[hf_id]

    def said(self, verb: Verb, values: Mapping[str, str], advanced: Options) -> Options:
        """Everything that was said. The usual template is not: the model decides which is the closest, if it is known."""
        told = [(key, values[key]) for key in _OPTIONS if key in values and (verb == "add" or key != "like")]
        usual = ("like", self._svc.config.platform.template) if values["hf_id"] in self._facts else None
        return (*(pair for pair in told if pair != usual), *advanced)

    async def problems(self, verb: Verb, commit: str, values: Mapping[str, str], options: Options) -> dict[str, str]:
        """What is wrong, by field. What takes too long to find out is refused later, in words."""
        errors = _misread(verb, tuple((key, values[key]) for key in _OPTIONS if key in values))
        try:
            async with asyncio.timeout(_SUBMIT):
                tree = await self._svc.repository.tree(commit)
                if verb == "add":
                    try:
                        await asyncio.to_thread(refuse_taken, tree, self._svc.config.platform, values["name"])
                    except ManifestError as error:
                        errors["name"] = str(error)
                if not errors:
                    await self._change(tree, verb, values, options)
        except (BotError, ManifestError) as error:
            errors["hf_id"] = str(error)
        except (Unavailable, TimeoutError) as error:
            log.info("form not checked in time", error=str(error))
        return errors


def _with(form: ChangeForm, **changes: Any) -> ChangeForm:
    return dataclasses.replace(form, **changes)


def _figures(options: Collection[str]) -> tuple[tuple[str, str, str], ...]:
    """The figures to ask for: what is missing, and what was asked for before and has been given."""
    return tuple((option, *FIGURES[option][1:]) for option in FIGURES if option in options)


def _changed(tree: Tree, change: Change) -> tuple[tuple[str, int, int], ...]:
    """Each file of a change with its added and removed lines."""
    rows = []
    for path, text in change.changes.files.items():
        old, new = (tree.read(path) or "").splitlines(), (text or "").splitlines()
        diff = [line[:1] for line in difflib.ndiff(old, new)]
        rows.append((path, diff.count("+"), diff.count("-")))
    return tuple(rows)


def _advanced(values: Mapping[str, str]) -> Options:
    arguments = [("arg", line.strip()) for line in values.get("arg", "").splitlines() if line.strip()]
    return (*((key, value) for key, value in values.items() if key != "arg"), *arguments)


def _misread(verb: Verb, options: Options) -> dict[str, str]:
    """The options that cannot be read, by field."""
    errors = {}
    for key, value in options:
        try:
            read_options(verb, ((key, value),))
        except (BotError, ManifestError) as error:
            errors[key] = str(error)
    return errors
