"""Wiring: constructs the objects that work on the platform and the GPU, each with what it uses."""

from dataclasses import dataclass
from functools import lru_cache

from bot.engine.deaths import Deaths
from bot.engine.decisions import Decisions
from bot.engine.lifecycle import Lifecycle
from bot.gpu.availability import GpuAvailability
from bot.gpu.billing import Billing, UsageReport
from bot.gpu.health import HealthWatch
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.queue import Queue
from bot.gpu.reconciliation import Reconciliation
from bot.gpu.replacement import Replacement
from bot.gpu.sampling import Sampler
from bot.gpu.stopping import SettingAside, Stopping
from bot.guard import Guard
from bot.home import AppHome, Overviews
from bot.platform.binding import Binding
from bot.platform.boot_comparison import BootComparison
from bot.platform.deploying import Applications
from bot.platform.endpoints import Endpoints, EndpointStates
from bot.platform.pull_request_plan import PullRequestPlans
from bot.platform.pull_requests import ChangeChecks, PullRequests
from bot.platform.roll_out import RollOut, Syncs
from bot.platform.runtime_aliases import GatewayAliases
from bot.platform.smoke_tests import SmokeTests
from bot.platform.staged_swap import StagedSwap
from bot.platform.staging import Staging
from bot.platform.switch import Switch
from bot.platform.switches.api import ByApi
from bot.platform.switches.commit import ByCommit
from bot.platform.virtual_keys import VirtualKeys
from bot.services import Services
from bot.watch import IdleWatch, Keeping


@dataclass(frozen=True)
class Wiring:
    """The objects of the running bot. Only the wiring of the layers above takes it."""

    lifecycle: Lifecycle
    deaths: Deaths
    decisions: Decisions
    endpoints: Endpoints
    endpoint_states: EndpointStates
    applications: Applications
    binding: Binding
    switch: Switch
    staging: Staging
    staged_swap: StagedSwap
    gateway_aliases: GatewayAliases
    virtual_keys: VirtualKeys
    boot_comparison: BootComparison
    smoke_tests: SmokeTests
    pull_request_plans: PullRequestPlans
    change_checks: ChangeChecks
    pull_requests: PullRequests
    roll_out: RollOut
    holder_prompts: HolderPrompts
    sampler: Sampler
    lease_marks: LeaseMarks
    stopping: Stopping
    setting_aside: SettingAside
    usage_report: UsageReport
    billing: Billing
    reconciliation: Reconciliation
    availability: GpuAvailability
    queue: Queue
    replacement: Replacement
    health: HealthWatch
    overviews: Overviews
    app_home: AppHome
    idle_watch: IdleWatch
    keeping: Keeping
    guard: Guard


