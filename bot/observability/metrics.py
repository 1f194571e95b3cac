"""Prometheus metrics: counters of this process, and the state that all replicas share.

Each transition of an operation is counted by one replica, so query the sum over the replicas. Values that are read from
Redis at a scrape (leases, queue, idle time, cost) are the same in every replica, so query the maximum.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bot.domain.leases import Lease
from bot.domain.operations import Operation, Status, TestedOperation
from bot.domain.sessions import Alert, Bill, Session, cost

_MINUTES = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 14400, 86400)
"""Buckets in seconds: a boot takes up to 1200 seconds, an approval up to several hours."""


class Metrics:
    """The counters of this process. `observe` is called once for each transition that this process stored."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self._operations = Counter("stoker_operations", "Operations that ended.", ["kind", "status"], registry=r)
        self._approval = Histogram(
            "stoker_approval_seconds", "From the request to its decision.", ["decision"], buckets=_MINUTES, registry=r
        )
        self._phase = Histogram(
            "stoker_boot_phase_seconds", "Phases of bringing a model up.", ["phase"], buckets=_MINUTES, registry=r
        )
        self._checks = Counter("stoker_smoke_checks", "Smoke tests.", ["model", "check", "result"], registry=r)

    def observe(self, before: Operation | None, after: Operation) -> None:
        if before is None:
            return
        if before.status is not after.status:
            self._moved(before, after)
        if isinstance(before, TestedOperation) and isinstance(after, TestedOperation) and after.checks != before.checks:
            for check in after.checks:
                self._checks.labels(after.request.model, check.name, "passed" if check.passed else "failed").inc()

    def _moved(self, before: Operation, after: Operation) -> None:
        decisions = {Status.APPROVED: "approved", Status.DENIED: "denied", Status.EXPIRED: "expired"}
        if decision := decisions.get(after.status):
            self._approval.labels(decision).observe((after.updated - after.request.at).total_seconds())
        if not after.status.final:
            return
        self._operations.labels(after.request.kind, after.status).inc()
        for phase in after.phases:
            if phase.ended:
                self._phase.labels(phase.name).observe((phase.ended - phase.began).total_seconds())

    def text(self) -> bytes:
        return generate_latest(self._registry)


def state(
    *,
    now: datetime,
    operations: Iterable[Operation],
    leases: Iterable[Lease],
    queue: int,
    sessions: Iterable[tuple[Lease, Session]],
    bills: Iterable[Bill],
    alerts: Iterable[Alert],
    idle_limit: float,
    reconciled: datetime | None,
    costs: Mapping[str, float],
    set_aside: int = 0,
) -> bytes:
    """The shared state in Prometheus' text format. `idle_limit` is in seconds; `costs` are the costs of the running
    sessions in US dollars, by model.
    """
    gauges = _Gauges()
    _add_operations(gauges, operations, now)
    _add_sessions(gauges, leases, sessions, costs, now)
    _add_bills(gauges, bills)
    gauges.add("idle_limit_seconds", "Idle time after which a model is brought down.").set(idle_limit)
    gauges.add("queue_length", "People who wait for the GPU.").set(queue)
    unmanaged = gauges.add("gpu_unmanaged", "1 while something uses a GPU without a lease.", "workload")
    for alert in alerts:
        unmanaged.labels(alert.about).set(1)
    compared = gauges.add("reconciled_timestamp_seconds", "When leases, Deployments and pods were last compared.")
    compared.set(reconciled.timestamp() if reconciled else 0)
    aside = gauges.add("records_set_aside", "Records in Redis that could not be read and were set aside.")
    aside.set(set_aside)
    gauges.add("dependency_up", "1 while the system answers.", "system").labels("redis").set(1)
    return generate_latest(gauges.registry)


class _Gauges:
    """The gauges of one scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def add(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(f"stoker_{name}", description, labels, registry=self.registry)


def _add_operations(gauges: _Gauges, operations: Iterable[Operation], now: datetime) -> None:
    opened = gauges.add("operations_open", "Operations that are not over.", "kind", "status")
    running = gauges.add("operation_running_seconds", "Age of the oldest operation that runs.", "kind")
    oldest: dict[str, float] = {}
    for op in operations:
        opened.labels(op.request.kind, op.status).inc()
        if op.status is Status.RUNNING:
            began = op.phases[0].began if op.phases else op.updated
            oldest[op.request.kind] = max(oldest.get(op.request.kind, 0.0), (now - began).total_seconds())
    for kind, age in oldest.items():
        running.labels(kind).set(age)


def _add_sessions(
    gauges: _Gauges,
    leases: Iterable[Lease],
    sessions: Iterable[tuple[Lease, Session]],
    costs: Mapping[str, float],
    now: datetime,
) -> None:
    leased = gauges.add("lease_held", "1 while a model holds the GPU.", "model")
    ends = gauges.add("lease_ends_timestamp_seconds", "When the lease ends.", "model")
    spending = gauges.add("session_cost_usd", "The cost of the running session so far.", "model")
    for lease in leases:
        leased.labels(lease.model).set(1)
        if lease.ends:
            ends.labels(lease.model).set(lease.ends.timestamp())
    for model, usd in costs.items():
        spending.labels(model).set(usd)
    idle = gauges.add("idle_seconds", "Time since the model last worked.", "model")
    for lease, session in sessions:
        if lease.ready:
            idle.labels(lease.model).set(max(0.0, (now - session.active).total_seconds()))


def _add_bills(gauges: _Gauges, bills: Iterable[Bill]) -> None:
    spent = gauges.add("spent_usd", "Cost of the finished sessions of the last 30 days, as on their receipts.", "model")
    wasted = gauges.add("idle_spent_seconds", "Idle time of the finished sessions of the last 30 days.", "model")
    for bill in bills:
        spent.labels(bill.model).inc(cost(bill.billed, bill.price_per_hour))
        wasted.labels(bill.model).inc(bill.idle_seconds)


def unreachable(system: str) -> bytes:
    """The metrics if the state cannot be read, because `system` does not answer."""
    registry = CollectorRegistry()
    Gauge("stoker_dependency_up", "1 while the system answers.", ["system"], registry=registry).labels(system).set(0)
    return generate_latest(registry)
