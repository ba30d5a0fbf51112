from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from broker.busy_poll import BusyPoll
from broker.config import BrokerLimits
from broker.durability import Volatile
from broker.metrics import RoomCollector, Sources, Timings
from broker.store import Store
from gpu.stats import KernelStats
from mqtt.packets import Connect, Properties, Publish, Subscribe, Subscription
from tests.brokers import TestBroker, allow, running_broker
from tests.store_records import a_message, open_store

SENSOR = allow("sensor", "write", "topic.t.**")
VIEWER = allow("viewer", "read", "topic.t.**")
KEPT = Connect(client_id="v", properties=Properties(session_expiry_interval=100))


class Kernels:
    """The part of the kernel pool that metrics read."""

    @property
    def stats(self) -> Mapping[str, KernelStats]:
        return {"zscore": KernelStats(batches=2, records=30, kernel_seconds=0.5, starts=3)}

    def ready(self, name: str) -> bool:
        return name == "zscore"


def sources_of(
    broker: TestBroker, store: Store | None = None, poll: BusyPoll | None = None
) -> Sources:
    return Sources(
        count=broker.services.count,
        messaging=broker.messaging,
        store=store,
        guard=broker.guard,
        authorizer=broker.authorizer,
        kernels=broker.kernels,
        pool=Kernels(),
        audit=broker.audit,
        turns=broker.services.turns,
        busy_poll=poll or BusyPoll(0),
    )


