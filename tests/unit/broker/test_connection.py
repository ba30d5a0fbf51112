from __future__ import annotations

import time

import pytest
import trio
import trio.testing

import broker.connection
import broker.enhanced_auth
from acl.rules import RuleSet
from broker.config import BrokerLimits
from broker.connection import LOOKS
from broker.durability import Volatile
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from mqtt.runs import Run
from tests.brokers import LOOKS_A_ROUND, Peer, allow, deny, running_broker
from tests.unit.broker.test_messaging import KEPT, SENSOR, VIEWER, SlowStore, connected


async def subscribe(peer: Peer, *filters: str, qos: int = 0) -> tuple[ReasonCode, ...]:
    subscriptions = tuple(Subscription(filter=f, qos=qos) for f in filters)
    await peer.send(Subscribe(packet_id=1, filters=subscriptions))
    answer = await peer.next()
    assert isinstance(answer, Suback)
    return answer.reasons


async def test_run_reaches_a_subscriber_as_the_bytes_that_came() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        assert await subscribe(viewer, "t/#") == (0,)
        block = encode(Publish(topic="t/1", payload=b"x" * 100), Version.V5) * 50
        await sensor.send_raw(block)
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.data == block
        assert broker.services.count.messages_in == 50
        assert broker.router.messages_out == 50


async def test_run_is_converted_between_versions() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor = await broker.client("sensor")
        viewer = await broker.client("viewer", version=Version.V311)
        assert await subscribe(viewer, "t/+") == (0,)
        await sensor.send(*(Publish(topic="t/1", payload=bytes([i])) for i in range(5)))
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.payloads() == [bytes([i]) for i in range(5)]


async def test_second_run_on_a_topic_asks_nobody() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await sensor.send(Publish(topic="t/1"))
        await viewer.next()
        asked = broker.authority.asked
        await sensor.send(*[Publish(topic="t/1")] * 10)
        await viewer.next()
        assert broker.authority.asked == asked
        assert broker.authorizer.stats.l1_allow >= 10


async def test_denied_qos_0_is_dropped_and_audited_as_one_event_per_run() -> None:
    async with running_broker(VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await sensor.send(*[Publish(topic="t/1")] * 7, Pingreq())
        assert isinstance(await sensor.next(), Pingresp), "the sensor stays connected"
        assert await viewer.nothing()
        assert broker.publishing.denied == 7
        broker.audit.close()
        events = [record.event for record in broker.audit.recent]
        (event,) = [e for e in events if e.action == "publish"]
        assert (event.principal, event.resource, event.count) == ("sensor", "topic.t.1", 7)
        assert event.decision_id.startswith("d-")


async def test_denied_qos_1_is_told_the_decision_id_and_nothing_about_rules() -> None:
    async with running_broker(VIEWER, deny("sensor", "write", "topic.t.**")) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=5))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert (puback.packet_id, puback.reason) == (5, ReasonCode.NOT_AUTHORIZED)
        text = puback.properties.reason_string or ""
        assert text.startswith("not authorized, decision d-")
        assert "topic.t" not in text


async def test_qos_1_is_delivered_at_the_lower_qos_and_acknowledged() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor = await broker.client("sensor")
        low, high = (
            await broker.client("viewer", client_id="a"),
            await broker.client("viewer", client_id="b"),
        )
        await subscribe(low, "t/#", qos=0)
        assert await subscribe(high, "t/#", qos=2) == (2,)
        await sensor.send(Publish(topic="t/1", payload=b"m", qos=1, packet_id=9))
        first, second = await low.next(), await high.next()
        assert isinstance(first, Run)
        assert isinstance(second, Publish)
        assert (second.qos, second.packet_id, second.dup) == (1, 1, False)
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.SUCCESS


async def test_qos_1_without_subscribers_says_so() -> None:
    async with running_broker(SENSOR) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=9))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.NO_MATCHING_SUBSCRIBERS


