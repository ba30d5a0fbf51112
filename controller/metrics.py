"""Prometheus metrics of the controller, in a registry of their own.

Counters that change often are counted here; what is a state (role, epoch, who is connected) is read when somebody
scrapes, so no task has to keep a gauge true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from controller.consensus import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from controller.brokers import BrokerStatus
    from controller.consensus import LogStatus

# From a fast NVMe disk to one that is about to fail.
_FSYNC_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
)


class Reading(NamedTuple):
    """What is read at every scrape."""

    log: LogStatus
    epoch: int
    rules: int
    brokers: tuple[BrokerStatus, ...]


class ControllerMetrics:
    """The metrics; plain methods, so nobody else needs the library."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._fsync = Histogram(
            "stockade_controller_fsync_seconds",
            "Seconds one fsync of the journal took",
            buckets=_FSYNC_BUCKETS_S,
            registry=self._registry,
        )
        self._questions = Counter(
            "stockade_controller_questions",
            "Questions of brokers answered, by outcome",
            ["outcome"],
            registry=self._registry,
        )
        self._requests = Counter(
            "stockade_controller_api_requests",
            "Requests of the admin API, by verb and HTTP status",
            ["verb", "status"],
            registry=self._registry,
        )
        self._handshakes = Counter(
            "stockade_controller_handshakes",
            "TLS handshakes, by listener and result",
            ["listener", "result"],
            registry=self._registry,
        )

    def observe_state(self, read: Callable[[], Reading]) -> None:
        """Read the state with `read` at every scrape from now on."""
        self._registry.register(_StateCollector(read))

    def observe_fsync(self, seconds: float) -> None:
        """Count one fsync."""
        self._fsync.observe(seconds)

    def count_questions(self, *, allowed: int, denied: int) -> None:
        """Count answered questions."""
        self._questions.labels("allow").inc(allowed)
        self._questions.labels("deny").inc(denied)

    def count_request(self, verb: str, status: int) -> None:
        """Count one request of the admin API; `verb` is one of a fixed set."""
        self._requests.labels(verb, str(status)).inc()

    def count_handshake(self, listener: str, result: str) -> None:
        """Count one handshake."""
        self._handshakes.labels(listener, result).inc()

    def render(self) -> tuple[bytes, str]:
        """Return the text for a scrape and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _StateCollector(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterable[Metric]:
        now = self._read()
        role = GaugeMetricFamily(
            "stockade_controller_role", "1 for the Raft role of this member", labels=["role"]
        )
        for each in Role:
            role.add_metric([each.value], float(now.log.role is each))
        yield role
        for name, help_text, value in (
            ("term", "Raft term", now.log.term),
            ("commit_index", "Newest committed entry", now.log.commit_index),
            ("applied_index", "Newest applied entry", now.log.applied_index),
            (
                "journal_entries",
                "Entries in the journal",
                now.log.last_index - now.log.first_index + 1,
            ),
            (
                "snapshot_index",
                "Newest entry in the snapshot, 0 without one",
                now.log.snapshot_index,
            ),
            ("pending_commands", "Commands without an outcome", now.log.pending),
            ("policy_epoch", "Policy epoch", now.epoch),
            ("rules", "ACL rules", now.rules),
        ):
            yield GaugeMetricFamily(f"stockade_controller_{name}", help_text, value=value)
        connected = GaugeMetricFamily(
            "stockade_controller_broker_connected", "1 for a connected broker", labels=["broker"]
        )
        epochs = GaugeMetricFamily(
            "stockade_controller_broker_epoch",
            "Policy epoch a broker decides by",
            labels=["broker"],
        )
        for broker in now.brokers:
            connected.add_metric([broker.broker_id], float(broker.connected))
            epochs.add_metric([broker.broker_id], broker.epoch)
        yield connected
        yield epochs