def page_of(
    broker: TestBroker, timings: Timings | None = None, *, store: Store | None = None
) -> dict[tuple[str, tuple[str, ...]], float]:
    timings = timings or Timings()
    timings.registry.register(RoomCollector(sources_of(broker, store)))
    families = text_string_to_metric_families(timings.page().decode())
    return {
        (sample.name, tuple(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_page_shows_the_turns_of_the_loop() -> None:
    poll = BusyPoll(0.0, clock=lambda: 0.0, ready=lambda: True)
    for _ in range(3):
        poll.before_io_wait(1.0)
    async with running_broker() as broker:
        timings = Timings()
        timings.registry.register(RoomCollector(sources_of(broker, poll=poll)))
        page = timings.page().decode()
    assert 'stockade_loop_busy_polls_total{outcome="hit"} 3.0' in page
    assert 'stockade_loop_busy_polls_total{outcome="miss"} 0.0' in page
    assert "stockade_loop_turns_waiting 0.0" in page


async def test_page_shows_what_the_rooms_counted() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#"),)))
        await viewer.next()
        for _ in range(2):
            await sensor.send(*[Publish(topic="t/1")] * 10)
            await viewer.next()
        page = page_of(broker)
        assert page["stockade_connections", ()] == 2
        assert page["stockade_messages_received_total", ()] == 20
        assert page["stockade_messages_sent_total", ()] == 20
        assert page["stockade_decisions_total", ("l1", "allow")] >= 10
        assert page["stockade_controller_contact", ()] == 1
        assert page["stockade_policy_epoch", ()] == 1
        assert page["stockade_kernel_batches_total", ("zscore",)] == 2
        assert page["stockade_kernel_restarts_total", ("zscore",)] == 2
        assert page["stockade_kernel_ready", ("zscore",)] == 1


async def test_page_has_histograms_where_time_is_meant() -> None:
    timings = Timings()
    timings.note_handshake("mqtts", "ok", 0.003)
    timings.note_handshake("mqtts", "expired", 0.002)
    timings.note_lag(0.0001)
    timings.note_ask(0.0004)
    timings.note_batch("zscore", 0.002)
    timings.note_commit(0.0004, 12)
    async with running_broker() as broker:
        page = page_of(broker, timings)
    assert page["stockade_handshakes_total", ("mqtts", "expired")] == 1
    assert page["stockade_handshake_seconds_count", ("mqtts",)] == 2
    assert page["stockade_handshake_seconds_bucket", ("0.0025", "mqtts")] == 1
    assert page["stockade_loop_lag_seconds_count", ()] == 1
    assert page["stockade_controller_ask_seconds_bucket", ("0.0005",)] == 1
    assert page["stockade_kernel_batch_seconds_count", ("zscore",)] == 1
    assert page["stockade_store_commit_seconds_bucket", ("0.0005",)] == 1
    assert page["stockade_store_rows_total", ()] == 12


async def test_page_shows_sessions_and_what_waits_for_them() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(KEPT)
        await viewer.send(
            Subscribe(
                packet_id=1,
                filters=tuple(Subscription(filter=f, qos=1) for f in ("t/#", "$share/g/u")),
            )
        )
        await viewer.next()
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        await sensor.send(Publish(topic="t/1", payload=b"x" * 100, qos=1, packet_id=1, retain=True))
        await sensor.next()
        page = page_of(broker)
        assert page["stockade_connections", ()] == 1
        assert page["stockade_sessions", ()] == 2
        assert page["stockade_messages_queued", ()] == 1
        assert page["stockade_waiting_bytes", ()] >= 100
        assert page["stockade_retained_messages", ()] == 1
        assert page["stockade_retained_bytes", ()] >= 100
        assert page["stockade_store_messages", ()] == 1, "once, for its queue and its topic"
        assert page["stockade_store_message_bytes", ()] >= 100
        assert ("stockade_store_pending_rows", ()) not in page, "there is no file"
        await viewer_back(broker)
        page = page_of(broker)
        assert page["stockade_sessions_resumed_total", ()] == 1
        assert page["stockade_messages_in_flight", ()] == 1
        assert page["stockade_messages_queued", ()] == 0


async def viewer_back(broker: TestBroker) -> None:
    viewer = broker.peer("viewer")
    await viewer.greet(Connect(client_id="v", clean_start=False, properties=Properties()))
    await viewer.next()


async def test_page_says_why_messages_were_dropped() -> None:
    limits = BrokerLimits(max_queued_messages=1, max_stored_messages=0)
    async with running_broker(SENSOR, VIEWER, store=Volatile(), limits=limits) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(KEPT)
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#", qos=1),)))
        await viewer.next()
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for topic in ("t/1", "t/1", "secret"):
            await sensor.send(Publish(topic=topic, payload=b"x", qos=1, packet_id=1))
            await sensor.next()
        page = page_of(broker)
        assert page["stockade_messages_dropped_total", ("queue_full",)] == 1
        assert page["stockade_messages_dropped_total", ("denied",)] == 1


async def test_page_tells_what_waits_in_the_store_only_from_what_is_queued() -> None:
    limits = BrokerLimits(max_queued_messages=2)
    async with running_broker(SENSOR, VIEWER, store=Volatile(), limits=limits) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(KEPT)
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#", qos=1),)))
        await viewer.next()
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await sensor.send(Publish(topic="t/1", payload=b"x" * 100, qos=1, packet_id=1))
            await sensor.next()
        page = page_of(broker)
        assert page["stockade_messages_queued", ()] == 2
        assert page["stockade_messages_stored", ()] == 3
        assert 300 < page["stockade_messages_stored_bytes", ()] < 400
        assert page["stockade_store_failed_reads_total", ()] == 0
        await viewer_back(broker)
        await trio.testing.wait_all_tasks_blocked()
        page = page_of(broker)
        assert page["stockade_store_failed_reads_total", ()] == 1, "nothing can be read there"
        assert page["stockade_messages_stored", ()] == 3


async def test_page_shows_what_is_not_on_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    async with running_broker() as broker:
        store.put_message(a_message(data=b"0\x06\x00\x01tpay"))
        page = page_of(broker, store=store)
        assert page["stockade_store_pending_rows", ()] == 1
        assert page["stockade_store_pending_bytes", ()] > 0
        assert page["stockade_store_failing", ()] == 0
    store.close()
