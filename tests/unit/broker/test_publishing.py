from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from acl.model import AccessRequest, Principal
from broker.config import BrokerLimits
from broker.durability import Volatile
from broker.kernels import CallBook
from broker.outlet import Outlet
from broker.publishing import DELIVERED, NOBODY_THERE, STORED, Outcome
from broker.session import Session
from broker.wills import will_record
from cache.authority import Answers
from cache.connection import ConnectionCache
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connect,
    Properties,
    Puback,
    Publish,
    Version,
    Will,
)
from mqtt.runs import run_of
from tests.brokers import TestBroker, allow, running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    SlowStore,
    connected,
    got,
    hear,
    subscribe,
)

WRITES_SYS = allow("sensor", "write", "topic.$SYS.**", rule_id="writes-sys")
WRITES_OTHER = allow("sensor", "write", "topic.$other.**", rule_id="writes-other")
CALLS = allow("sensor", "execute", "kernel.*", rule_id="calls")


@dataclass
class Sender:
    """Who publishes, without a connection."""

    cache: ConnectionCache
    principal: Principal = field(default_factory=lambda: Principal("sensor"))
    peer: str = "127.0.0.1:1"
    calls: CallBook = field(default_factory=lambda: CallBook(lambda: None))


async def publish(
    broker: TestBroker,
    topic: str = "t/1",
    payload: bytes = b"x",
    *,
    qos: int = 1,
    retain: bool = False,
    count: int = 1,
    properties: Properties | None = None,
) -> Outcome:
    """What a publisher is told of a run."""
    sender = Sender(broker.authorizer.open(Principal("sensor")))
    packet = Publish(
        topic=topic, payload=payload, qos=qos, retain=retain, properties=properties or Properties()
    )
    run = run_of(packet, Version.V5)
    touched: list[Outlet] = []
    run = run.repeated(run.data * count, count)
    outcome = await broker.publishing.publish(sender, run, None, touched)
    for outlet in touched:
        outlet.flush_now()
    sender.cache.close()
    return outcome


# -- what the publisher is told --------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_without_a_subscriber_is_taken_and_the_publisher_told(qos: int) -> None:
    async with running_broker(SENSOR, store=Rows()) as broker:
        assert await publish(broker, qos=qos) == NOBODY_THERE


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_for_a_client_whose_session_ends_with_it_waits_for_no_disk(qos: int) -> None:
    store = Rows()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=2)
        assert await publish(broker, qos=qos) == DELIVERED
        assert (await got(viewer)).qos == qos
        assert not store.messages


@pytest.mark.parametrize("qos", [1, 2])
async def test_message_for_a_session_that_is_kept_waits_for_the_disk(qos: int) -> None:
    store = Rows()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        assert await publish(broker, qos=qos, count=3) == STORED
        (row,) = store.messages.values()
        assert row.count == 3


async def test_denied_run_is_counted_and_told_a_decision_and_no_rule() -> None:
    async with running_broker(VIEWER) as broker:
        outcome = await publish(broker, count=5)
        assert outcome.reason is ReasonCode.NOT_AUTHORIZED
        assert outcome.text.startswith("not authorized, decision d-")
        assert broker.publishing.denied == 5


async def test_sys_topics_are_refused_even_where_a_rule_would_allow_them() -> None:
    async with running_broker(WRITES_SYS) as broker:
        outcome = await publish(broker, "$SYS/broker/uptime", retain=True)
        assert outcome.reason is ReasonCode.NOT_AUTHORIZED
        assert len(broker.publishing.retained) == 0


async def test_other_dollar_topics_are_topics_like_any() -> None:
    async with running_broker(WRITES_OTHER) as broker:
        assert await publish(broker, "$other/1") == NOBODY_THERE


# -- retained --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"x", b""])
async def test_what_a_retained_message_changes_waits_for_the_disk(payload: bytes) -> None:
    async with running_broker(SENSOR, store=Rows()) as broker:
        await publish(broker, retain=True)
        assert await publish(broker, payload=payload, retain=True) == STORED


