"""Registers every Slack listener, in front of them the gate, and answers what nobody expected."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.context.async_context import AsyncBoltContext

from bot.errors import Unavailable
from bot.logs import about, cleaned_texts
from bot.mrkdwn import md
from bot.services import Services
from bot.state.deliveries import Deliveries
from bot.wiring import wired
from bot.workflows import workflows
from commands.approval import ApprovalButtons
from commands.change import ChangeForms, Changes
from commands.conversations import Conversations
from commands.doctor import DoctorCommand
from commands.gate import Gate
from commands.gpu import BringingDown, GpuCommand, GpuStatus
from commands.guide import ExampleNames
from commands.home import HomeButtons
from commands.model import EndpointQuestions, ModelCommand
from commands.next_steps import NextStepButtons
from commands.queue_buttons import QueueButtons
from commands.reminder import ReminderButtons
from commands.replies import Respond, acks_first, dm_responder, with_older_blocks
from commands.rollout import RollOutButtons

log = structlog.get_logger(__name__)


def register(app: AsyncApp, svc: Services) -> None:
    """Register every Slack listener."""

    @app.middleware
    async def answerable(context: AsyncBoltContext, body: dict[str, Any], next: Callable[[], Awaitable[None]]) -> None:  # noqa: A002
        """A click in Home has no response_url: it is answered by a direct message. No delivery is answered twice."""
        acks_first.arrived()
        if context.response_url is None and context.user_id:
            context["respond"] = dm_responder(svc.slack, context.user_id)
        if context.respond and (delivery := body.get("trigger_id")):
            context["respond"] = _once(svc.deliveries, delivery, with_older_blocks(context.respond))
        with about(actor=context.user_id or ""):
            await next()

    app.middleware(Gate(svc.directory, svc.deliveries, svc.audit, svc.slack, svc.config, svc.clock).listen)

    @app.error
    async def unexpected(error: Exception, context: AsyncBoltContext) -> None:
        """An unexpected error: an id for the person, the details in the log."""
        error_id = uuid.uuid4().hex[:8]
        log.error("unexpected error", error_id=error_id, actor=context.user_id, exc_info=error)
        if context.user_id and context.respond:
            await context.respond(
                text=md("Something unexpected went wrong. Search Stoker's log for `{error_id}`.", error_id=error_id),
                response_type="ephemeral",
                replace_original=False,
            )

    parts, flows = wired(svc), workflows(svc)
    example_names = ExampleNames(repository=svc.repository, endpoints=parts.endpoints, config=svc.config)
    doctor = DoctorCommand(roles=svc.roles, settings=svc.settings)
    bringing_down = BringingDown(
        slack=svc.slack,
        cluster=svc.cluster,
        lease_marks=parts.lease_marks,
        lifecycle=parts.lifecycle,
        stopping=parts.stopping,
        config=svc.config,
        clock=svc.clock,
    )
    gpu_status = GpuStatus(
        operations=svc.operations,
        leases=svc.leases,
        sessions=svc.sessions,
        bills=svc.bills,
        cluster=svc.cluster,
        lease_marks=parts.lease_marks,
        config=svc.config,
        clock=svc.clock,
    )
    gpu = GpuCommand(
        operations=svc.operations,
        leases=svc.leases,
        deliveries=svc.deliveries,
        slack=svc.slack,
        bringing_down=bringing_down,
        doctor=doctor,
        example_names=example_names,
        gpu_status=gpu_status,
        lease_marks=parts.lease_marks,
        lifecycle=parts.lifecycle,
        queue=parts.queue,
        usage_report=parts.usage_report,
        config=svc.config,
    )
    changes = Changes(
        slack=svc.slack,
        repository=svc.repository,
        endpoints=parts.endpoints,
        lifecycle=parts.lifecycle,
        change_checks=parts.change_checks,
        config=svc.config,
    )
    change_forms = ChangeForms(
        endpoint_history=svc.endpoint_history,
        slack=svc.slack,
        hub=svc.hub,
        repository=svc.repository,
        changes=changes,
        endpoints=parts.endpoints,
        lifecycle=parts.lifecycle,
        config=svc.config,
    )
    endpoint_questions = EndpointQuestions(
        endpoint_history=svc.endpoint_history,
        hub=svc.hub,
        github=svc.github,
        repository=svc.repository,
        endpoint_states=parts.endpoint_states,
        endpoints=parts.endpoints,
        gateway_aliases=parts.gateway_aliases,
        config=svc.config,
    )
    model = ModelCommand(
        repository=svc.repository,
        benchmark=flows.benchmark,
        changes=changes,
        endpoint_questions=endpoint_questions,
        endpoint_states=parts.endpoint_states,
        example_names=example_names,
        lifecycle=parts.lifecycle,
        smoke_test=flows.smoke_test,
        stage_weights=flows.stage_weights,
        config=svc.config,
    )
    approval = ApprovalButtons(operations=svc.operations, slack=svc.slack, decisions=parts.decisions, config=svc.config)
    queue_buttons = QueueButtons(
        slack=svc.slack,
        bring_up=flows.bring_up,
        decisions=parts.decisions,
        lifecycle=parts.lifecycle,
        queue=parts.queue,
        config=svc.config,
    )
    next_steps = NextStepButtons(
        operations=svc.operations,
        leases=svc.leases,
        slack=svc.slack,
        changes=changes,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    reminder = ReminderButtons(
        operations=svc.operations,
        leases=svc.leases,
        slack=svc.slack,
        presentation=svc.presentation,
        cluster=svc.cluster,
        bringing_down=bringing_down,
        holder_prompts=parts.holder_prompts,
        keeping=parts.keeping,
        restart=flows.restart,
        config=svc.config,
        clock=svc.clock,
    )
    home_buttons = HomeButtons(
        leases=svc.leases,
        slack=svc.slack,
        repository=svc.repository,
        app_home=parts.app_home,
        changes=changes,
        endpoints=parts.endpoints,
        lifecycle=parts.lifecycle,
        config=svc.config,
    )
    roll_out_buttons = RollOutButtons(
        slack=svc.slack,
        benchmark=flows.benchmark,
        virtual_keys=parts.virtual_keys,
        config=svc.config,
    )
    conversations = Conversations(
        slack=svc.slack,
        presentation=svc.presentation,
        example_names=example_names,
        gpu=gpu,
        model=model,
        config=svc.config,
    )
    for listeners in (
        gpu,
        model,
        approval,
        reminder,
        change_forms,
        queue_buttons,
        home_buttons,
        conversations,
        roll_out_buttons,
        next_steps,
    ):
        listeners.register(app)


def _once(deliveries: Deliveries, delivery: str, respond: Respond) -> Respond:
    """The answer to one delivery: Slack repeats a command or click that was not acknowledged."""

    async def answer(**said: Any) -> None:
        try:
            repeated = not await deliveries.is_first(f"answer:{delivery}")
        except Unavailable:  # prefer answering twice over not answering
            repeated = False
        if not repeated:
            await respond(**cleaned_texts(said))

    return answer