async def test_receive_maximum_of_a_client_is_respected_and_the_queue_is_bounded() -> None:
    limits = BrokerLimits(max_queued_messages=2)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(receive_maximum=1)))
        await subscribe(viewer, "t/#", qos=1)
        for number in range(1, 6):
            await sensor.send(
                Publish(topic="t/1", payload=bytes([number]), qos=1, packet_id=number)
            )
            await sensor.next()
        got = []
        for _ in range(3):
            message = await viewer.next()
            assert isinstance(message, Publish)
            assert message.packet_id is not None
            got.append(message.payload)
            assert await viewer.nothing(), "one unacknowledged message at a time"
            await viewer.send(Puback(packet_id=message.packet_id))
        assert got == [b"\x01", b"\x02", b"\x03"], "two queued, two dropped"


async def test_subscription_is_refused_where_nothing_inside_may_be_read() -> None:
    async with running_broker(VIEWER) as broker:
        viewer = await broker.client("viewer")
        reasons = await subscribe(viewer, "t/#", "#", "secret/+", "t/+/x", "$share/g/t/#")
        assert reasons == (
            0,
            0,
            ReasonCode.NOT_AUTHORIZED,
            0,
            0,
        )


async def test_wide_subscription_never_leaks_what_the_rules_do_not_allow() -> None:
    writer = allow("sensor", "write", "topic.**")
    async with running_broker(writer, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        assert await subscribe(viewer, "#") == (0,)
        await sensor.send(
            Publish(topic="private/1", payload=b"no"), Publish(topic="t/1", payload=b"yes")
        )
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.payloads() == [b"yes"]
        assert await viewer.nothing()


async def test_revoked_grant_stops_delivery_with_the_next_message() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await sensor.send(Publish(topic="t/1", payload=b"1"))
        await viewer.next()
        broker.change_rules(broker.authority.rules.without_rule("viewer-reads"), reset=False)
        await sensor.send(Publish(topic="t/1", payload=b"2"))
        assert await viewer.nothing()


async def test_without_contact_everything_is_denied_after_the_staleness_bound(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR) as broker, trio.open_nursery() as nursery:
        nursery.start_soon(broker.guard.watch_contact)
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=1))
        before = await sensor.next()
        broker.guard.on_contact(False, "the controller is gone")  # noqa: FBT003
        await trio.sleep(29)
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=2))
        within = await sensor.next()
        await trio.sleep(2)
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=3))
        after = await sensor.next()
        broker.guard.on_contact(True, "")  # noqa: FBT003
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=4))
        again = await sensor.next()
        reasons = [p.reason for p in (before, within, after, again) if isinstance(p, Puback)]
        fine = ReasonCode.NO_MATCHING_SUBSCRIBERS
        assert reasons == [fine, fine, ReasonCode.NOT_AUTHORIZED, fine]
        nursery.cancel_scope.cancel()


async def test_connect_without_a_policy_is_refused_as_unavailable() -> None:
    async with running_broker() as broker:
        broker.authorizer.withdraw("no contact")
        answer = await broker.peer("sensor").greet(Connect(client_id="c"))
        assert isinstance(answer, Connack)
        assert answer.reason == ReasonCode.SERVER_UNAVAILABLE