async def test_removal_of_a_retained_message_is_acknowledged_when_it_is_on_disk() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, store=store) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=1, retain=True))
        assert await sensor.nothing()
        store.settle_all(True)  # noqa: FBT003
        assert await sensor.next() == Puback(packet_id=1)


async def test_retained_message_that_does_not_fit_reaches_nobody() -> None:
    limits = BrokerLimits(max_retained_messages=0)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        outcome = await publish(broker, retain=True)
        assert outcome.reason is ReasonCode.QUOTA_EXCEEDED
        assert await viewer.nothing()


# -- a store that cannot write ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("qos", "retain", "topic"),
    [(1, False, "t/1"), (2, False, "t/1"), (0, True, "t/1"), (1, False, "$delayed/5/t/1")],
)
async def test_nothing_durable_is_taken_while_the_store_cannot_write(
    qos: int,
    retain: bool,  # noqa: FBT001
    topic: str,
) -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        store.why = "disk full"
        outcome = await publish(broker, topic, qos=qos, retain=retain)
        assert outcome.reason is ReasonCode.QUOTA_EXCEEDED
        assert await viewer.nothing()
        assert len(broker.publishing.retained) == len(broker.publishing.delayed) == 0


async def test_qos_0_goes_on_while_the_store_cannot_write() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        store.why = "disk full"
        assert await publish(broker, qos=0) == DELIVERED
        assert (await got(viewer)).payload == b"x"


# -- kernels and delays ----------------------------------------------------------------------


async def test_kernel_call_never_becomes_a_message() -> None:
    answers = allow("sensor", "write", "topic.re.**")
    async with running_broker(CALLS, answers, store=Rows()) as broker:
        properties = Properties(response_topic="re/1")
        outcome = await publish(broker, "kernel/double", b"abcdefgh", properties=properties)
        assert outcome == DELIVERED
        assert broker.pool.batches == [1]
        refused = await publish(broker, "kernel/double", b"short", properties=properties)
        assert refused.reason is ReasonCode.PAYLOAD_FORMAT_INVALID
        assert broker.router.messages_out == 0


async def test_delayed_message_is_stored_before_its_publisher_hears() -> None:
    store = Rows()
    async with running_broker(SENSOR, store=store) as broker:
        assert await publish(broker, "$delayed/5/t/1", count=2) == STORED
        assert len(store.delayed) == 2
        assert {row.data[4:9] for row in store.messages.values()} == {b"t/1\x00\x01"}


# -- wills -----------------------------------------------------------------------------------


def session_of(broker: TestBroker, peer_id: str = "c") -> Session:
    (session,) = [s for s in broker.registry.all_sessions() if s.client_id == peer_id]
    return session


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_will_reaches_subscribers_like_any_message_and_is_retained(qos: int) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=2)
        sensor = broker.peer("sensor")
        will = Will(topic="t/gone", payload=b"bye", qos=qos, retain=True)
        await sensor.greet(Connect(client_id="s", will=will))
        await sensor.leave()
        message = await got(viewer)
        assert (message.topic, message.payload, message.qos) == ("t/gone", b"bye", qos)
        assert not message.retain, "the subscription did not ask for it"
        assert broker.publishing.retained.get("t/gone") is not None


async def test_wills_for_which_there_is_no_room_are_delivered_counted_and_told_once() -> None:
    limits = BrokerLimits(max_retained_messages=0)
    with capture_logs() as logs:
        async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
            viewer = await broker.client("viewer")
            await subscribe(viewer, "t/#")
            for number in range(3):
                sensor = broker.peer("sensor")
                will = Will(topic="t/gone", payload=b"bye", retain=True)
                await sensor.greet(Connect(client_id=f"s-{number}", will=will))
                await sensor.leave()
                assert (await got(viewer)).payload == b"bye"
            assert broker.publishing.not_retained == 3
    said = [line for line in logs if line["event"] == "no room for more retained messages"]
    assert len(said) == 1


