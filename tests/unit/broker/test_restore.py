from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf

import pytest
import trio
import trio.testing

from acl.model import Principal
from acl.rules import AclRule
from broker.config import BrokerLimits
from broker.delayed import DelayedPublisher
from broker.records import Restored
from broker.store_load import with_heads
from mqtt.packets import (
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Version,
    Will,
)
from mqtt.runs import Run, run_of
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.durable_rows import Rows
from tests.store_records import a_message, a_queued, a_session
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    connected,
    got,
    publish,
    subscribe,
)

OTHER = allow("other", "read", "topic.t.**", rule_id="other-reads")
RULES = (SENSOR, VIEWER, OTHER)


@asynccontextmanager
async def life_of(rows: Rows) -> AsyncGenerator[TestBroker]:
    """A broker that starts with what the store holds, and goes on to record in it."""
    async with running_broker(*RULES, store=rows, restored=rows.restored()) as broker:
        yield broker


async def everything(peer: Peer) -> list[Packet]:
    """What a client has got: messages and PUBRELs."""
    await trio.testing.wait_all_tasks_blocked()
    await peer.send(Pingreq())
    found: list[Packet] = []
    while not isinstance(packet := await peer.next(), Pingresp):
        assert packet is not None, "the client was disconnected"
        if isinstance(packet, Run):
            found += [packet.packet(index) for index in range(packet.count)]
        else:
            found.append(packet)
    return found


async def left(broker: TestBroker, *peers: Peer) -> None:
    for peer in peers:
        await peer.leave()
    await trio.testing.wait_all_tasks_blocked()


# -- QoS 1 and 2 to a client -----------------------------------------------------------------


async def test_unacknowledged_message_comes_again_with_dup_and_its_identifier() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        for number in range(3):
            await publish(sensor, bytes([number]))
        first, second, third = [await got(viewer) for _ in range(3)]
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        await trio.testing.wait_all_tasks_blocked()
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await connected(broker, "viewer", present=True)
        again = [await got(viewer) for _ in range(2)]
        assert [(m.packet_id, m.payload, m.dup) for m in again] == [
            (second.packet_id, b"\1", True),
            (third.packet_id, b"\2", True),
        ]
        assert await viewer.nothing()


async def test_message_acknowledged_out_of_turn_may_come_again_and_nothing_is_lost() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        for number in range(2):
            await publish(sensor, bytes([number]))
        _, second = [await got(viewer) for _ in range(2)]
        await viewer.send(Puback(packet_id=second.packet_id or 0))
        await trio.testing.wait_all_tasks_blocked()
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert [(await got(viewer)).payload for _ in range(2)] == [b"\0", b"\1"]


async def test_released_message_gets_pubrel_and_never_publish() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        for number in range(3):
            await publish(sensor, bytes([number]), qos=2)
        sent = [await got(viewer) for _ in range(3)]
        await viewer.send(Pubrec(packet_id=sent[1].packet_id or 0))
        await viewer.next()
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await connected(broker, "viewer", present=True)
        again = await everything(viewer)
        ids = [m.packet_id or 0 for m in sent]
        assert again == [
            replace(sent[0], dup=True),
            Pubrel(packet_id=ids[1]),
            replace(sent[2], dup=True),
        ]
        await viewer.send(*(Pubrec(packet_id=each) for each in (ids[0], ids[2])))
        assert await everything(viewer) == [Pubrel(packet_id=ids[0]), Pubrel(packet_id=ids[2])]
        await viewer.send(*(Pubcomp(packet_id=each) for each in ids))
        assert await everything(viewer) == []


async def test_message_that_waited_for_a_client_that_was_away_is_no_duplicate() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        await publish(sensor, b"sent")
        sent = await got(viewer)
        await left(broker, viewer)
        await publish(sensor, b"waits")
    async with life_of(rows) as broker:
        viewer = await connected(broker, "viewer", present=True)
        messages = [await got(viewer) for _ in range(2)]
        assert [(m.payload, m.dup) for m in messages] == [(b"sent", True), (b"waits", False)]
        assert messages[0].packet_id == sent.packet_id
    async with life_of(rows) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert [(await got(viewer)).dup for _ in range(2)] == [True, True], (
            "sent in the life before"
        )


async def test_identifier_of_a_message_that_may_have_been_sent_is_not_given_to_another() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        for number in range(3):
            await publish(sensor, bytes([number]), qos=2)
        await everything(viewer)
    async with life_of(rows) as broker:
        sensor, viewer = (
            await broker.client("sensor"),
            await connected(broker, "viewer", present=True),
        )
        old = {m.packet_id for m in await everything(viewer) if isinstance(m, Publish)}
        await publish(sensor, b"new", qos=2)
        assert len(old) == 3
        assert (await got(viewer)).packet_id not in old


