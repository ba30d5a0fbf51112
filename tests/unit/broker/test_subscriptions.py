from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing
from typing_extensions import override

from broker.config import BrokerLimits
from broker.connection import Connection
from broker.durability import Volatile
from broker.session import filter_memory
from broker.turns import Turns
from mqtt.errors import ReasonCode
from mqtt.names import STEP_NODES
from mqtt.packets import (
    Connect,
    Pingreq,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from tests.brokers import LOOKS_A_ROUND, Peer, TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import (
    KEPT,
    SENSOR,
    VIEWER,
    SlowStore,
    connected,
    got,
    hear,
    publish,
    subscribe,
)

READS = allow("viewer", "read", "topic.**")


@pytest.mark.parametrize(
    ("filter_", "reason"),
    [
        ("a/" * 127 + "b", ReasonCode.SUCCESS),
        ("$share/g/a", ReasonCode.SUCCESS),
        ("a/b", ReasonCode.SUCCESS),
    ],
)
async def test_subscribe_answers_each_filter(filter_: str, reason: ReasonCode) -> None:
    async with running_broker(READS) as broker:
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter=filter_),)))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (reason,)


async def test_many_filters_of_one_packet_are_asked_about_together_and_answered_each() -> None:
    async with running_broker(allow("viewer", "read", "topic.t.**")) as broker:
        viewer = await broker.client("viewer")
        filters = [f"t/{number}/+" for number in range(150)]
        filters[20] = "secret/+"
        before = broker.authorizer.stats.batches
        await viewer.send(
            Subscribe(packet_id=1, filters=tuple(Subscription(filter=f, qos=0) for f in filters))
        )
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        failed = {n: reason for n, reason in enumerate(answer.reasons) if reason.failed}
        assert failed == {20: ReasonCode.NOT_AUTHORIZED}
        assert broker.authorizer.stats.batches - before <= 10


async def test_subscriptions_are_bounded_and_replacing_one_is_free() -> None:
    async with running_broker(READS, limits=BrokerLimits(max_subscriptions=1)) as broker:
        viewer = await broker.client("viewer")
        filters = tuple(Subscription(filter=f) for f in ("a", "a", "b"))
        await viewer.send(Subscribe(packet_id=1, filters=filters))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (0, 0, ReasonCode.QUOTA_EXCEEDED)
        assert broker.router.subscriptions == 1


async def test_refusal_is_explained_with_the_decision_only() -> None:
    async with running_broker() as broker:
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="a"),)))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert (answer.properties.reason_string or "").startswith("not authorized, decision d-")


async def test_subscriptions_are_bounded_in_memory_too() -> None:
    async with running_broker(READS) as broker:
        viewer = await broker.client("viewer")
        deep = tuple(Subscription(filter=f"{number}" + "/" * 127) for number in range(200))
        await viewer.send(Subscribe(packet_id=1, filters=deep))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        held = answer.reasons.count(ReasonCode.SUCCESS)
        assert held == broker.router.subscriptions < 100
        assert set(answer.reasons[held:]) == {ReasonCode.QUOTA_EXCEEDED}
        await viewer.send(Unsubscribe(packet_id=2, filters=(deep[0].filter,)))
        await viewer.next()
        await viewer.send(Subscribe(packet_id=3, filters=deep[-1:]))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.SUCCESS,), "what is given back may be used again"


async def test_shared_subscription_needs_the_grant_of_its_filter() -> None:
    reads = allow("viewer", "read", "topic.a")
    async with running_broker(reads) as broker:
        viewer = await broker.client("viewer")
        filters = tuple(Subscription(filter=f) for f in ("$share/g/a", "$share/g/b"))
        await viewer.send(Subscribe(packet_id=1, filters=filters))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.SUCCESS, ReasonCode.NOT_AUTHORIZED)


async def test_unsubscribe_answers_each_filter_and_stops_its_messages() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", "$share/g/t/#")
        await viewer.send(Unsubscribe(packet_id=2, filters=("t/#", "t/#", "$share/g/t/#")))
        answer = await viewer.next()
        assert isinstance(answer, Unsuback)
        gone = ReasonCode.NO_SUBSCRIPTION_EXISTED
        assert answer.reasons == (ReasonCode.SUCCESS, gone, ReasonCode.SUCCESS)
        await publish(sensor, b"x")
        assert await viewer.nothing()
        assert broker.router.subscriptions == 0


# -- the store -------------------------------------------------------------------------------


async def kept_viewer(broker: TestBroker, store: SlowStore) -> Peer:
    viewer = broker.peer("viewer")
    await viewer.greet(Connect(client_id="c", clean_start=False, properties=KEPT))
    store.settle_all(True)  # noqa: FBT003
    return viewer