async def test_will_of_a_kernel_call_is_not_made() -> None:
    async with running_broker(CALLS) as broker:
        sensor = broker.peer("sensor")
        will = Will(
            topic="kernel/double", payload=b"abcdefgh", properties=Properties(response_topic="re")
        )
        await sensor.greet(Connect(client_id="s", will=will))
        await sensor.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert broker.pool.batches == []


async def test_will_waits_while_there_is_no_policy() -> None:
    store = Rows()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        sensor = broker.peer("sensor")
        await sensor.greet(Connect(client_id="s", will=Will(topic="t/gone", payload=b"bye")))
        broker.authorizer.withdraw("no contact")
        await sensor.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert len(store.delayed) == 1, "and it survives a restart"
        assert broker.publishing.denied == 0
        broker.authorizer.restore()
        broker.change_rules(broker.authority.rules)
        assert (await got(viewer)).payload == b"bye"
        assert (store.delayed, store.messages) == ({}, {})


async def test_will_that_is_denied_is_counted_and_gone() -> None:
    async with running_broker(VIEWER) as broker:
        await connected(broker, "sensor")
        broker.publishing.publish_will(session_of(broker), will_record(Will(topic="t/gone")))
        await trio.testing.wait_all_tasks_blocked()
        assert (len(broker.publishing.delayed), broker.publishing.denied) == (0, 1)


async def test_will_for_which_there_is_no_room_is_lost_and_told() -> None:
    limits = BrokerLimits(max_delayed_messages_per_principal=0)
    async with running_broker(SENSOR, limits=limits) as broker:
        await connected(broker, "sensor")
        broker.publishing.publish_will(session_of(broker), will_record(Will(topic="t/gone")))
        assert len(broker.publishing.delayed) == 0
        assert broker.routing.dead_letters.lost["no room"] == 1


async def test_will_waits_while_the_controller_does_not_answer(
    autojump_clock: trio.abc.Clock,
) -> None:
    will = Will(topic="t/will", payload=b"gone", qos=1)
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        sensor = await connected(broker, "sensor", will=will)
        broker.authority.silent = True
        await sensor.leave()
        await trio.sleep(5)
        broker.authority.silent = False
        assert await hear(viewer, b"gone") < 10


async def test_wills_that_wait_do_not_hold_up_the_sweeper(autojump_clock: trio.abc.Clock) -> None:
    async with (
        running_broker(SENSOR, VIEWER, store=Volatile()) as broker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(broker.registry.sweep)
        for number in range(10):
            will = Will(
                topic=f"t/{number}",
                payload=b"gone",
                qos=1,
                properties=Properties(will_delay_interval=3),
            )
            await (await connected(broker, "sensor", f"{number}", will=will)).leave()
        silent = broker.peer("viewer")
        await silent.greet(Connect(client_id="silent", keep_alive=4))
        broker.authority.silent = True
        await trio.sleep(9)
        assert not len(broker.registry), "1.5 keep alives are 6 s"
        nursery.cancel_scope.cancel()


async def test_grant_to_write_that_is_revoked_while_the_route_is_built_stops_the_message() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=0)
        answered, real = trio.Event(), broker.authority.ask

        async def ask(requests: tuple[AccessRequest, ...]) -> Answers:
            if any(each.operation.name == "READ" for each in requests):
                await answered.wait()
            return await real(requests)

        broker.authority.ask = ask  # type: ignore[method-assign,assignment]
        await sensor.send(Publish(topic="t/9", payload=b"late", qos=1, packet_id=1))
        await trio.testing.wait_all_tasks_blocked()
        broker.change_rules(broker.authority.rules.without_rule("sensor-writes"))
        answered.set()
        answer = await sensor.next()
        assert isinstance(answer, Puback)
        assert answer.reason is ReasonCode.NOT_AUTHORIZED
        assert await viewer.nothing()