async def test_part_of_a_run_comes_again_as_that_part() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        run = [Publish(topic="t/1", payload=bytes([n]), qos=1, packet_id=n + 1) for n in range(5)]
        await sensor.send(*run)
        messages = [await got(viewer) for _ in range(5)]
        assert len(rows.messages) == 1, "one run, one message"
        await viewer.send(*(Puback(packet_id=m.packet_id or 0) for m in messages[:2]))
        await trio.testing.wait_all_tasks_blocked()
    async with life_of(rows) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert await everything(viewer) == [replace(m, dup=True) for m in messages[2:]]
        await viewer.send(*(Puback(packet_id=m.packet_id or 0) for m in messages[2:]))
        await trio.testing.wait_all_tasks_blocked()
        assert (rows.queued, rows.messages) == ({}, {})


async def test_share_of_a_run_that_a_member_of_a_group_got_is_its_share_again() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor = await broker.client("sensor")
        members = [await connected(broker, "viewer", name) for name in ("a", "b")]
        for member in members:
            await subscribe(member, "$share/g/t/#")
        run = [Publish(topic="t/1", payload=bytes([n]), qos=1, packet_id=n + 1) for n in range(4)]
        await sensor.send(*run)
        shares = {name: await everything(peer) for name, peer in zip("ab", members, strict=True)}
        assert [len(share) for share in shares.values()] == [2, 2]
        killed = rows.after_kill()
    assert {row.first for row in killed.queued.values()} == {0, 2}
    async with life_of(killed) as broker:
        # The first to come back gets what waits for both; together they are what was sent.
        first = await connected(broker, "viewer", "a", present=True)
        again = [m.payload for m in await everything(first) if isinstance(m, Publish)]
        second = await connected(broker, "viewer", "b", present=True)
        again += [m.payload for m in await everything(second) if isinstance(m, Publish)]
        assert sorted(again) == [bytes([n]) for n in range(4)]


async def test_grant_revoked_while_the_broker_was_down_stops_what_waits() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await left(broker, viewer)
        await publish(sensor, b"x")
    rules = (SENSOR, allow("viewer", "read", "topic.t.2"))
    async with running_broker(*rules, store=rows, restored=rows.restored()) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert await viewer.nothing()


# -- QoS 2 from a client ---------------------------------------------------------------------


async def test_identifiers_taken_from_a_client_are_remembered_until_it_releases_them() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await connected(broker, "sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        for packet_id in (7, 8):
            await sensor.send(Publish(topic="t/1", payload=b"x", qos=2, packet_id=packet_id))
            await sensor.next()
        await sensor.send(Pubrel(packet_id=8))
        await sensor.next()
        await left(broker, viewer)
    async with life_of(rows) as broker:
        sensor = await connected(broker, "sensor", present=True)
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=2, packet_id=7, dup=True))
        assert await sensor.next() == Pubrec(packet_id=7)
        await sensor.send(Pubrel(packet_id=7))
        assert await sensor.next() == Pubcomp(packet_id=7)
        await sensor.send(Publish(topic="t/1", payload=b"new", qos=2, packet_id=8))
        assert await sensor.next() == Pubrec(packet_id=8)
        viewer = await connected(broker, "viewer", present=True)
        assert [(await got(viewer)).payload for _ in range(3)] == [b"x", b"x", b"new"]
        assert await viewer.nothing()
    assert {packet_id for _, packet_id in rows.received} == {8}


# -- subscriptions, retained, delayed --------------------------------------------------------


async def test_subscriptions_are_there_with_their_options() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/1", qos=2, retain_as_published=True, no_local=True)
        await subscribe(viewer, "$share/g/t/2", qos=1)
    async with life_of(rows) as broker:
        (session,) = broker.registry.all_sessions()
        found = session.subscriptions["t/1"]
        assert (found.qos, found.no_local, found.retain_as_published) == (2, True, True)
        assert (broker.router.subscriptions, broker.router.shared_subscriptions) == (2, 1)
        sensor = await broker.client("sensor")
        await publish(sensor, b"plain", qos=2, topic="t/1")
        await publish(sensor, b"shared", topic="t/2")
        viewer = await connected(broker, "viewer", present=True)
        assert [((m := await got(viewer)).payload, m.qos) for _ in range(2)] == [
            (b"plain", 2),
            (b"shared", 1),
        ]


