from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from broker.metrics import RoomCollector, Sources, Timings
from gpu.stats import KernelStats
from mqtt.packets import Publish, Subscribe, Subscription
from tests.brokers import TestBroker, allow, running_broker


class Kernels:
    """The part of the kernel pool that metrics read."""

    @property
    def stats(self) -> Mapping[str, KernelStats]:
        return {"zscore": KernelStats(batches=2, records=30, kernel_seconds=0.5, starts=3)}

    def ready(self, name: str) -> bool:
        return name == "zscore"


def page_of(broker: TestBroker, timings: Timings) -> dict[tuple[str, tuple[str, ...]], float]:
    sources = Sources(
        count=broker.services.count,
        registry=broker.registry,
        router=broker.router,
        guard=broker.guard,
        authorizer=broker.authorizer,
        kernels=broker.kernels,
        pool=Kernels(),
        audit=broker.audit,
    )
    timings.registry.register(RoomCollector(sources))
    families = text_string_to_metric_families(timings.page().decode())
    return {
        (sample.name, tuple(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_page_shows_what_the_rooms_counted() -> None:
    rules = (allow("sensor", "write", "topic.t.**"), allow("viewer", "read", "topic.t.**"))
    async with running_broker(*rules) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#"),)))
        await viewer.next()
        for _ in range(2):
            await sensor.send(*[Publish(topic="t/1")] * 10)
            await viewer.next()
        page = page_of(broker, Timings())
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
    async with running_broker() as broker:
        page = page_of(broker, timings)
    assert page["stockade_handshakes_total", ("mqtts", "expired")] == 1
    assert page["stockade_handshake_seconds_count", ("mqtts",)] == 2
    assert page["stockade_handshake_seconds_bucket", ("0.0025", "mqtts")] == 1
    assert page["stockade_loop_lag_seconds_count", ()] == 1
    assert page["stockade_controller_ask_seconds_bucket", ("0.0005",)] == 1
    assert page["stockade_kernel_batch_seconds_count", ("zscore",)] == 1
