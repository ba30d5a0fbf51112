from __future__ import annotations

import itertools
from collections.abc import Callable

import trio
import trio.testing
from typing_extensions import override

from broker.config import BrokerLimits, MqttConfig
from broker.durability import Volatile
from broker.messages import message_of
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from mqtt.runs import Run
from tests.brokers import Peer, TestBroker, allow, deny, running_broker
from tests.durable_rows import Rows

SENSOR = allow("sensor", "write", "topic.t.**", rule_id="sensor-writes")
VIEWER = allow("viewer", "read", "topic.t.**", rule_id="viewer-reads")
KEPT = Properties(session_expiry_interval=100)


class SlowStore(Volatile):
    """A store whose disk is as slow as a test wants it to be."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[bool], None]] = []
        self.why = ""

    @property
    @override
    def failing(self) -> str:
        return self.why

    @override
    def when_durable(self, callback: Callable[[bool], None]) -> None:
        self.waiting.append(callback)

    def settle_all(self, durable: bool) -> None:  # noqa: FBT001
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback(durable)


async def connected(
    broker: TestBroker,
    principal: str,
    client_id: str = "c",
    *,
    clean: bool = False,
    properties: Properties = KEPT,
    version: Version = Version.V5,
    present: bool = False,
    will: Will | None = None,
) -> Peer:
    peer = broker.peer(principal)
    answer = await peer.greet(
        Connect(
            client_id=client_id,
            clean_start=clean,
            properties=properties if version is Version.V5 else Properties(),
            version=version,
            will=will,
        )
    )
    assert isinstance(answer, Connack)
    assert answer.session_present is present
    return peer


async def subscribe(peer: Peer, *filters: str, qos: int = 1, **options: int | bool) -> None:
    wanted = tuple(Subscription(filter=f, qos=qos, **options) for f in filters)  # type: ignore[arg-type]
    await peer.send(Subscribe(packet_id=9, filters=wanted))
    answer = await peer.next()
    assert isinstance(answer, Suback)
    assert all(not reason.failed for reason in answer.reasons), answer


async def publish(peer: Peer, payload: bytes, *, qos: int = 1, topic: str = "t/1") -> None:
    await peer.send(Publish(topic=topic, payload=payload, qos=qos, packet_id=1 if qos else None))
    if qos:
        answer = await peer.next()
        assert isinstance(answer, Puback if qos == 1 else Pubrec)
        assert not answer.reason.failed, answer
    if qos == 2:
        await peer.send(Pubrel(packet_id=1))
        assert await peer.next() == Pubcomp(packet_id=1)


async def retain(peer: Peer, payload: bytes, *, topic: str = "t/1") -> None:
    await peer.send(Publish(topic=topic, payload=payload, qos=1, packet_id=1, retain=True))
    answer = await peer.next()
    assert isinstance(answer, Puback)
    assert not answer.reason.failed, answer


async def got(peer: Peer) -> Publish:
    message = await peer.next()
    if isinstance(message, Run):
        message = message.packet(0)
    assert isinstance(message, Publish), message
    return message


# -- QoS 2 -----------------------------------------------------------------------------------


async def test_qos_2_is_delivered_once_whatever_the_publisher_repeats() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=2)
        for dup in (False, True, True):
            await sensor.send(Publish(topic="t/1", payload=b"x", qos=2, packet_id=7, dup=dup))
            assert await sensor.next() == Pubrec(packet_id=7)
        message = await got(viewer)
        assert (message.qos, message.payload) == (2, b"x")
        assert await viewer.nothing()
        await sensor.send(Pubrel(packet_id=7), Pubrel(packet_id=7))
        assert await sensor.next() == Pubcomp(packet_id=7)
        unknown = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        assert await sensor.next() == Pubcomp(packet_id=7, reason=unknown)
        await sensor.send(Publish(topic="t/1", payload=b"y", qos=2, packet_id=7))
        await viewer.send(Pubrec(packet_id=message.packet_id or 0))
        answers = [await viewer.next(), await viewer.next()]
        assert Pubrel(packet_id=message.packet_id or 0) in answers
        assert [a.payload for a in answers if isinstance(a, Publish)] == [b"y"]


async def test_qos_2_subscriber_gets_pubrel_and_no_second_publish_after_pubrec() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        await publish(sensor, b"x", qos=2)
        message = await got(viewer)
        packet_id = message.packet_id or 0
        await viewer.send(Pubrec(packet_id=packet_id))
        assert await viewer.next() == Pubrel(packet_id=packet_id)
        await viewer.leave()
        viewer = await connected(broker, "viewer", present=True)
        assert await viewer.next() == Pubrel(packet_id=packet_id), "never PUBLISH again"
        await viewer.send(Pubcomp(packet_id=packet_id))
        assert await viewer.nothing()
        assert len(broker.registry.all_sessions()) == 2


async def test_more_open_messages_than_the_receive_maximum_end_the_client() -> None:
    async with running_broker(SENSOR, limits=BrokerLimits(receive_maximum=2)) as broker:
        sensor = await broker.client("sensor")
        for packet_id in (1, 2, 3):
            await sensor.send(Publish(topic="t/1", qos=2, packet_id=packet_id))
        assert isinstance(await sensor.next(), Pubrec)
        assert isinstance(await sensor.next(), Pubrec)
        goodbye = await sensor.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED


# -- sessions --------------------------------------------------------------------------------


async def test_session_is_resumed_with_what_came_meanwhile_in_order() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(5):
            await publish(sensor, bytes([number]))
        await publish(sensor, b"lost", qos=0)
        viewer = await connected(broker, "viewer", present=True)
        messages = [await got(viewer) for _ in range(5)]
        assert [m.payload for m in messages] == [bytes([n]) for n in range(5)]
        assert not any(m.dup for m in messages), "never sent before"
        assert await viewer.nothing(), "QoS 0 does not wait for a client that is away"


async def test_unacknowledged_message_comes_again_with_dup_and_its_identifier() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await publish(sensor, b"1")
        await publish(sensor, b"2")
        first, second = await got(viewer), await got(viewer)
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        await viewer.leave()
        viewer = await connected(broker, "viewer", present=True)
        again = await got(viewer)
        assert (again.payload, again.dup) == (b"2", True)
        assert again.packet_id == second.packet_id
        assert await viewer.nothing()


async def test_session_without_expiry_ends_with_its_connection() -> None:
    async with running_broker(VIEWER, store=Volatile()) as broker:
        viewer = await connected(broker, "viewer", properties=Properties())
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert broker.registry.sessions == 0
        assert broker.router.subscriptions == 0
        await connected(broker, "viewer", present=False)


async def test_clean_start_discards_the_session() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publish(sensor, b"for the old one")
        viewer = await connected(broker, "viewer", clean=True)
        assert await viewer.nothing()
        assert broker.router.subscriptions == 0


async def test_session_expires(autojump_clock: trio.abc.Clock) -> None:
    async with running_broker(VIEWER, store=Volatile()) as broker, trio.open_nursery() as nursery:
        nursery.start_soon(broker.registry.sweep)
        viewer = await connected(broker, "viewer")
        await viewer.leave()
        await trio.sleep(50)
        assert broker.registry.sessions == 1
        await trio.sleep(55)
        assert broker.registry.sessions == 0
        assert broker.registry.expired == 1
        nursery.cancel_scope.cancel()


async def test_take_over_tells_the_older_connection_and_keeps_the_session() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        older = await connected(broker, "viewer")
        await subscribe(older, "t/#")
        newer = await connected(broker, "viewer", present=True)
        goodbye = await older.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == ReasonCode.SESSION_TAKEN_OVER
        await publish(sensor, b"x")
        assert (await got(newer)).payload == b"x"
        assert len(broker.registry) == 2


async def test_client_identifier_of_another_principal_is_another_session() -> None:
    rule = allow("mallory", "read", "topic.t.**")
    async with running_broker(SENSOR, VIEWER, rule, store=Volatile()) as broker:
        viewer = await connected(broker, "viewer", "same")
        await subscribe(viewer, "t/#")
        mallory = await connected(broker, "mallory", "same", present=False)
        assert await viewer.nothing()
        assert await mallory.nothing()


async def test_disconnect_may_shorten_the_expiry_and_not_begin_one() -> None:
    async with running_broker(VIEWER, store=Volatile()) as broker:
        viewer = await connected(broker, "viewer")
        await viewer.send(Disconnect(properties=Properties(session_expiry_interval=0)))
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert broker.registry.sessions == 0
        viewer = await connected(broker, "viewer", properties=Properties())
        await viewer.send(Disconnect(properties=Properties(session_expiry_interval=5)))
        goodbye = await viewer.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == ReasonCode.PROTOCOL_ERROR


async def test_without_a_store_no_session_outlives_its_connection_and_connack_says_so() -> None:
    async with running_broker(VIEWER) as broker:
        peer = broker.peer("viewer")
        answer = await peer.greet(Connect(client_id="c", properties=KEPT))
        assert isinstance(answer, Connack)
        assert answer.properties.session_expiry_interval == 0


async def test_expiry_above_the_limit_is_told() -> None:
    limits = BrokerLimits(max_session_expiry_s=10)
    async with running_broker(VIEWER, store=Volatile(), limits=limits) as broker:
        answer = await broker.peer("viewer").greet(Connect(client_id="c", properties=KEPT))
        assert isinstance(answer, Connack)
        assert answer.properties.session_expiry_interval == 10


async def test_grant_revoked_while_away_stops_what_waits() -> None:
    other = allow("viewer", "read", "topic.t.2", rule_id="other")
    async with running_broker(SENSOR, VIEWER, other, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publish(sensor, b"1", topic="t/1")
        await publish(sensor, b"2", topic="t/2")
        broker.change_rules(broker.authority.rules.without_rule("viewer-reads"), reset=False)
        viewer = await connected(broker, "viewer", present=True)
        assert (await got(viewer)).payload == b"2"
        assert await viewer.nothing()


async def test_publisher_is_held_back_by_what_waits_behind_a_full_window() -> None:
    limits = BrokerLimits(max_queued_messages=10, slow_consumer_s=30)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(receive_maximum=1)))
        await subscribe(viewer, "t/#")
        for number in range(1, 31):
            await sensor.send(
                Publish(topic="t/1", payload=bytes([number]), qos=1, packet_id=number)
            )
        await trio.testing.wait_all_tasks_blocked()
        assert broker.services.count.messages_in < 10, "it is not read from"
        for number in range(1, 31):
            message = await got(viewer)
            assert message.payload == bytes([number])
            await viewer.send(Puback(packet_id=message.packet_id or 0))
        assert broker.routing.dead_letters.lost["queue full"] == 0


# -- retained --------------------------------------------------------------------------------


async def test_retained_message_is_replaced_removed_and_sent_to_new_subscriptions() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        for payload in (b"old", b"new"):
            await retain(sensor, payload)
        await subscribe(viewer, "t/#")
        message = await got(viewer)
        assert (message.payload, message.retain, message.qos) == (b"new", True, 1)
        await sensor.send(Publish(topic="t/1", payload=b"live", qos=0, retain=True))
        live = await got(viewer)
        assert (live.payload, live.retain) == (b"live", False)
        await retain(sensor, b"")
        assert (await got(viewer)).payload == b""
        assert len(broker.publishing.retained) == 0
        late = await broker.client("viewer", client_id="late")
        await subscribe(late, "t/#")
        assert await late.nothing()


async def test_retain_handling_and_retain_as_published() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await retain(sensor, b"r")
        await subscribe(viewer, "t/1", retain_handling=2)
        assert await viewer.nothing()
        await subscribe(viewer, "t/1", retain_handling=1)
        assert await viewer.nothing(), "the subscription is not new"
        await subscribe(viewer, "t/1", retain_handling=0, retain_as_published=True)
        assert (await got(viewer)).retain
        await sensor.send(Publish(topic="t/1", payload=b"s", retain=True))
        assert (await got(viewer)).retain


async def test_retained_message_is_sent_to_whom_may_read_its_topic_only() -> None:
    writer = allow("sensor", "write", "topic.**")
    async with running_broker(writer, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await retain(sensor, b"no", topic="secret")
        await retain(sensor, b"yes")
        await subscribe(viewer, "#")
        assert (await got(viewer)).payload == b"yes"
        assert await viewer.nothing()


async def test_retained_messages_are_bounded() -> None:
    limits = BrokerLimits(max_retained_messages=1)
    async with running_broker(SENSOR, limits=limits) as broker:
        sensor = await broker.client("sensor")
        reasons = []
        for topic in ("t/1", "t/2", "t/1"):
            await sensor.send(Publish(topic=topic, payload=b"x", qos=1, packet_id=1, retain=True))
            answer = await sensor.next()
            assert isinstance(answer, Puback)
            reasons.append(answer.reason)
        assert reasons == [ReasonCode.SUCCESS, ReasonCode.QUOTA_EXCEEDED, ReasonCode.SUCCESS]


# -- options ---------------------------------------------------------------------------------


async def test_subscription_identifiers_of_all_matching_filters_come_with_one_copy() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        for identifier, filter_ in ((5, "t/#"), (300, "t/+")):
            await viewer.send(
                Subscribe(
                    packet_id=1,
                    filters=(Subscription(filter=filter_, qos=1),),
                    properties=Properties(subscription_identifiers=(identifier,)),
                )
            )
            await viewer.next()
        for qos in (0, 1):
            await publish(sensor, b"x", qos=qos)
            message = await got(viewer)
            assert sorted(message.properties.subscription_identifiers) == [5, 300]
        assert await viewer.nothing()


async def test_topic_alias_is_used_for_a_client_that_takes_some() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(topic_alias_maximum=2)))
        await subscribe(viewer, "t/#", qos=0)
        sizes = []
        for _ in range(3):
            before = viewer.bytes_received
            await publish(sensor, b"x", qos=0, topic="t/long/topic")
            assert (await got(viewer)).topic == "t/long/topic"
            sizes.append(viewer.bytes_received - before)
        assert sizes[1] == sizes[2] == sizes[0] - len("t/long/topic")


async def test_message_expiry_drops_what_waited_too_long_and_counts_down(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.sleep(0.1)
        for seconds in (2, 10):
            await sensor.send(
                Publish(
                    topic="t/1",
                    payload=bytes([seconds]),
                    qos=1,
                    packet_id=1,
                    properties=Properties(message_expiry_interval=seconds),
                )
            )
            await sensor.next()
        await trio.sleep(4)
        viewer = await connected(broker, "viewer", present=True)
        message = await got(viewer)
        assert message.payload == b"\x0a"
        assert message.properties.message_expiry_interval in (5, 6)
        assert broker.routing.dead_letters.lost["expired"] == 1


async def test_will_waits_for_its_delay_and_a_new_connection_cancels_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    will = Will(topic="t/will", payload=b"gone", properties=Properties(will_delay_interval=5))
    async with (
        running_broker(SENSOR, VIEWER, store=Volatile()) as broker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(broker.registry.sweep)
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        sensor = await connected(broker, "sensor", will=will)
        await sensor.leave()
        await trio.sleep(3)
        sensor = await connected(broker, "sensor", will=will, present=True)
        await trio.sleep(10)
        assert await viewer.nothing(), "the client came back in time"
        await sensor.leave()
        await trio.sleep(8)
        assert (await got(viewer)).payload == b"gone"
        assert await viewer.nothing()
        nursery.cancel_scope.cancel()


async def test_response_information_is_told_to_who_asks() -> None:
    async with running_broker(mqtt=MqttConfig(response_information="re/{principal}")) as broker:
        asked = Properties(request_response_information=True)
        answer = await broker.peer("sensor").greet(Connect(client_id="c", properties=asked))
        assert isinstance(answer, Connack)
        assert answer.properties.response_information == "re/sensor"


# -- shared subscriptions --------------------------------------------------------------------


async def members(broker: TestBroker, count: int, *, qos: int = 1) -> list[Peer]:
    peers = []
    for number in range(count):
        peer = await connected(broker, "viewer", f"member-{number}")
        await subscribe(peer, "$share/g/t/#", qos=qos)
        peers.append(peer)
    return peers


async def test_shared_subscription_gives_each_message_to_one_member() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        peers = await members(broker, 2, qos=0)
        for number in range(6):
            await publish(sensor, bytes([number]), qos=0)
        found = [[(await got(peer)).payload for _ in range(3)] for peer in peers]
        assert sorted(found[0] + found[1]) == [bytes([n]) for n in range(6)]
        for peer in peers:
            assert await peer.nothing()


async def test_unacknowledged_message_of_a_member_that_left_goes_to_another() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        peers = await members(broker, 2)
        for number in range(4):
            await publish(sensor, bytes([number]))
        first = [await got(peers[0]) for _ in range(2)]
        await peers[0].leave()
        found = {(await got(peers[1])).payload for _ in range(4)}
        assert found == {bytes([n]) for n in range(4)}
        assert {m.payload for m in first} < found


async def test_message_for_a_group_that_is_away_waits_for_any_member() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        peers = await members(broker, 2)
        for peer in peers:
            await peer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(4):
            await publish(sensor, bytes([number]))
        back = await connected(broker, "viewer", "member-1", present=True)
        assert sorted([(await got(back)).payload for _ in range(4)]) == [
            bytes([n]) for n in range(4)
        ]


async def test_member_that_may_not_read_a_topic_gets_none_of_its_messages() -> None:
    other = allow("other", "read", "topic.t.2")
    async with running_broker(SENSOR, VIEWER, other, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        stranger = await connected(broker, "other")
        await subscribe(viewer, "$share/g/t/#")
        await subscribe(stranger, "$share/g/t/#")
        for number in range(4):
            await publish(sensor, bytes([number]))
        assert [(await got(viewer)).payload for _ in range(4)] == [bytes([n]) for n in range(4)]
        assert await stranger.nothing()


# -- delayed, dead letters, $SYS ---------------------------------------------------------------


async def test_dead_letter_says_why_a_message_reached_nobody() -> None:
    reader = allow("viewer", "read", "topic.dead.**")
    mqtt = MqttConfig(dead_letter_topic="dead")
    async with (
        running_broker(SENSOR, VIEWER, reader, store=Volatile(), mqtt=mqtt) as broker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(
            broker.routing.dead_letters.run, broker.router, broker.publishing.messages
        )
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "dead/#")
        member = await connected(broker, "viewer", properties=Properties())
        await subscribe(member, "$share/g/t/#", qos=0)
        await member.leave()
        other = await connected(broker, "viewer", "away")
        await subscribe(other, "$share/g/t/#", qos=0)
        await other.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publish(sensor, b"x")
        letter = await got(viewer)
        assert letter.topic == "dead/no-member/t/1"
        assert ("dead-letter-reason", "no member") in letter.properties.user_properties
        nursery.cancel_scope.cancel()


async def test_sys_topics_belong_to_the_broker() -> None:
    everything = allow("sensor", "write", "topic.**")
    async with running_broker(everything) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="$SYS/broker/uptime", qos=1, packet_id=1))
        answer = await sensor.next()
        assert isinstance(answer, Puback)
        assert answer.reason == ReasonCode.NOT_AUTHORIZED


# -- the store -------------------------------------------------------------------------------


async def test_publisher_hears_nothing_until_the_message_is_on_disk() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        sensor = await broker.client("sensor")
        viewer = broker.peer("viewer")
        await viewer.greet(Connect(client_id="c", clean_start=False, properties=KEPT))
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="t/#", qos=1),)))
        assert await viewer.nothing(), "the subscription is not on disk"
        store.settle_all(True)  # noqa: FBT003
        assert isinstance(await viewer.next(), Suback)
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1))
        assert (await got(viewer)).payload == b"x"
        assert await sensor.nothing()
        store.settle_all(True)  # noqa: FBT003
        assert await sensor.next() == Puback(packet_id=1)


async def test_disk_that_cannot_be_written_is_told_to_the_publisher() -> None:
    store = SlowStore()
    async with running_broker(SENSOR, VIEWER, store=store) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=1, packet_id=1, retain=True))
        assert await sensor.nothing()
        store.settle_all(False)  # noqa: FBT003
        answer = await sensor.next()
        assert isinstance(answer, Puback)
        assert answer.reason == ReasonCode.QUOTA_EXCEEDED
        store.why = "disk full"
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=1, packet_id=2))
        refused = await sensor.next()
        assert isinstance(refused, Puback)
        assert refused.reason == ReasonCode.QUOTA_EXCEEDED
        assert "disk full" in (refused.properties.reason_string or "")


async def test_denied_message_of_a_3_1_1_client_is_acknowledged_and_dropped() -> None:
    async with running_broker(VIEWER, deny("sensor", "write", "topic.t.**")) as broker:
        sensor = await broker.client("sensor", version=Version.V311)
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=1))
        assert await sensor.next() == Puback(packet_id=1)
        assert await viewer.nothing()


async def test_message_that_two_hundred_members_may_not_read_is_passed_on_to_the_end() -> None:
    outsiders = allow("outsider", "read", "topic.t.open", rule_id="outsiders")
    async with (
        running_broker(SENSOR, VIEWER, outsiders, store=Volatile()) as broker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(broker.registry.sweep)
        sensor = await broker.client("sensor")
        owner = await connected(broker, "viewer", properties=Properties(session_expiry_interval=2))
        await subscribe(owner, "$share/g/t/#")
        for number in range(200):
            await subscribe(await broker.client("outsider", client_id=f"{number}"), "$share/g/t/#")
        await owner.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publish(sensor, b"secret", topic="t/secret")
        broker.now += 10
        with trio.fail_after(20):
            while broker.registry.sessions > 201:
                await trio.sleep(0.1)
        assert broker.routing.dead_letters.lost["no member"] == 1
        nursery.cancel_scope.cancel()


async def test_dead_letter_of_a_message_with_all_user_properties_can_be_read_back() -> None:
    reader = allow("viewer", "read", "topic.dead.**", rule_id="dead")
    store, mqtt = Rows(), MqttConfig(dead_letter_topic="dead")
    async with (
        running_broker(SENSOR, VIEWER, reader, store=store, mqtt=mqtt) as broker,
        trio.open_nursery() as nursery,
    ):
        letters = broker.routing.dead_letters
        nursery.start_soon(letters.run, broker.router, broker.publishing.messages)
        sensor = await broker.client("sensor")
        await subscribe(await connected(broker, "viewer", "undertaker"), "dead/#")
        refuser = await broker.client("viewer", client_id="refuser")
        await subscribe(refuser, "t/#")
        full = Properties(user_properties=(("a", "b"),) * 1_024)
        await sensor.send(Publish(topic="t/1", payload=b"", qos=1, packet_id=1, properties=full))
        message = await got(refuser)
        refusal = Puback(packet_id=message.packet_id or 0, reason=ReasonCode.UNSPECIFIED_ERROR)
        await refuser.send(refusal)
        await trio.testing.wait_all_tasks_blocked()
        assert len(store.messages) == 1
        for record in store.messages.values():
            message_of(record)
        nursery.cancel_scope.cancel()


async def hear(peer: Peer, payload: bytes) -> float:
    """Seconds until a message arrives; the others before it are passed over."""
    began = trio.current_time()
    with trio.fail_after(60):
        while True:
            try:
                if (await got(peer)).payload == payload:
                    return trio.current_time() - began
            except trio.TooSlowError:
                continue


async def test_message_with_many_subscription_identifiers_is_not_longer_than_the_client_takes() -> (
    None
):
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(maximum_packet_size=2_048)))
        levels = "abcdefghi"
        for number, wild in enumerate(itertools.product((False, True), repeat=len(levels))):
            filter_ = "/".join(
                [
                    "t",
                    *(
                        "+" if is_wild else level
                        for level, is_wild in zip(levels, wild, strict=True)
                    ),
                ]
            )
            identifier = Properties(subscription_identifiers=(200_000_000 + number,))
            wanted = (Subscription(filter=filter_, qos=1),)
            await viewer.send(Subscribe(packet_id=1, filters=wanted, properties=identifier))
            await viewer.next()
        before = viewer.bytes_received
        await publish(sensor, b"x", topic="/".join(["t", *levels]))
        with trio.move_on_after(0.5):
            await viewer.next()
        assert viewer.bytes_received - before <= 2_048