async def test_subscription_that_cannot_be_stored_is_refused_and_not_effective() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer, sensor = await kept_viewer(broker, store), await broker.client("sensor")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#"),)))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(False)  # noqa: FBT003
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.QUOTA_EXCEEDED,)
        await publish(sensor, b"x", qos=0)
        assert await viewer.nothing()
        assert broker.router.subscriptions == 0


async def test_subscription_that_could_not_be_replaced_stays_as_it_was() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        viewer = await kept_viewer(broker, store)
        for durable, qos in ((True, 0), (False, 1)):
            wanted = (Subscription(filter="t/#", qos=qos),)
            await viewer.send(Subscribe(packet_id=1, filters=wanted))
            await trio.testing.wait_all_tasks_blocked()
            store.settle_all(durable)
            assert isinstance(await viewer.next(), Suback)
        (target,) = (await broker.router.route(b"t/1")).targets
        assert target.qos == 0


async def test_subscription_of_a_session_that_is_not_kept_waits_for_no_disk() -> None:
    store = SlowStore()
    async with running_broker(VIEWER, store=store) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")


async def test_subscription_is_refused_at_once_while_the_store_fails() -> None:
    store = SlowStore()
    async with running_broker(VIEWER, store=store) as broker:
        viewer = await kept_viewer(broker, store)
        store.why = "disk full"
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#"),)))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(True)  # noqa: FBT003
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.QUOTA_EXCEEDED,)


# -- retained messages -----------------------------------------------------------------------


async def retain(sensor: Peer, count: int) -> None:
    for number in range(count):
        topic = f"t/{number}"
        await sensor.send(Publish(topic=topic, payload=b"r", qos=1, packet_id=1, retain=True))
        assert isinstance(await sensor.next(), Puback)


async def slow_viewer(broker: TestBroker) -> Peer:
    """A client that takes one message at a time."""
    viewer = broker.peer("viewer")
    await viewer.greet(Connect(client_id="v", properties=Properties(receive_maximum=1)))
    return viewer


async def taken(viewer: Peer) -> str:
    """The topic of the next message, which the client acknowledges."""
    message = await got(viewer)
    await viewer.send(Puback(packet_id=message.packet_id or 0))
    return message.topic


async def test_retained_messages_come_at_the_pace_of_the_client_and_none_is_lost() -> None:
    limits = BrokerLimits(max_queued_messages=8)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        await retain(await broker.client("sensor"), 200)
        viewer = await slow_viewer(broker)
        await subscribe(viewer, "t/#")
        assert len({await taken(viewer) for _ in range(200)}) == 200
        assert await viewer.nothing()
        assert broker.routing.dead_letters.lost.total() == 0


async def test_each_subscription_gets_its_retained_messages_one_after_the_other() -> None:
    limits = BrokerLimits(max_queued_messages=8)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        await retain(await broker.client("sensor"), 20)
        viewer = await slow_viewer(broker)
        filters = tuple(Subscription(filter=f, qos=1) for f in ("t/#", "t/+", "none/#", "t/1"))
        await viewer.send(Subscribe(packet_id=1, filters=filters))
        assert isinstance(await viewer.next(), Suback)
        topics = Counter([await taken(viewer) for _ in range(41)])
        assert topics["t/1"] == 3
        assert set(topics.values()) == {2, 3}
        assert await viewer.nothing()


async def test_retained_messages_of_a_subscription_that_ended_are_not_sent_on() -> None:
    limits = BrokerLimits(max_queued_messages=8)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        await retain(await broker.client("sensor"), 200)
        viewer = await slow_viewer(broker)
        await subscribe(viewer, "t/#")
        await viewer.send(Unsubscribe(packet_id=2, filters=("t/#",)))
        await trio.testing.wait_all_tasks_blocked()
        count = 0
        while not await viewer.nothing():
            packet = await viewer.next()
            if isinstance(packet, Publish):
                count += 1
                await viewer.send(Puback(packet_id=packet.packet_id or 0))
                await trio.testing.wait_all_tasks_blocked()
        assert count < 10, "what was in the queue already"


async def test_client_that_subscribes_again_and_again_and_takes_nothing_costs_one_task() -> None:
    limits = BrokerLimits(max_queued_messages=8)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        await retain(await broker.client("sensor"), 200)
        viewer = await slow_viewer(broker)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        wanted = Subscribe(packet_id=9, filters=(Subscription(filter="t/#", qos=1),))
        await viewer.send(*[wanted] * 50)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before + 1