def wire(svc: Services) -> Wiring:
    lifecycle = Lifecycle(
        docket=svc.docket,
        operations=svc.operations,
        steps=svc.steps,
        task_starts=svc.task_starts,
        presentation=svc.presentation,
        config=svc.config,
        clock=svc.clock,
    )
    deaths = Deaths(
        task_starts=svc.task_starts,
        audit=svc.audit,
        deliveries=svc.deliveries,
        presentation=svc.presentation,
        clock=svc.clock,
    )
    decisions = Decisions(
        operations=svc.operations,
        audit=svc.audit,
        presentation=svc.presentation,
        roles=svc.roles,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    endpoints = Endpoints(cluster=svc.cluster, repository=svc.repository, config=svc.config)
    endpoint_states = EndpointStates(
        operations=svc.operations,
        leases=svc.leases,
        sessions=svc.sessions,
        endpoint_history=svc.endpoint_history,
        deployer=svc.deployer,
        cluster=svc.cluster,
        repository=svc.repository,
        endpoints=endpoints,
        repository_name=svc.settings.github_repository,
    )
    applications = Applications(
        deployer=svc.deployer,
        repository=svc.repository,
        config=svc.config,
        clock=svc.clock,
        repository_name=svc.settings.github_repository,
    )
    binding = Binding(deployer=svc.deployer, repository=svc.repository, config=svc.config)
    by_commit = ByCommit(
        deployer=svc.deployer,
        cluster=svc.cluster,
        github=svc.github,
        repository=svc.repository,
        applications=applications,
        config=svc.config,
        clock=svc.clock,
    )
    switch = Switch(
        by_commit=by_commit,
        by_api=ByApi(svc.cluster),
        cluster=svc.cluster,
        repository=svc.repository,
        config=svc.config,
    )
    staging = Staging(
        operations=svc.operations,
        endpoint_history=svc.endpoint_history,
        stager=svc.stager,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    staged_swap = StagedSwap(
        steps=svc.steps,
        cluster=svc.cluster,
        stager=svc.stager,
        repository=svc.repository,
        endpoints=endpoints,
        staging=staging,
        config=svc.config,
    )
    gateway_aliases = GatewayAliases(
        operations=svc.operations,
        audit=svc.audit,
        aliases=svc.aliases,
        cluster=svc.cluster,
        litellm=svc.litellm,
        roles=svc.roles,
        clock=svc.clock,
    )
    virtual_keys = VirtualKeys(
        operations=svc.operations,
        audit=svc.audit,
        presentation=svc.presentation,
        litellm=svc.litellm,
        repository=svc.repository,
        roles=svc.roles,
        endpoints=endpoints,
        clock=svc.clock,
    )
    boot_comparison = BootComparison(
        endpoint_history=svc.endpoint_history, cluster=svc.cluster, hub=svc.hub, endpoints=endpoints, config=svc.config
    )
    smoke_tests = SmokeTests(
        docket=svc.docket,
        operations=svc.operations,
        sessions=svc.sessions,
        endpoint_history=svc.endpoint_history,
        cluster=svc.cluster,
        vllm=svc.vllm,
        litellm=svc.litellm,
        endpoints=endpoints,
        config=svc.config,
        clock=svc.clock,
    )
    pull_request_plans = PullRequestPlans(
        leases=svc.leases,
        cluster=svc.cluster,
        vllm=svc.vllm,
        hub=svc.hub,
        github=svc.github,
        repository=svc.repository,
        applications=applications,
        binding=binding,
        staged_swap=staged_swap,
        config=svc.config,
        clock=svc.clock,
        repository_name=svc.settings.github_repository,
    )
    change_checks = ChangeChecks(
        operations=svc.operations,
        leases=svc.leases,
        cluster=svc.cluster,
        repository=svc.repository,
        roles=svc.roles,
        endpoints=endpoints,
        config=svc.config,
    )
    pull_requests = PullRequests(
        docket=svc.docket,
        operations=svc.operations,
        endpoint_history=svc.endpoint_history,
        hub=svc.hub,
        github=svc.github,
        repository=svc.repository,
        endpoints=endpoints,
        lifecycle=lifecycle,
        pull_request_plans=pull_request_plans,
        staged_swap=staged_swap,
        config=svc.config,
        clock=svc.clock,
    )
    syncs = Syncs(
        leases=svc.leases,
        sessions=svc.sessions,
        deployer=svc.deployer,
        cluster=svc.cluster,
        repository=svc.repository,
        applications=applications,
        binding=binding,
        endpoints=endpoints,
        config=svc.config,
        clock=svc.clock,
    )
    roll_out = RollOut(
        operations=svc.operations,
        cluster=svc.cluster,
        endpoints=endpoints,
        gateway_aliases=gateway_aliases,
        lifecycle=lifecycle,
        smoke_tests=smoke_tests,
        staging=staging,
        syncs=syncs,
        virtual_keys=virtual_keys,
        config=svc.config,
        clock=svc.clock,
    )
    holder_prompts = HolderPrompts(questions=svc.questions, messages=svc.messages, presentation=svc.presentation)
    sampler = Sampler(
        sessions=svc.sessions, cluster=svc.cluster, vllm=svc.vllm, prometheus=svc.prometheus, clock=svc.clock
    )
    lease_marks = LeaseMarks(
        operations=svc.operations,
        leases=svc.leases,
        bills=svc.bills,
        presentation=svc.presentation,
        cluster=svc.cluster,
        config=svc.config,
        clock=svc.clock,
    )
    stopping = Stopping(
        operations=svc.operations,
        leases=svc.leases,
        cluster=svc.cluster,
        jobs=svc.jobs,
        stager=svc.stager,
        switch=switch,
        config=svc.config,
        clock=svc.clock,
    )
    setting_aside = SettingAside(
        audit=svc.audit,
        leases=svc.leases,
        presentation=svc.presentation,
        lease_marks=lease_marks,
        lifecycle=lifecycle,
        stopping=stopping,
        clock=svc.clock,
    )
    usage_report = UsageReport(bills=svc.bills, slack=svc.slack, clock=svc.clock)
    billing = Billing(
        docket=svc.docket,
        operations=svc.operations,
        leases=svc.leases,
        sessions=svc.sessions,
        bills=svc.bills,
        endpoint_history=svc.endpoint_history,
        presentation=svc.presentation,
        cluster=svc.cluster,
        stager=svc.stager,
        holder_prompts=holder_prompts,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    reconciliation = Reconciliation(
        operations=svc.operations,
        audit=svc.audit,
        leases=svc.leases,
        alerts=svc.alerts,
        presentation=svc.presentation,
        cluster=svc.cluster,
        repository=svc.repository,
        deaths=deaths,
        endpoints=endpoints,
        lease_marks=lease_marks,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    availability = GpuAvailability(leases=svc.leases, cluster=svc.cluster, lease_marks=lease_marks, config=svc.config)
    queue = Queue(
        docket=svc.docket,
        operations=svc.operations,
        audit=svc.audit,
        leases=svc.leases,
        presentation=svc.presentation,
        availability=availability,
        roles=svc.roles,
        holder_prompts=holder_prompts,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    replacement = Replacement(
        operations=svc.operations,
        leases=svc.leases,
        presentation=svc.presentation,
        cluster=svc.cluster,
        vllm=svc.vllm,
        billing=billing,
        lease_marks=lease_marks,
        lifecycle=lifecycle,
        sampler=sampler,
        stopping=stopping,
        switch=switch,
        config=svc.config,
        clock=svc.clock,
    )
    health = HealthWatch(
        operations=svc.operations,
        audit=svc.audit,
        leases=svc.leases,
        sessions=svc.sessions,
        cluster=svc.cluster,
        deaths=deaths,
        holder_prompts=holder_prompts,
        lifecycle=lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    overviews = Overviews(
        operations=svc.operations,
        leases=svc.leases,
        sessions=svc.sessions,
        bills=svc.bills,
        slack=svc.slack,
        cluster=svc.cluster,
        repository=svc.repository,
        roles=svc.roles,
        endpoint_states=endpoint_states,
        config=svc.config,
        clock=svc.clock,
    )
    app_home = AppHome(home=svc.home, slack=svc.slack, overviews=overviews, clock=svc.clock)
    idle_watch = IdleWatch(
        operations=svc.operations,
        audit=svc.audit,
        leases=svc.leases,
        sessions=svc.sessions,
        questions=svc.questions,
        messages=svc.messages,
        cluster=svc.cluster,
        deaths=deaths,
        holder_prompts=holder_prompts,
        lifecycle=lifecycle,
        sampler=sampler,
        config=svc.config,
        clock=svc.clock,
    )
    keeping = Keeping(
        audit=svc.audit,
        leases=svc.leases,
        roles=svc.roles,
        holder_prompts=holder_prompts,
        lease_marks=lease_marks,
        config=svc.config,
        clock=svc.clock,
    )
    guard = Guard(
        leases=svc.leases,
        sessions=svc.sessions,
        slack=svc.slack,
        cluster=svc.cluster,
        sampler=sampler,
        stopping=stopping,
        config=svc.config,
        clock=svc.clock,
    )
    return Wiring(
        lifecycle=lifecycle,
        deaths=deaths,
        decisions=decisions,
        endpoints=endpoints,
        endpoint_states=endpoint_states,
        applications=applications,
        binding=binding,
        switch=switch,
        staging=staging,
        staged_swap=staged_swap,
        gateway_aliases=gateway_aliases,
        virtual_keys=virtual_keys,
        boot_comparison=boot_comparison,
        smoke_tests=smoke_tests,
        pull_request_plans=pull_request_plans,
        change_checks=change_checks,
        pull_requests=pull_requests,
        roll_out=roll_out,
        holder_prompts=holder_prompts,
        sampler=sampler,
        lease_marks=lease_marks,
        stopping=stopping,
        setting_aside=setting_aside,
        usage_report=usage_report,
        billing=billing,
        reconciliation=reconciliation,
        availability=availability,
        queue=queue,
        replacement=replacement,
        health=health,
        overviews=overviews,
        app_home=app_home,
        idle_watch=idle_watch,
        keeping=keeping,
        guard=guard,
    )


@lru_cache(maxsize=4)
def wired(svc: Services) -> Wiring:
    return wire(svc)