async def test_retained_messages_are_there_with_their_publisher_and_age() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        broker.now = 100.0
        sensor = await broker.client("sensor")
        for topic, expiry_s in (("t/1", None), ("t/2", 50)):
            properties = Properties(message_expiry_interval=expiry_s)
            await sensor.send(
                Publish(topic=topic, payload=b"x", retain=True, properties=properties)
            )
        await trio.testing.wait_all_tasks_blocked()
    async with life_of(rows) as broker:
        retained = broker.publishing.retained
        assert len(retained) == broker.publishing.messages.stored == 2
        message = retained.get("t/1")
        assert message is not None
        assert message.publisher == Principal("sensor")
        assert message.received_at >= 100.0
        broker.now = 150.0
        assert retained.get("t/2") is None, "it expired meanwhile"
        assert list(rows.retained) == ["t/1"]


async def test_delayed_message_is_published_once_when_it_is_due() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor = await broker.client("sensor")
        await publish(sensor, b"late", topic="$delayed/60/t/1")
    async with life_of(rows) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        publisher = DelayedPublisher(broker.publishing, broker.routing.faults)
        broker.now = 59.0
        await publisher.publish_due()
        assert await viewer.nothing()
        broker.now = 60.0
        await publisher.publish_due()
        assert (await got(viewer)).payload == b"late"
    assert (rows.delayed, rows.messages) == ({}, {})


# -- sessions and wills ----------------------------------------------------------------------