@pytest.mark.parametrize("retained", [False, True], ids=["routes", "retained"])
async def test_filters_over_many_topics_leave_others_their_turns(
    *,
    retained: bool,
) -> None:
    rule = allow("sensor", "read,write", "topic.mine.**", rule_id="mine")
    async with running_broker(rule, store=Volatile()) as broker, trio.open_nursery() as nursery:
        writer = await broker.client("sensor")
        for number in range(4 * STEP_NODES):
            await writer.send(Publish(topic=f"mine/{number}/y", payload=b"x", retain=retained))
        await trio.testing.wait_all_tasks_blocked()
        reader = await connected(broker, "sensor", "reader")
        rounds = 0

        async def watch() -> None:
            nonlocal rounds
            while True:
                await trio.lowlevel.checkpoint()
                rounds += 1

        nursery.start_soon(watch)
        wanted = [Subscription(filter=f"mine/+/x{number}", qos=0) for number in range(100)]
        await reader.send(Subscribe(packet_id=1, filters=tuple(wanted)))
        await reader.next()
        await reader.send(Pingreq())
        await reader.next()
        steps = len(wanted) * 4
        # Between two looks at the clock there is a step, or one question to the policy.
        assert rounds > steps / (2 * LOOKS_A_ROUND)
        nursery.cancel_scope.cancel()


async def test_sending_retained_messages_holds_up_nobody_elses(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/live", qos=0)
        await publish(sensor, b"known", qos=0, topic="t/live")
        await hear(viewer, b"known")
        for number in range(20):
            await sensor.send(Publish(topic=f"t/r/{number}", payload=b"r", retain=True))
        await trio.testing.wait_all_tasks_blocked()
        broker.slow_controller(0.3)
        await viewer.send(Subscribe(packet_id=9, filters=(Subscription(filter="t/r/#", qos=0),)))
        await viewer.next()
        await trio.sleep(0.5)
        await publish(sensor, b"live", qos=0, topic="t/live")
        assert await hear(viewer, b"live") < 0.5


async def test_unsuback_is_not_longer_than_the_client_takes() -> None:
    async with running_broker() as broker:
        viewer = broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(maximum_packet_size=40)))
        before = viewer.bytes_received
        await viewer.send(
            Unsubscribe(packet_id=1, filters=tuple(f"t/{n}" for n in range(100))), Pingreq()
        )
        with trio.move_on_after(0.5):
            await viewer.next()
        assert viewer.bytes_received - before <= 40


async def test_filters_that_wait_for_their_retained_messages_are_those_of_the_session() -> None:
    limits = BrokerLimits(max_queued_messages=20)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        for number in range(100):
            await sensor.send(
                Publish(topic=f"t/{number}", payload=b"r", retain=True, qos=1, packet_id=1 + number)
            )
        await viewer.greet(Connect(client_id="v", properties=Properties(receive_maximum=1)))
        await subscribe(viewer, "t/#")  # it takes one and acknowledges nothing: the rest waits
        (connection,) = [each for each in broker.registry if each.principal.name == "viewer"]
        for number in range(50):
            await viewer.send(
                Subscribe(packet_id=2, filters=(Subscription(filter=f"t/{number}/x", qos=1),)),
                Unsubscribe(packet_id=3, filters=(f"t/{number}/x",)),
            )
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(connection, Connection)
        changes = connection._subscriptions
        assert changes is not None
        assert changes._replaying
        assert not changes._to_replay


async def test_filter_of_a_kept_session_takes_effect_though_its_client_goes_while_it_does() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer", "v")
        topics = 2 * STEP_NODES
        for number in range(topics):
            await sensor.send(Publish(topic=f"t/{number}", payload=b"known"))
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = [each for each in broker.registry if each.principal.name == "viewer"]
        (session,) = [s for s in broker.registry.all_sessions() if s.client_id == "v"]
        assert isinstance(connection, Connection)

        class Taken(Turns):
            """A turn that does not come before the client has gone."""

            over = True

            @override
            async def wait(self, *, light: bool = False) -> None:
                connection.end(ReasonCode.SESSION_TAKEN_OVER, "")
                await trio.sleep_forever()

        connection._changes_of(session)._turns = Taken()
        await viewer.send(Subscribe(packet_id=9, filters=(Subscription(filter="t/+", qos=1),)))
        await trio.testing.wait_all_tasks_blocked()
        again = await connected(broker, "viewer", "v", present=True)
        for number in (0, topics - 1):
            await publish(sensor, b"new", topic=f"t/{number}")
            assert (await got(again)).payload == b"new"


async def test_room_for_filters_is_looked_at_again_after_the_policy_was_asked(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = BrokerLimits(max_subscriptions_bytes_per_principal=2_000)
    async with running_broker(VIEWER, limits=limits) as broker:
        viewers = [await broker.client("viewer", client_id=f"v{n}") for n in range(10)]
        broker.new_epoch()
        broker.slow_controller(0.5)
        for viewer in viewers:
            await viewer.send(Subscribe(packet_id=9, filters=(Subscription(filter="t/a", qos=1),)))
        answers = [await viewer.next() for viewer in viewers]
        granted = [a for a in answers if isinstance(a, Suback) and not a.reasons[0].failed]
        assert len(granted) == 2_000 // filter_memory("t/a")
        assert broker.messaging.budget.filters_bytes <= 2_000
