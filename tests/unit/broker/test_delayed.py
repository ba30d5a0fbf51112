from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from acl.model import Principal
from broker.config import BrokerLimits
from broker.delayed import MAX_DELAY_S, TICK_S, Delayed, DelayedPublisher, parse_delayed
from broker.durability import Volatile
from broker.messages import Message, Messages
from broker.outlet import Outlet
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    Connect,
    Properties,
    Puback,
    Publish,
    Version,
    Will,
)
from mqtt.runs import run_of
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    connected,
    got,
    hear,
    publish,
    subscribe,
)
from tests.unit.broker.test_retained import limits_of

# -- the topic -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "parsed"),
    [
        (b"$delayed/5/t", (5, b"t")),
        (b"$delayed/0/t/u", (0, b"t/u")),
        (b"$delayed/007/t", (7, b"t")),
        (b"$delayed/4294967//t", (MAX_DELAY_S, b"/t")),
        ("$delayed/1/é".encode(), (1, "é".encode())),
    ],
)
def test_delayed_topic_says_when_and_where(topic: bytes, parsed: tuple[int, bytes]) -> None:
    assert parse_delayed(topic) == parsed


@pytest.mark.parametrize(
    "topic",
    [
        b"$delayed/",
        b"$delayed/5",
        b"$delayed/5/",
        b"$delayed//t",
        b"$delayed/-1/t",
        b"$delayed/+1/t",
        b"$delayed/1.5/t",
        b"$delayed/1_0/t",
        "$delayed/\u0665/t".encode(),
        b"$delayed/\xb2/t",
        b"$delayed/4294968/t",
        b"$delayed/99999999999999999999/t",
        b"$delayed/5/$SYS/broker/uptime",
        b"$delayed/5/$delayed/5/t",
        b"$delayed/5/$share/g/t",
        b"$delayed/5/kernel/double",
        b"$delayed/5/" + b"/" * 128,
    ],
)
def test_delayed_topic_that_is_none_is_refused_as_a_topic(topic: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse_delayed(topic)
    assert refused.value.reason is ReasonCode.TOPIC_NAME_INVALID
    assert refused.value.message


@given(st.binary(max_size=40))
def test_any_topic_is_parsed_or_refused(rest: bytes) -> None:
    try:
        delay_s, meant = parse_delayed(b"$delayed/" + rest)
    except RemoteProtocolError:
        return
    assert 0 <= delay_s <= MAX_DELAY_S
    assert meant


# -- what waits ------------------------------------------------------------------------------


@dataclass
class Shelf:
    """Delayed messages, with what the store has of them."""

    max_messages: int = 10
    max_bytes: int = 1_000
    now: float = 0.0
    rows: Rows = field(default_factory=Rows)
    lost: list[tuple[bytes, str]] = field(default_factory=list[tuple[bytes, str]])

    def __post_init__(self) -> None:
        self.messages = Messages(self.rows, clock=lambda: self.now)
        self.delayed = Delayed(
            self.messages,
            self.rows,
            limits=limits_of(self.max_messages, self.max_bytes),
            lost=lambda message, _first, _count, why: self.lost.append((message.run.topic, why)),
        )

    def add(self, topic: str, due_at: float, *, expiry_s: int | None = None) -> Message:
        properties = Properties(message_expiry_interval=expiry_s)
        run = run_of(Publish(topic=topic, payload=b"x", properties=properties), Version.V5)
        message = self.messages.take(run, Principal("sensor"))
        self.delayed.add(message, due_at)
        return message

    def due(self, now: float) -> list[bytes]:
        """The topics of what is due, each published."""
        found: list[bytes] = []
        self.now = now
        for message in self.delayed.due(100):
            found.append(message.run.topic)
            self.delayed.done(message)
        return found


@given(
    st.lists(st.integers(0, 20), max_size=20), st.lists(st.integers(0, 20), max_size=5).map(sorted)
)
def test_messages_come_when_they_are_due_in_order_and_leave_the_store_then(
    moments: list[int], looks: list[int]
) -> None:
    shelf = Shelf(max_messages=100, max_bytes=10_000)
    for number, due_at in enumerate(moments):
        shelf.add(f"{number}", due_at)
    found: list[bytes] = []
    for now in looks:
        found += shelf.due(now)
    last = looks[-1] if looks else -1
    order = sorted((due_at, number) for number, due_at in enumerate(moments) if due_at <= last)
    assert found == [str(number).encode() for _, number in order]
    left = len(moments) - len(found)
    assert len(shelf.delayed) == len(shelf.rows.delayed) == len(shelf.rows.messages) == left
    assert bool(shelf.delayed.bytes) == bool(left)


def test_message_is_in_the_store_until_it_was_published() -> None:
    shelf = Shelf()
    shelf.add("t", 5.0)
    (row,) = shelf.rows.delayed.values()
    assert row.due_at == 5.0
    assert row.message_id in shelf.rows.messages
    shelf.now = 5.0
    (message,) = shelf.delayed.due(1)
    assert shelf.rows.delayed, "a crash now publishes it again"
    shelf.delayed.done(message)
    assert (shelf.rows.delayed, shelf.rows.messages) == ({}, {})


def test_message_that_comes_while_another_is_published_is_not_taken_for_it() -> None:
    shelf = Shelf()
    shelf.add("t", 5.0)
    shelf.now = 5.0
    (first,) = shelf.delayed.due(1)
    shelf.add("sooner", 1.0)  # the clock was set back
    shelf.delayed.done(first)
    assert shelf.due(5.0) == [b"sooner"]


def test_room_is_bounded_in_number_and_bytes() -> None:
    shelf = Shelf(max_messages=2)
    shelf.add("t", 1.0)
    assert shelf.delayed.has_room("sensor", 1, 10)
    assert not shelf.delayed.has_room("sensor", 2, 20)
    assert shelf.delayed.has_room("sensor", 1, 1_000 - shelf.delayed.bytes)
    assert not shelf.delayed.has_room("sensor", 1, 1_001 - shelf.delayed.bytes)


def test_message_that_expires_before_it_is_due_is_lost_and_told() -> None:
    shelf = Shelf()
    shelf.add("short", 5.0, expiry_s=4)
    shelf.add("long", 5.0, expiry_s=6)
    assert shelf.due(5.0) == [b"long"]
    assert shelf.lost == [(b"short", "expired")]
    assert (shelf.rows.messages, len(shelf.delayed), shelf.delayed.bytes) == ({}, 0, 0)


def test_restored_message_is_due_when_it_was_meant_to_be() -> None:
    shelf = Shelf()
    message = shelf.add("t", 5.0)
    later = Delayed(shelf.messages, shelf.rows, limits=limits_of(1, 1))
    message.needed_by = 0  # as it comes out of the store
    later.restored(message, 5.0)
    shelf.now = 4.9
    assert later.due(1) == []
    shelf.now = 5.0
    assert later.due(1) == [message]
    later.done(message)
    assert (shelf.rows.delayed, shelf.rows.messages) == ({}, {})


# -- in a broker -----------------------------------------------------------------------------


async def delay(
    peer: Peer, topic: str, *, retain: bool = False, payload: bytes = b"x"
) -> ReasonCode:
    publish = Publish(topic=topic, payload=payload, qos=1, packet_id=1, retain=retain)
    await peer.send(publish)
    answer = await peer.next()
    assert isinstance(answer, Puback)
    return answer.reason


def publisher_of(broker: TestBroker) -> DelayedPublisher:
    return DelayedPublisher(broker.publishing, broker.routing.faults)


async def test_delayed_message_is_published_when_the_seconds_have_passed(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "#")
        assert await delay(sensor, "$delayed/5/t/1") is ReasonCode.SUCCESS
        await trio.sleep(4.9)
        assert await viewer.nothing()
        await trio.sleep(0.1 + TICK_S)
        message = await got(viewer)
        assert (message.topic, message.payload, message.qos) == ("t/1", b"x", 1)


async def test_retain_flag_of_a_delayed_message_counts_when_it_is_due() -> None:
    async with running_broker(SENSOR) as broker:
        sensor = await broker.client("sensor")
        await delay(sensor, "$delayed/5/t/1", retain=True)
        await publisher_of(broker).publish_due()
        assert len(broker.publishing.retained) == 0
        broker.now = 5.0
        await publisher_of(broker).publish_due()
        assert broker.publishing.retained.get("t/1") is not None


async def test_right_to_publish_is_weighed_when_it_is_taken() -> None:
    async with running_broker(SENSOR) as broker:
        sensor = await broker.client("sensor")
        assert await delay(sensor, "$delayed/5/secret") is ReasonCode.NOT_AUTHORIZED
        assert await delay(sensor, "$delayed/x/t/1") is ReasonCode.TOPIC_NAME_INVALID
        assert len(broker.publishing.delayed) == 0
        assert broker.publishing.denied == 1


async def test_right_to_publish_is_weighed_again_when_it_is_due() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "#")
        await delay(sensor, "$delayed/5/t/1")
        broker.change_rules(broker.authority.rules.without_rule("sensor-writes"))
        broker.now = 5.0
        await publisher_of(broker).publish_due()
        assert await viewer.nothing()
        assert (len(broker.publishing.delayed), broker.publishing.denied) == (0, 1)
        assert broker.authorizer.sizes().connections == 2, "its own L1 is closed again"