async def test_connect_needs_a_rule() -> None:
    async with running_broker(deny("mallory", "connect", "broker.*")) as broker:
        peer = broker.peer("mallory")
        answer = await peer.greet(Connect(client_id="c"))
        assert isinstance(answer, Connack)
        assert answer.reason == ReasonCode.NOT_AUTHORIZED
        assert await peer.next() is None
        old = broker.peer("mallory")
        old.version = Version.V311
        await old.send_raw(encode(Connect(client_id="c", version=Version.V311), Version.V311))
        assert await old.next() == Connack(reason=ReasonCode.NOT_AUTHORIZED)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\x30\x05\x00\x03a/#", ReasonCode.TOPIC_NAME_INVALID),
        (b"\xf1\x00", ReasonCode.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\x7f", ReasonCode.PACKET_TOO_LARGE),
    ],
)
async def test_protocol_error_ends_that_client_only_and_says_why(
    garbage: bytes, reason: ReasonCode
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        bad, good = await broker.client("sensor"), await broker.client("viewer")
        await bad.send_raw(garbage)
        goodbye = await bad.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == reason
        assert await bad.next() is None
        await good.send(Pingreq())
        assert isinstance(await good.next(), Pingresp)
        assert len(broker.registry) == 1


async def test_garbage_before_connect_closes_without_a_session() -> None:
    async with running_broker() as broker:
        peer = broker.peer("sensor")
        await peer.send_raw(b"GET / HTTP/1.1\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.link.closed.is_set()
        assert len(broker.registry) == 0


async def test_client_that_never_sends_connect_is_let_go(autojump_clock: trio.abc.Clock) -> None:
    async with running_broker() as broker:
        peer = broker.peer("sensor")
        await trio.sleep(broker.services.limits.connect_deadline_s + 1)
        assert peer.link.closed.is_set()


async def test_unsubscribe_stops_delivery_and_says_what_existed() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await viewer.send(Unsubscribe(packet_id=2, filters=("t/#", "t/1")))
        answer = await viewer.next()
        assert isinstance(answer, Unsuback)
        assert answer.reasons == (ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED)
        await sensor.send(Publish(topic="t/1"))
        assert await viewer.nothing()


async def test_no_local_keeps_a_clients_own_messages_from_it() -> None:
    both = allow("sensor", "read,write", "topic.t.**")
    async with running_broker(both) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(
            Subscribe(packet_id=1, filters=(Subscription(filter="t/#", no_local=True),))
        )
        await sensor.next()
        await sensor.send(Publish(topic="t/1"), Publish(topic="t/1", qos=1, packet_id=1))
        answer = await sensor.next()
        assert isinstance(answer, Puback)
        assert await sensor.nothing()


async def test_overlapping_filters_deliver_one_copy() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", "t/+", "t/1")
        await sensor.send(Publish(topic="t/1"))
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.count == 1
        assert await viewer.nothing()


async def test_will_is_published_when_a_client_vanishes_and_only_then() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        will = Will(topic="t/gone", payload=b"bye")
        for polite in (True, False):
            peer = broker.peer("sensor")
            await peer.greet(Connect(client_id="s", will=will))
            if polite:
                await peer.send(Disconnect())
            await peer.leave()
            if polite:
                assert await viewer.nothing()
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.payloads() == [b"bye"]


async def test_will_needs_the_right_to_publish() -> None:
    async with running_broker(VIEWER) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        peer = broker.peer("sensor")
        await peer.greet(Connect(client_id="s", will=Will(topic="t/gone", payload=b"bye")))
        await peer.leave()
        assert await viewer.nothing()


async def test_take_over_tells_the_older_client() -> None:
    async with running_broker() as broker:
        older = await broker.client("sensor", client_id="same")
        newer = await broker.client("sensor", client_id="same")
        goodbye = await older.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == ReasonCode.SESSION_TAKEN_OVER
        await newer.send(Pingreq())
        assert isinstance(await newer.next(), Pingresp)


async def test_connections_above_the_bound_are_refused() -> None:
    async with running_broker(limits=BrokerLimits(max_connections=1)) as broker:
        await broker.client("sensor")
        answer = await broker.peer("viewer").greet(Connect(client_id="v"))
        assert isinstance(answer, Connack)
        assert answer.reason == ReasonCode.SERVER_BUSY


async def test_session_gives_everything_back_when_it_ends() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert broker.router.subscriptions == 0
        assert len(broker.registry) == 0
        assert broker.authorizer.sizes().connections == 0


async def test_rules_may_be_added_while_clients_are_connected() -> None:
    async with running_broker(VIEWER) as broker:
        sensor = await broker.client("sensor")
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=1))
        refused = await sensor.next()
        rules: RuleSet = broker.authority.rules.with_rule(SENSOR)
        broker.change_rules(rules)
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=2))
        accepted = await sensor.next()
        assert isinstance(refused, Puback)
        assert isinstance(accepted, Puback)
        assert refused.reason == ReasonCode.NOT_AUTHORIZED
        assert accepted.reason == ReasonCode.NO_MATCHING_SUBSCRIBERS


