"""What Prometheus sees: plain counts of the rooms, read when scraped, and histograms where time is meant.

*Rules of this file*: the data path keeps plain integers; this file turns them into families at
scrape time, so a message never pays for a metric. Label values are words of this code base or names
of loaded kernels, never text from a peer, so the number of series is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from broker.busy_poll import BusyPoll
    from broker.dead_letters import DeadLetters
    from broker.guard import Guard
    from broker.kernels import KernelDispatch
    from broker.messaging import Messaging
    from broker.publishing import Publishing
    from broker.registry import Registry
    from broker.router import Router
    from broker.services import Counters
    from broker.store import Store
    from broker.turns import Turns
    from cache.authorizer import Authorizer
    from governance.audit import AuditLog
    from gpu.stats import KernelStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. A handshake takes 0.6 ms of CPU and, in a storm, up to its deadline of 10 s.
HANDSHAKE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Seconds. A loop lag above 5 ms at p99 is a broken promise; the buckets resolve around it.
LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1)
# Seconds. A question to the controller takes 0.1 ms on one host and is given up after 2 s.
ASK_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)
# Seconds. A batch takes some 10 us of kernel time and is killed at its deadline.
BATCH_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)

# Seconds. A commit takes a sync of the disk: 0.1 ms on a fast one, 10 ms on a slow one.
COMMIT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)


class Timings:
    """Histograms, fed by whoever measures.

    Attributes:
        registry: what `/metrics` shows.
    """

    def __init__(self) -> None:
        """Make an own registry: nothing global."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._handshakes = Counter(
            "stockade_handshakes",
            "TLS handshakes by listener and result",
            ("listener", "result"),
            registry=self.registry,
        )
        self._handshake_seconds = Histogram(
            "stockade_handshake_seconds",
            "Time from accept to the end of a handshake",
            ("listener",),
            buckets=HANDSHAKE_BUCKETS,
            registry=self.registry,
        )
        self._loop_lag = Histogram(
            "stockade_loop_lag_seconds",
            "How much later than asked the event loop runs a task",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self._ask_seconds = Histogram(
            "stockade_controller_ask_seconds",
            "Time of one batch of questions to the controller",
            buckets=ASK_BUCKETS,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "stockade_kernel_batch_seconds",
            "Time of one kernel batch, from hand-over to results",
            ("kernel",),
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )

        self._commit_seconds = Histogram(
            "stockade_store_commit_seconds",
            "Time of one commit of the store, sync included",
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        self._commit_rows = Counter(
            "stockade_store_rows", "Rows written to the store", registry=self.registry
        )

    def note_handshake(self, listener: str, result: str, seconds: float) -> None:
        """Count a handshake and its time."""
        self._handshakes.labels(listener, result).inc()
        self._handshake_seconds.labels(listener).observe(seconds)

    def note_lag(self, seconds: float) -> None:
        """Count one measurement of loop lag."""
        self._loop_lag.observe(seconds)

    def note_ask(self, seconds: float) -> None:
        """Count one batch of questions."""
        self._ask_seconds.observe(seconds)

    def note_batch(self, kernel: str, seconds: float) -> None:
        """Count one kernel batch."""
        self._batch_seconds.labels(kernel).observe(seconds)

    def note_commit(self, seconds: float, rows: int) -> None:
        """Count one commit of the store."""
        self._commit_seconds.observe(seconds)
        self._commit_rows.inc(rows)

    def page(self) -> bytes:
        """The page in Prometheus's text format."""
        return generate_latest(self.registry)


class Kernels(Protocol):
    """What is shown of the kernels: a part of `gpu.pool.KernelPool`."""

    @property
    def stats(self) -> Mapping[str, KernelStats]:
        """Every kernel's counters."""
        ...

    def ready(self, name: str) -> bool:
        """Whether a worker takes batches for the kernel."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The rooms whose counts are shown."""

    count: Counters
    messaging: Messaging
    store: Store | None
    guard: Guard
    authorizer: Authorizer
    kernels: KernelDispatch
    pool: Kernels
    audit: AuditLog
    turns: Turns
    busy_poll: BusyPoll

    @property
    def registry(self) -> Registry:
        """Who is connected, and every session."""
        return self.messaging.registry

    @property
    def router(self) -> Router:
        """Who gets messages."""
        return self.messaging.routing.router

    @property
    def publishing(self) -> Publishing:
        """What takes messages over."""
        return self.messaging.publishing

    @property
    def dead_letters(self) -> DeadLetters:
        """What nobody gets."""
        return self.messaging.routing.dead_letters


class RoomCollector(Collector):
    """Reads the rooms' plain counts at scrape time."""

    def __init__(self, sources: Sources) -> None:
        """Remember where to read."""
        self._from = sources

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._messages()
        yield from self._sessions()
        yield from self._store()
        yield from self._decisions()
        yield from self._caches()
        yield from self._kernels()
        yield from self._audit()
        yield from self._loop()

    def _messages(self) -> Iterator[Metric]:
        count, router, registry = self._from.count, self._from.router, self._from.registry
        yield _gauge("stockade_connections", "MQTT clients connected", len(registry))
        yield _gauge("stockade_subscriptions", "Topic filters held", router.subscriptions)
        yield _gauge(
            "stockade_shared_subscriptions", "Shared subscriptions", router.shared_subscriptions
        )
        yield _gauge("stockade_routes", "Topics with a remembered route", len(router.routes))
        yield _counter("stockade_messages_received", "Messages from clients", count.messages_in)
        yield _counter("stockade_messages_sent", "Messages to subscribers", router.messages_out)
        yield _counter("stockade_runs_received", "Runs of messages", count.runs_in)
        yield _counter("stockade_bytes_received", "MQTT bytes from clients", count.bytes_in)
        dropped = CounterMetricFamily(
            "stockade_messages_dropped", "Messages not delivered", labels=("reason",)
        )
        dropped.add_metric(("denied",), self._from.publishing.denied)
        dropped.add_metric(("no_subscriber",), router.messages_unrouted)
        slow, sent = count.dropped_slow, count.bytes_out
        for connection in registry:
            slow += connection.outlet.dropped
            sent += connection.outlet.sent_bytes
        yield _counter("stockade_bytes_sent", "MQTT bytes to clients", sent)
        dropped.add_metric(("slow_consumer",), slow)
        for reason, number in self._from.dead_letters.lost.items():
            dropped.add_metric((reason.replace(" ", "_"),), number)
        yield dropped
        yield _counter("stockade_protocol_errors", "Clients that broke MQTT", count.protocol_errors)
        yield _counter("stockade_connects_refused", "CONNECTs refused", count.refused_connects)
        yield _counter("stockade_sessions_taken_over", "Sessions taken over", registry.taken_over)
        yield _counter("stockade_keep_alive_timeouts", "Silent clients ended", registry.timed_out)

    def _sessions(self) -> Iterator[Metric]:
        registry, publishing = self._from.registry, self._from.publishing
        sessions = registry.all_sessions()
        yield _gauge("stockade_sessions", "Sessions, connected or not", len(sessions))
        yield _counter("stockade_sessions_resumed", "Sessions continued", registry.resumed)
        yield _counter(
            "stockade_sessions_expired", "Sessions whose time was over", registry.expired
        )
        queued = in_flight = stored = stored_bytes = 0
        for session in sessions:
            queued += session.delivery.outgoing.queued
            in_flight += session.delivery.outgoing.in_flight
            if session.delivery.overflow is not None:
                stored += session.delivery.overflow.messages
                stored_bytes += session.delivery.overflow.bytes
        yield _gauge("stockade_messages_queued", "QoS 1 and 2 messages waiting", queued)
        yield _gauge("stockade_messages_stored", "Of a full queue, in the store only", stored)
        yield _gauge("stockade_messages_stored_bytes", "Their size", stored_bytes)
        failures = self._from.messaging.refiller.failures
        yield _counter("stockade_store_failed_reads", "Queues not read back at once", failures)
        yield _gauge("stockade_messages_in_flight", "Sent and not acknowledged", in_flight)
        yield _gauge(
            "stockade_waiting_bytes", "Waiting for clients", self._from.messaging.budget.used_bytes
        )
        budget = self._from.messaging.budget
        yield _gauge("stockade_unfinished_bytes", "Of incomplete packets", budget.unfinished_bytes)
        yield _gauge("stockade_subscriptions_bytes", "Of topic filters", budget.filters_bytes)
        spent = self._from.messaging.budget.spent_shares
        yield _gauge("stockade_spent_shares", "Principals for whom too much waits", spent)
        yield _gauge("stockade_retained_messages", "Retained", len(publishing.retained))
        yield _counter(
            "stockade_messages_not_retained",
            "Delayed and will messages for which there was no room",
            publishing.not_retained,
        )
        yield _gauge("stockade_retained_bytes", "Their size", publishing.retained.bytes)
        yield _gauge("stockade_delayed_messages", "To be published", len(publishing.delayed))

    def _store(self) -> Iterator[Metric]:
        messages, store = self._from.publishing.messages, self._from.store
        yield _gauge("stockade_store_messages", "Messages that must be kept", messages.stored)
        yield _gauge("stockade_store_message_bytes", "Their size", messages.stored_bytes)
        if store is not None:
            yield _gauge("stockade_store_pending_rows", "Not on disk yet", store.pending_rows)
            yield _gauge("stockade_store_pending_bytes", "Their size", store.pending_bytes)
            yield _gauge("stockade_store_failing", "1 while it cannot write", bool(store.failing))

    def _decisions(self) -> Iterator[Metric]:
        stats = self._from.authorizer.stats
        decisions = CounterMetricFamily(
            "stockade_decisions",
            "Decisions by level and outcome; L1 counts messages, the others questions",
            labels=("level", "outcome"),
        )
        for (level, outcome), number in stats.decisions().items():
            decisions.add_metric((level, outcome), number)
        yield decisions
        yield _counter("stockade_cache_batches", "Requests to the controller", stats.batches)
        yield _counter("stockade_cache_questions", "Questions in them", stats.questions)
        yield _counter("stockade_cache_joined", "Askers that shared a question", stats.joined)
        yield _counter(
            "stockade_cache_stale_answers", "Answers of an old epoch", stats.stale_answers
        )
        yield _counter("stockade_cache_timeouts", "Questions without answer", stats.timeouts)
        yield _counter("stockade_cache_flushes", "L1 tables emptied", stats.flushes)
        yield _gauge("stockade_policy_epoch", "Policy epoch applied", self._from.authorizer.epoch)
        yield _gauge(
            "stockade_controller_contact",
            "1 while the controller answers",
            self._from.guard.contact,
        )

    def _caches(self) -> Iterator[Metric]:
        sizes = self._from.authorizer.sizes()
        entries = GaugeMetricFamily(
            "stockade_cache_entries", "Decisions held by level", labels=("level",)
        )
        entries.add_metric(("l1",), sizes.l1_entries)
        entries.add_metric(("l2",), sizes.l2_entries)
        entries.add_metric(("l3",), sizes.l3_grants)
        yield entries
        bytes_ = GaugeMetricFamily(
            "stockade_cache_bytes", "Memory of a level in bytes", labels=("level",)
        )
        bytes_.add_metric(("l2",), sizes.l2_bytes)
        bytes_.add_metric(("l3",), sizes.l3_bytes)
        yield bytes_
        yield _gauge(
            "stockade_cache_waiting_questions", "Questions under way", sizes.waiting_questions
        )

    def _kernels(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "stockade_kernel_calls", "Kernel calls by outcome", labels=("outcome",)
        )
        calls.add_metric(("answered",), self._from.kernels.answered)
        calls.add_metric(("failed",), self._from.kernels.failed)
        calls.add_metric(("refused",), self._from.kernels.refused)
        yield calls
        every = self._from.pool.stats.items()
        for name, text, values in (
            ("batches", "Batches that succeeded", [(k, s.batches) for k, s in every]),
            ("records", "Records in them", [(k, s.records) for k, s in every]),
            (
                "seconds",
                "Device seconds, transfers included",
                [(k, s.kernel_seconds) for k, s in every],
            ),
            ("faults", "Batches or idle workers lost", [(k, s.faults) for k, s in every]),
            ("restarts", "Workers replaced", [(k, s.restarts) for k, s in every]),
            ("busy", "Calls refused for want of room", [(k, s.busy) for k, s in every]),
        ):
            family = CounterMetricFamily(f"stockade_kernel_{name}", text, labels=("kernel",))
            for kernel, value in values:
                family.add_metric((kernel,), value)
            yield family
        queued = GaugeMetricFamily(
            "stockade_kernel_queued_records", "Records without a result yet", labels=("kernel",)
        )
        ready = GaugeMetricFamily(
            "stockade_kernel_ready", "1 while a worker takes batches", labels=("kernel",)
        )
        for kernel, stats in every:
            queued.add_metric((kernel,), stats.queued)
            ready.add_metric((kernel,), self._from.pool.ready(kernel))
        yield queued
        yield ready

    def _audit(self) -> Iterator[Metric]:
        stats = self._from.audit.stats
        yield _counter("stockade_audit_events", "Audit events written", stats.written)
        yield _counter("stockade_audit_lost", "Audit events that could not be written", stats.lost)

    def _loop(self) -> Iterator[Metric]:
        turns, poll = self._from.turns, self._from.busy_poll
        faults = self._from.messaging.routing.faults
        yield _counter("stockade_internal_errors", "Errors of ours, contained", faults.count)
        yield _gauge("stockade_loop_turns_waiting", "Clients that wait for a turn", turns.waiting)
        looks = CounterMetricFamily(
            "stockade_loop_busy_polls", "Looks for more before the loop slept", labels=("outcome",)
        )
        looks.add_metric(("hit",), poll.hits)
        looks.add_metric(("miss",), poll.looks - poll.hits)
        yield looks


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