async def test_delayed_message_waits_while_there_is_no_policy(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "#")
        await delay(sensor, "$delayed/1/t/1")
        broker.authorizer.withdraw("no contact")
        await trio.sleep(10)
        assert await viewer.nothing()
        broker.authorizer.restore()
        broker.change_rules(broker.authority.rules)
        assert (await got(viewer)).topic == "t/1"


async def test_run_that_does_not_fit_is_refused_whole() -> None:
    rule = allow("sensor", "write", "topic.**")
    limits = BrokerLimits(max_delayed_messages=2)
    async with running_broker(rule, limits=limits) as broker:
        sensor = await broker.client("sensor")
        packets = [
            Publish(topic="$delayed/5/t", payload=b"x", qos=1, packet_id=i) for i in (1, 2, 3)
        ]
        await sensor.send(*packets)
        answers = [await sensor.next() for _ in packets]
        assert {a.reason for a in answers if isinstance(a, Puback)} == {ReasonCode.QUOTA_EXCEEDED}
        assert len(broker.publishing.delayed) == 0
        assert await delay(sensor, "$delayed/5/t") is ReasonCode.SUCCESS


async def test_delayed_message_waits_while_the_controller_does_not_answer(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await publish(sensor, b"later", topic="$delayed/5/t/1")
        broker.new_epoch()
        broker.authority.silent = True
        await trio.sleep(10)
        broker.authority.silent = False
        assert await hear(viewer, b"later") < 10


async def test_delayed_messages_that_are_due_hold_up_nobody_elses(
    autojump_clock: trio.abc.Clock,
) -> None:
    live = allow("live", "write", "topic.t.**", rule_id="live")
    async with running_broker(SENSOR, VIEWER, live) as broker:
        sensor, other, viewer = [await broker.client(name) for name in ("sensor", "live", "viewer")]
        await subscribe(viewer, "t/#", qos=0)
        for number in range(10):
            await publish(sensor, b"due", topic=f"$delayed/5/t/{number}")
        broker.new_epoch()
        await publish(other, b"known", qos=0, topic="t/live")
        await hear(viewer, b"known")
        broker.slow_controller(0.3)
        await trio.sleep(6)
        await publish(other, b"live", qos=0, topic="t/live")
        assert await hear(viewer, b"live") < 0.5


def test_expired_messages_are_lost_some_at_a_time() -> None:
    shelf = Shelf()
    for number in range(5):
        shelf.add(f"{number}", 5.0, expiry_s=1)
    shelf.now = 5.0
    assert shelf.delayed.due(2) == []
    assert len(shelf.lost) == 2
    assert shelf.delayed.has_due
    assert shelf.delayed.due(9) == []
    assert not shelf.delayed.has_due


async def test_message_that_cannot_be_published_for_an_error_of_ours_holds_up_no_other(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/good")
        real = broker.publishing.publish_late

        async def fails(message: Message, changes: int, touched: list[Outlet]) -> bool:
            if message.run.topic == b"t/bad":
                raise ValueError("a bug")
            return await real(message, changes, touched)

        monkeypatch.setattr(broker.publishing, "publish_late", fails)
        for topic in ("t/bad", "t/good"):
            await delay(sensor, f"$delayed/1/{topic}")
        await trio.sleep(2)
        assert (await got(viewer)).topic == "t/good"
        assert broker.routing.faults.count > 0
        assert len(broker.publishing.delayed) == 1


async def test_wills_have_their_places_though_others_fill_all_of_delayed_messages(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = BrokerLimits(max_delayed_messages=2, max_delayed_messages_per_principal=2)
    greedy = allow("greedy", "write", "topic.**", rule_id="greedy")
    async with running_broker(SENSOR, VIEWER, greedy, limits=limits) as broker:
        viewer, filler = await broker.client("viewer"), await broker.client("greedy")
        await subscribe(viewer, "t/#")
        for _ in range(2):
            assert await delay(filler, "$delayed/4000000/x") is ReasonCode.SUCCESS
        sensor = broker.peer("sensor")
        await sensor.greet(
            Connect(client_id="s", will=Will(topic="t/will", payload=b"gone", qos=1))
        )
        assert await delay(sensor, "$delayed/5/t/1") is ReasonCode.QUOTA_EXCEEDED
        await sensor.leave()
        assert (await got(viewer)).payload == b"gone"