async def test_disconnect_with_an_error_keeps_the_will() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        peer = broker.peer("sensor")
        await peer.greet(Connect(client_id="s", will=Will(topic="t/gone", payload=b"bye")))
        await peer.send(Disconnect(reason=ReasonCode.UNSPECIFIED_ERROR))
        run = await viewer.next()
        assert isinstance(run, Run)
        assert run.payloads() == [b"bye"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_will_with_a_delay_reaches_subscribers_and_harms_none(qos: int) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        viewer = broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(receive_maximum=1)))
        await subscribe(viewer, "t/#", qos=qos)
        for _ in range(2):  # the second waits in the viewer's queue when QoS is 1
            peer = broker.peer("sensor")
            will = Will(
                topic="t/gone",
                payload=b"bye",
                qos=qos,
                properties=Properties(will_delay_interval=9),
            )
            await peer.greet(Connect(client_id="s", will=will))
            await peer.leave()
            await trio.testing.wait_all_tasks_blocked()
            message = await viewer.next()
            assert isinstance(message, Run | Publish)
            if isinstance(message, Publish):
                assert message.packet_id is not None
                await viewer.send(Puback(packet_id=message.packet_id))
        assert len(broker.registry) == 1


async def test_client_is_told_when_the_broker_stops() -> None:
    async with running_broker(SENSOR) as broker:
        sensor = await broker.client("sensor")
        broker.stop()
        with trio.CancelScope(shield=True):
            goodbye = await sensor.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason == ReasonCode.SERVER_SHUTTING_DOWN


async def test_reason_string_never_makes_a_packet_longer_than_the_client_takes() -> None:
    async with running_broker() as broker:
        sensor = broker.peer("sensor")
        await sensor.greet(Connect(client_id="s", properties=Properties(maximum_packet_size=45)))
        await sensor.send(Publish(topic="t/1", qos=1, packet_id=5))
        assert await sensor.next() == Puback(packet_id=5, reason=ReasonCode.NOT_AUTHORIZED)
        await sensor.send(Subscribe(packet_id=6, filters=(Subscription(filter="t/1"),)))
        assert await sensor.next() == Suback(packet_id=6, reasons=(ReasonCode.NOT_AUTHORIZED,))


async def test_client_that_takes_no_answers_is_not_read_from() -> None:
    async with running_broker(limits=BrokerLimits(max_queued_bytes=4096)) as broker:
        sensor = await broker.client("sensor")
        sensor.link.block()
        for _ in range(100):
            await sensor.send_raw(encode(Pingreq(), Version.V5) * 1000)
        await trio.testing.wait_all_tasks_blocked()
        (session,) = broker.registry
        assert session.outlet.queued_bytes <= 4096 + 2
        sensor.link.unblock()
        for _ in range(100_000):
            assert isinstance(await sensor.next(), Pingresp), "nothing is lost"


async def test_burst_of_one_client_leaves_others_their_turns() -> None:
    burst, longest = 20_000, 0
    answer_bytes = len(encode(Pingresp(), Version.V5))
    async with running_broker() as broker:
        sensor = await broker.client("sensor")
        (session,) = broker.registry
        start = last = session.outlet.sent_bytes
        await sensor.send_raw(encode(Pingreq(), Version.V5) * burst)
        while last < start + burst * answer_bytes:
            await trio.lowlevel.checkpoint()
            longest = max(longest, session.outlet.sent_bytes - last)
            last = session.outlet.sent_bytes
        most = 2 * (LOOKS_A_ROUND + 1) * len(LOOKS)
        assert longest <= most * answer_bytes, "two turns may meet, not thirty"


async def test_one_who_says_little_does_not_wait_for_twenty_floods() -> None:
    burst, floods = 4_000, 20
    answer_bytes = len(encode(Pingresp(), Version.V5))
    async with running_broker() as broker:
        small = await broker.client("small")
        flooders = [await broker.client("sensor", client_id=f"{n}") for n in range(floods)]
        sessions = [session for session in broker.registry if session.principal.name == "sensor"]

        def answered() -> int:
            return sum(session.outlet.sent_bytes for session in sessions) // answer_bytes

        for flooder in flooders:
            await flooder.send_raw(encode(Pingreq(), Version.V5) * burst)
        while answered() < burst:  # they are all under way
            await trio.lowlevel.checkpoint()
        before = answered()
        await small.send(Pingreq())
        assert isinstance(await small.next(), Pingresp)
        turn = (LOOKS_A_ROUND + 1) * len(LOOKS)
        assert answered() - before <= 6 * turn, "some rounds, not a turn of every flood"
        assert answered() < floods * burst, "they flood still"


