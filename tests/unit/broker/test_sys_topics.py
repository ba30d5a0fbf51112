from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
import trio.testing

from acl.model import Principal
from broker.sys_topics import SysTopics, Totals
from mqtt.packets import (
    Suback,
    Subscribe,
    Subscription,
)
from tests.brokers import TestBroker, allow, running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    got,
    hear,
    publish,
    subscribe,
)

READER = allow("viewer", "read", "topic.$SYS.**", rule_id="reads-sys")
ZERO = Totals(
    clients_connected=0,
    clients_disconnected=0,
    clients_maximum=0,
    clients_expired=0,
    messages_received=0,
    messages_sent=0,
    messages_dropped=0,
    bytes_received=0,
    bytes_sent=0,
    stored=0,
    stored_bytes=0,
    retained=0,
    subscriptions=0,
    shared_subscriptions=0,
    inflight=0,
)


@dataclass
class Source:
    """Totals and a clock that a test sets."""

    now: float = 0.0
    all: Totals = field(default=ZERO)

    def totals(self) -> Totals:
        return self.all

    def clock(self) -> float:
        return self.now

    def at(self, now: float, **changes: int) -> None:
        self.now = now
        self.all = replace(self.all, **changes)


def topics_of(broker: TestBroker, source: Source, *, interval_s: float = 10.0) -> SysTopics:
    return SysTopics(
        source,
        router=broker.router,
        messages=broker.publishing.messages,
        retained=broker.publishing.retained,
        broker=Principal("b1"),
        version="1.2.3",
        interval_s=interval_s,
        clock=source.clock,
    )


@asynccontextmanager
async def observed(*, interval_s: float = 10.0) -> AsyncGenerator[tuple[Source, SysTopics]]:
    source = Source()
    async with running_broker(READER) as broker:
        yield source, topics_of(broker, source, interval_s=interval_s)


async def test_values_are_the_totals_under_the_names_clients_know() -> None:
    async with observed() as (source, topics):
        source.at(
            61.7,
            clients_connected=3,
            clients_disconnected=4,
            clients_maximum=5,
            messages_received=6,
            bytes_sent=7,
            retained=8,
            shared_subscriptions=9,
        )
        values = topics.values()
        assert values["version"] == "stockade 1.2.3"
        assert values["uptime"] == "61 seconds"
        assert (values["clients/total"], values["clients/connected"]) == ("7", "3")
        assert (values["clients/disconnected"], values["clients/maximum"]) == ("4", "5")
        assert (values["messages/received"], values["bytes/sent"]) == ("6", "7")
        assert values["retained messages/count"] == "8"
        assert values["shared_subscriptions/count"] == "9"


async def test_load_is_counted_a_minute_over_its_window() -> None:
    async with observed() as (source, topics):
        loads = []
        for step in range(91):  # 15 minutes; 10 messages every 10 s, then none for the last minute
            source.at(10.0 * step, messages_received=10 * min(step, 84))
            values = topics.values()
            loads.append([values[f"load/messages/received/{w}"] for w in ("1min", "5min", "15min")])
        assert loads[0] == ["0.00", "0.00", "0.00"], "nothing is known yet"
        assert loads[1] == ["60.00", "60.00", "60.00"], "as far back as is known"
        assert loads[84] == ["60.00", "60.00", "60.00"]
        assert loads[90] == ["0.00", "48.00", "56.00"]


async def test_history_is_as_long_as_the_longest_window() -> None:
    async with observed(interval_s=1.0) as (source, topics):
        for step in range(2_000):
            source.at(float(step))
            topics.values()
        assert len(topics._history) <= 902


async def test_topics_are_retained_in_memory_and_read_by_rule_only() -> None:
    rows = Rows()
    async with running_broker(READER, store=rows) as broker:
        source = Source()
        await topics_of(broker, source).publish()
        viewer = await broker.client("viewer")
        await subscribe(viewer, "$SYS/broker/uptime")
        message = await got(viewer)
        assert (message.topic, message.payload, message.retain) == (
            "$SYS/broker/uptime",
            b"0 seconds",
            True,
        )
        source.at(5.0)
        await topics_of(broker, source).publish()
        assert (await got(viewer)).payload == b"0 seconds", "a new one just started"
        assert (rows.retained, rows.messages) == ({}, {})
        stranger = await broker.client("stranger")
        wanted = Subscribe(packet_id=1, filters=(Subscription(filter="$SYS/#"),))
        await stranger.send(wanted)
        answer = await stranger.next()
        assert isinstance(answer, Suback)
        assert answer.reasons[0].failed


async def test_filter_that_begins_with_a_wildcard_does_not_match_them() -> None:
    rule = allow("viewer", "read", "topic.**")
    async with running_broker(READER, rule) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "#", "+/broker/uptime")
        await topics_of(broker, Source()).publish()
        assert await viewer.nothing()


async def test_topics_are_published_every_interval(autojump_clock: trio.abc.Clock) -> None:
    async with running_broker(READER) as broker, trio.open_nursery() as nursery:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "$SYS/broker/uptime")
        source = Source()
        nursery.start_soon(topics_of(broker, source, interval_s=3.0).run)
        for now in (0, 3, 6):
            source.at(float(now))
            assert (await got(viewer)).payload == f"{now} seconds".encode()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("interval_s", [0, 0.0])
async def test_interval_of_0_means_none(interval_s: float) -> None:
    async with running_broker(READER) as broker:
        await topics_of(broker, Source(), interval_s=interval_s).run()
        assert len(broker.publishing.retained) == 0


class Nothing:
    def totals(self) -> Totals:
        return Totals(**dict.fromkeys(Totals.__slots__, 0))


async def test_publishing_sys_topics_holds_up_nobody_elses_messages(
    autojump_clock: trio.abc.Clock,
) -> None:
    rule = allow("viewer", "read", "topic.$SYS.**", rule_id="sys")
    async with running_broker(SENSOR, VIEWER, rule) as broker, trio.open_nursery() as nursery:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", "$SYS/#", qos=0)
        await publish(sensor, b"known", qos=0)
        await hear(viewer, b"known")
        broker.slow_controller(0.3)
        topics = SysTopics(
            Nothing(),
            router=broker.router,
            messages=broker.publishing.messages,
            retained=broker.publishing.retained,
            broker=Principal("b1"),
            version="1",
            interval_s=10,
            clock=trio.current_time,
        )
        nursery.start_soon(topics.publish)
        await trio.sleep(0.5)
        await publish(sensor, b"live", qos=0)
        assert await hear(viewer, b"live") < 0.5
        nursery.cancel_scope.cancel()