async def will_after(broker: TestBroker, viewer: Peer, seconds: float) -> bool:
    """Whether the will came within so many seconds."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.registry.sweep)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return [m.payload for m in await everything(viewer) if isinstance(m, Publish)] == [b"gone"]


@pytest.mark.parametrize("expiry_s", [0, 100])
@pytest.mark.parametrize("delay_s", [0, 5])
async def test_will_of_a_client_that_was_connected_becomes_due(
    delay_s: int, expiry_s: int, autojump_clock: trio.abc.Clock
) -> None:
    rows = Rows()
    will = Will(topic="t/will", payload=b"gone", properties=Properties(will_delay_interval=delay_s))
    kept = Properties(session_expiry_interval=expiry_s)
    async with life_of(rows) as broker:
        await connected(broker, "sensor", will=will, properties=kept)
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        wait_s = min(delay_s, expiry_s)
        if wait_s:
            assert not await will_after(broker, viewer, wait_s - 1.5)
        assert await will_after(broker, viewer, wait_s + 1.5)
        assert not await will_after(broker, viewer, 200), "once"


async def test_will_of_a_client_that_comes_back_in_time_is_not_published(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows = Rows()
    will = Will(topic="t/will", payload=b"gone", properties=Properties(will_delay_interval=5))
    async with life_of(rows) as broker:
        await connected(broker, "sensor", will=will)
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await connected(broker, "sensor", present=True)
        assert not await will_after(broker, viewer, 20)


async def test_will_that_was_published_or_taken_back_stays_so() -> None:
    rows = Rows()
    will = Will(topic="t/will", payload=b"gone")
    async with life_of(rows) as broker:
        await left(broker, await connected(broker, "sensor", will=will))
        assert [row.will for row in rows.sessions.values()] == [None]


async def test_expiry_runs_while_the_broker_is_down(autojump_clock: trio.abc.Clock) -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        await left(broker, await connected(broker, "viewer"))
        await trio.sleep(90)
    async with life_of(rows) as broker:
        assert broker.registry.sessions == 1
        viewer = await broker.client("viewer", client_id="other")
        await will_after(broker, viewer, 8)
        assert broker.registry.sessions == 2
        await will_after(broker, viewer, 5)
        assert broker.registry.sessions == 1
    assert rows.sessions == {}


async def test_expiry_of_a_client_that_was_connected_runs_from_the_start(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        await connected(broker, "viewer")
        await trio.sleep(90)
        killed = rows.after_kill()
    async with life_of(killed) as broker:
        viewer = await broker.client("viewer", client_id="other")
        await will_after(broker, viewer, 95)
        assert broker.registry.sessions == 2


async def test_session_that_was_to_end_with_its_connection_gives_back_all_it_held(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await left(broker, viewer)
        await publish(sensor, b"x")
        await connected(broker, "viewer", properties=Properties(), present=True)
        killed = rows.after_kill()
    assert killed.queued
    async with life_of(killed) as broker:
        other = await broker.client("viewer", client_id="other")
        await will_after(broker, other, 3)
        assert broker.registry.sessions == 1
        assert broker.publishing.messages.stored == 0
    assert (killed.sessions, killed.queued, killed.messages) == ({}, {}, {})


async def test_keys_go_on_where_the_earlier_life_ended() -> None:
    rows = Rows()
    async with life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await publish(sensor, b"1")
    async with life_of(rows) as broker:
        sensor = await broker.client("sensor")
        await publish(sensor, b"2")
        await connected(broker, "viewer", "another")
    assert list(rows.messages) == [1, 2]
    assert list(rows.sessions) == [1, 2]


async def test_row_a_session_is_done_with_is_not_counted_as_a_need() -> None:
    row = a_queued(1, 3)
    data = run_of(Publish(topic="t/1", payload=b"x", qos=2), Version.V5).data
    restored = Restored(
        sessions=(a_session(1, client_id="c", settled_below=4),),
        messages=(a_message(1, data=data),),
        queued=(row, replace(row, sequence=4)),
        next_session_id=2,
        next_message_id=2,
    )
    async with running_broker(*RULES, store=Rows.of(restored), restored=restored) as broker:
        (session,) = broker.registry.all_sessions()
        assert [p.sequence for p in session.delivery.outgoing.parcels()] == [4]
        session.close()
        assert broker.publishing.messages.stored == 0


# -- queues longer than memory ---------------------------------------------------------------


@asynccontextmanager
async def short_life_of(
    rows: Rows, *rules: AclRule, most: int = 2, keep: int | None = None
) -> AsyncGenerator[TestBroker]:
    """The same with so many messages of a queue in memory, and with so many at its start."""
    found = rows.restored()
    sizes = {each.message_id: len(each.data) for each in found.messages}
    restored = with_heads(found, sizes, most if keep is None else keep, inf)
    limits = BrokerLimits(max_queued_messages=most)
    async with running_broker(
        *(rules or RULES), store=rows, restored=restored, limits=limits
    ) as broker:
        yield broker


async def fill(rows: Rows) -> None:
    """Six messages for a client that is away, four of them in the store only."""
    async with short_life_of(rows) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await left(broker, viewer)
        for number in range(6):
            await publish(sensor, b"%d" % number)


@pytest.mark.parametrize("keep", [0, 1, 2, 4, 100])
async def test_what_waits_in_the_store_only_comes_in_order_after_a_restart(keep: int) -> None:
    rows = Rows()
    await fill(rows)
    async with short_life_of(rows, keep=keep) as broker:
        (session,) = [s for s in broker.registry.all_sessions() if s.principal.name == "viewer"]
        overflow = session.delivery.overflow
        assert (0 if overflow is None else overflow.messages) == max(6 - keep, 0)
        assert broker.publishing.messages.stored == 6
        viewer = await connected(broker, "viewer", present=True)
        found = [m for m in await everything(viewer) if isinstance(m, Publish)]
        assert [(m.payload, m.packet_id, m.dup) for m in found] == [
            (b"%d" % number, number + 1, False) for number in range(6)
        ]
        await viewer.send(*(Puback(packet_id=m.packet_id or 0) for m in found))
        await trio.testing.wait_all_tasks_blocked()
        assert (rows.queued, rows.messages) == ({}, {})
        assert broker.publishing.messages.stored == 0


async def test_what_waits_in_the_store_only_is_not_taken_for_sent() -> None:
    rows = Rows()
    await fill(rows)
    one_at_a_time = Properties(session_expiry_interval=100, receive_maximum=1)
    async with short_life_of(rows) as broker:
        viewer = await connected(broker, "viewer", present=True, properties=one_at_a_time)
        first = await got(viewer)
        await left(broker, viewer)
    async with short_life_of(rows) as broker:
        viewer = await connected(broker, "viewer", present=True)
        again, *others = [m for m in await everything(viewer) if isinstance(m, Publish)]
        assert again == replace(first, dup=True)
        assert [m.dup for m in others] == [False] * 5


async def test_grant_revoked_while_the_broker_was_down_stops_what_waits_in_the_store_only() -> None:
    rows = Rows()
    await fill(rows)
    async with short_life_of(rows, SENSOR, allow("viewer", "read", "topic.t.2")) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert await viewer.nothing()
        assert (rows.queued, rows.messages) == ({}, {})


async def test_end_of_a_session_takes_what_waits_in_the_store_only_with_it() -> None:
    rows = Rows()
    await fill(rows)
    async with short_life_of(rows) as broker:
        await connected(broker, "viewer", clean=True)
        await trio.testing.wait_all_tasks_blocked()
        assert (rows.queued, rows.messages) == ({}, {})
        assert (broker.publishing.messages.stored, broker.messaging.budget.entry_bytes) == (0, 0)