async def test_publisher_waits_once_for_many_slow_subscribers_and_is_not_called_silent(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = BrokerLimits(max_queued_bytes=4096, slow_consumer_s=2.0)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker, trio.open_nursery() as n:
        n.start_soon(broker.registry.sweep)
        for number in range(5):
            viewer = await broker.client("viewer", client_id=f"v{number}")
            await subscribe(viewer, "t/#")
            viewer.link.block()
        sensor = broker.peer("sensor")
        await sensor.greet(Connect(client_id="s", keep_alive=1))
        await sensor.send(Publish(topic="t/1", payload=b"x" * 10_000))
        await sensor.send(Publish(topic="t/1", payload=b"x" * 10_000))
        await sensor.send(Pingreq())
        started = trio.current_time()
        assert isinstance(await sensor.next(), Pingresp)
        assert trio.current_time() - started == 2.0
        n.cancel_scope.cancel()


async def test_subscriber_left_out_for_want_of_an_answer_is_not_left_out_for_ever(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        message = Publish(topic="t/1", qos=1, packet_id=1)
        await subscribe(viewer, "t/2")
        await sensor.send(message)
        await sensor.next()
        await subscribe(viewer, "t/+")
        broker.authority.silent = True
        await sensor.send(message)
        answer = await sensor.next()
        assert isinstance(answer, Puback)
        assert answer.reason == ReasonCode.NO_MATCHING_SUBSCRIBERS, (
            "denied: nobody answered in time"
        )
        broker.authority.silent = False
        await sensor.send(message)
        assert isinstance(await viewer.next(), Run)


@pytest.mark.parametrize("first", [b"\x62", b"\x50"], ids=["PUBREL", "PUBREC"])
async def test_client_that_takes_no_answers_to_acknowledgements_is_not_read_from(
    first: bytes,
) -> None:
    limits = BrokerLimits(max_queued_bytes=4096, slow_consumer_s=0.01)
    async with running_broker(limits=limits) as broker:
        client = await broker.client("sensor")
        client.link.block()
        for _ in range(30):
            await client.send_raw((first + b"\2\0\1") * 2_000)
        await trio.sleep(0.5)
        (connection,) = broker.registry
        assert connection.outlet.queued_bytes <= 4096 + 2 * 2_000 * 5, "two reads at most"


@pytest.mark.parametrize("rounds", range(6))
async def test_session_is_left_though_the_loop_stood_still_for_longer_than_a_farewell(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker.connection, "FAREWELL_S", 0.02)
    async with running_broker(SENSOR, store=Volatile()) as house:
        sensor = await connected(house, "sensor")
        await sensor.send_raw(b"\0\0")
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        time.sleep(0.1)
        await trio.sleep(0.2)
        assert len(house.registry) == 0


async def test_older_connection_does_nothing_to_the_session_of_its_successor() -> None:
    store, will = SlowStore(), Will(topic="t/will", payload=b"gone")
    async with running_broker(SENSOR, store=store) as broker:
        await (await connected(broker, "sensor")).leave()
        await trio.testing.wait_all_tasks_blocked()
        older, newer = broker.peer("sensor"), broker.peer("sensor")
        goodbye = Disconnect(properties=Properties(session_expiry_interval=1))
        await older.send(Connect(client_id="c", clean_start=True, properties=KEPT), goodbye)
        await trio.testing.wait_all_tasks_blocked()
        await newer.send(Connect(client_id="c", properties=KEPT, will=will))
        await trio.testing.wait_all_tasks_blocked()
        store.settle_all(durable=True)
        await trio.testing.wait_all_tasks_blocked()
        (session,) = broker.registry.all_sessions()
        assert session.will is not None
        assert session.expiry_s == 100
