from __future__ import annotations

import pytest
import trio
import trio.testing

from broker.config import BrokerLimits
from broker.delivery import PARCEL_BYTES
from broker.durability import Volatile
from broker.memory import FREE_BYTES, MemoryBudget, Unfinished
from broker.session import filter_memory
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)
from tests.brokers import TestBroker, allow, running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import SENSOR, VIEWER, connected, got, publish, subscribe

CEILING_BYTES = 1_000


def test_budget_is_spent_above_its_ceiling_only() -> None:
    budget = MemoryBudget(10)
    share = budget.share("viewer")
    found = []
    for used_bytes in (0, 10, 11, 10):
        budget.used_bytes = used_bytes
        found.append(share.spent)
    assert found == [False, False, True, False]


def test_share_is_spent_alone_and_leaves_the_others_theirs() -> None:
    budget = MemoryBudget(100, 10)
    one, other = budget.share("one"), budget.share("other")
    one.used_bytes = budget.used_bytes = 11
    assert (one.spent, other.spent, budget.spent_shares) == (True, False, 1)


@pytest.mark.parametrize(("own", "all_", "pressed"), [(5, 50, False), (6, 6, True), (1, 51, True)])
def test_share_is_pressed_when_half_of_it_or_of_all_is_used(
    own: int, all_: int, *, pressed: bool
) -> None:
    budget = MemoryBudget(100, 10)
    share = budget.share("one")
    share.used_bytes, budget.used_bytes = own, all_
    assert share.pressed is pressed


@pytest.mark.parametrize(("own", "all_", "full"), [(5, 50, False), (6, 6, True), (1, 51, True)])
def test_entries_of_what_is_in_the_store_only_may_take_half_of_a_share_or_of_all(
    own: int, all_: int, *, full: bool
) -> None:
    budget = MemoryBudget(100, 10)
    share = budget.share("one")
    share.entry_bytes, budget.entry_bytes = own, all_
    assert share.full_of_entries is full


def test_unfinished_packets_count_as_waiting_and_may_take_a_quarter() -> None:
    budget = MemoryBudget(32 * FREE_BYTES, 8 * FREE_BYTES)
    one, other = Unfinished(budget.share("one")), Unfinished(budget.share("one"))
    assert one.note(2 * FREE_BYTES)
    assert other.note(FREE_BYTES), "little is nobody's fault"
    assert budget.used_bytes == budget.share("one").used_bytes == 3 * FREE_BYTES
    assert other.note(FREE_BYTES - 1)
    assert not other.note(FREE_BYTES + 1)
    assert one.note(2 * FREE_BYTES - 1), "what becomes less is welcome"
    stranger = Unfinished(budget.share("stranger"))
    assert stranger.note(FREE_BYTES + 1), "it has a share of its own"
    for each in (one, other, stranger):
        each.close()
    assert (budget.used_bytes, budget.unfinished_bytes) == (0, 0)


def test_unfinished_packets_of_all_together_may_take_a_quarter() -> None:
    budget = MemoryBudget(8 * FREE_BYTES)
    found = [Unfinished(budget.share(f"{number}")).note(FREE_BYTES + 1) for number in range(3)]
    assert found == [True, False, False]


def test_topic_filters_are_bounded_in_all_and_for_each_principal() -> None:
    budget = MemoryBudget(10, filters_ceiling_bytes=100, filters_share_bytes=60)
    one, other = budget.share("one"), budget.share("other")
    assert one.has_room_for_filter(60)
    one.count_filters(50)
    assert not one.has_room_for_filter(11)
    assert other.has_room_for_filter(50)
    assert not other.has_room_for_filter(51)
    one.count_filters(-50)
    assert budget.filters_bytes == 0


def test_share_is_one_for_all_queues_of_a_principal_and_gone_with_the_last() -> None:
    budget = MemoryBudget(100, 10)
    one = budget.share("one")
    assert budget.share("one") is one
    one.used_bytes = 11
    assert budget.spent_shares == 1
    del one
    assert budget.spent_shares == 0


async def test_principal_does_not_fill_the_store_with_what_waits_there_only() -> None:
    limits = BrokerLimits(max_queued_messages=1, max_stored_bytes_per_principal=CEILING_BYTES)
    rules = (SENSOR, VIEWER, allow("other", "read", "topic.t.**"))
    async with running_broker(*rules, store=Rows(), limits=limits) as broker:
        sensor = await broker.client("sensor")
        for name in ("viewer-1", "viewer-2", "other"):
            away = await connected(broker, name.partition("-")[0], name)
            await subscribe(away, "t/#")
            await away.leave()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            await publish(sensor, b"x" * 100)
        stored = {
            s.client_id: 0 if s.delivery.overflow is None else s.delivery.overflow.messages
            for s in broker.registry.all_sessions()
        }
        assert stored["viewer-1"] + stored["viewer-2"] == stored["other"] == 9
        for session in broker.registry.all_sessions():
            session.close()
        assert broker.messaging.budget.share("viewer").stored_bytes == 0


async def test_principal_whose_share_is_spent_does_not_hurt_the_others() -> None:
    limits = BrokerLimits(max_waiting_bytes_per_principal=CEILING_BYTES, max_stored_messages=0)
    rules = (SENSOR, VIEWER, allow("other", "read", "topic.t.**"))
    async with running_broker(*rules, store=Volatile(), limits=limits) as broker:
        sensor = await broker.client("sensor")
        for name in ("viewer", "other"):
            away = await connected(broker, name, f"{name}-away")
            await subscribe(away, f"t/{name}")
            await away.leave()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            await publish(sensor, b"x" * 100, topic="t/viewer")
        for _ in range(2):
            await publish(sensor, b"x" * 100, topic="t/other")
        queued = {
            s.principal.name: s.delivery.outgoing.queued for s in broker.registry.all_sessions()
        }
        assert queued["other"] == 2
        assert queued["viewer"] == 3
        assert broker.messaging.budget.spent_shares == 1


def used(broker: TestBroker) -> int:
    return broker.messaging.budget.used_bytes


async def test_sessions_that_are_away_share_one_ceiling_and_what_is_beyond_it_is_told() -> None:
    limits = BrokerLimits(max_waiting_bytes=CEILING_BYTES, max_stored_messages=0)
    async with running_broker(SENSOR, VIEWER, store=Volatile(), limits=limits) as broker:
        sensor = await broker.client("sensor")
        for number in range(10):
            viewer = await connected(broker, "viewer", f"away-{number}")
            await subscribe(viewer, "t/#")
            await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            await publish(sensor, b"x" * 100)
        assert CEILING_BYTES < used(broker) <= CEILING_BYTES + PARCEL_BYTES + 120, (
            "one message may pass it"
        )
        assert broker.routing.dead_letters.lost["queue full"] > 80
        queues = [session.delivery.outgoing for session in broker.registry.all_sessions()]
        assert used(broker) == sum(
            queue.queued_bytes + PARCEL_BYTES * len(queue.parcels()) for queue in queues
        )


async def test_ceiling_is_free_again_when_those_who_were_away_have_taken_their_messages() -> None:
    limits = BrokerLimits(max_waiting_bytes=CEILING_BYTES, max_stored_messages=0)
    async with running_broker(SENSOR, VIEWER, store=Volatile(), limits=limits) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(15):
            await publish(sensor, b"x" * 100)
        waiting = 15 - broker.routing.dead_letters.lost["queue full"]
        assert 0 < waiting < 15
        viewer = await connected(broker, "viewer", present=True)
        for _ in range(waiting):
            message = await got(viewer)
            assert message.payload == b"x" * 100
            await viewer.send(Puback(packet_id=message.packet_id or 0))
        assert await viewer.nothing()
        assert used(broker) == 0
        await publish(sensor, b"fits again")
        assert (await got(viewer)).payload == b"fits again"


async def test_stuck_subscribers_together_hold_no_more_than_the_ceiling_and_one_read_each(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = BrokerLimits(max_waiting_bytes=CEILING_BYTES, slow_consumer_s=1.0)
    async with running_broker(SENSOR, VIEWER, limits=limits) as broker:
        sensor = await broker.client("sensor")
        stuck = [await broker.client("viewer", client_id=f"v{number}") for number in range(5)]
        for viewer in stuck:
            await subscribe(viewer, "t/#", qos=0)
            viewer.link.block()
        for _ in range(60):
            await publish(sensor, b"x" * 100, qos=0)
            await trio.sleep(0.1)
        assert used(broker) <= CEILING_BYTES + 5 * 120
        assert all(
            connection.outlet.lossy
            for connection in broker.registry
            if connection.principal.name == "viewer"
        )
        for viewer in stuck:
            viewer.link.unblock()
        await trio.sleep(1)
        assert used(broker) == 0


async def test_ended_session_gives_its_part_of_the_ceiling_back() -> None:
    async with running_broker(SENSOR, VIEWER, store=Volatile()) as broker:
        sensor = await broker.client("sensor")
        viewer = await connected(broker, "viewer")
        await subscribe(viewer, "t/#")
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publish(sensor, b"x")
        assert used(broker) > 0
        await connected(broker, "viewer", clean=True)
        assert used(broker) == 0


@pytest.mark.parametrize("greeted", [True, False], ids=["session", "CONNECT"])
async def test_client_whose_unfinished_packets_take_too_much_is_told_and_ended(
    *, greeted: bool
) -> None:
    limits = BrokerLimits(max_waiting_bytes_per_principal=4 * FREE_BYTES)
    async with running_broker(SENSOR, limits=limits) as broker:
        peer, innocent = broker.peer("viewer"), await broker.client("sensor")
        if greeted:
            await peer.greet(Connect(client_id="v"))
        long = encode(Publish(topic="t/1", payload=bytes(4 * FREE_BYTES)), Version.V5)
        await peer.send_raw((long if greeted else b"\x10\xff\xff\x03")[: FREE_BYTES // 2])
        if not greeted:
            await peer.send_raw(bytes(FREE_BYTES // 2))
        await trio.testing.wait_all_tasks_blocked()
        assert broker.messaging.budget.unfinished_bytes > 0
        await peer.send_raw(bytes(FREE_BYTES))
        answer = await peer.next()
        assert isinstance(answer, Disconnect if greeted else Connack)
        assert answer.reason is ReasonCode.QUOTA_EXCEEDED
        assert await peer.next() is None
        assert broker.messaging.budget.unfinished_bytes == 0
        await innocent.send(Pingreq())
        assert await innocent.next() == Pingresp()


async def test_session_gives_the_memory_of_its_filters_back() -> None:
    limits = BrokerLimits(max_subscriptions_bytes_per_principal=2_000)
    async with running_broker(VIEWER, limits=limits) as broker:
        first, second = await connected(broker, "viewer", "1"), await broker.client("viewer")
        await subscribe(first, "t/1")
        assert broker.messaging.budget.filters_bytes == filter_memory("t/1")
        await subscribe(first, "t/1")
        assert broker.messaging.budget.filters_bytes == filter_memory("t/1")
        await second.send(
            Subscribe(
                packet_id=1,
                filters=tuple(Subscription(filter=f"t/{n}", qos=0) for n in (2, 3)),
            )
        )
        answer = await second.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.SUCCESS, ReasonCode.QUOTA_EXCEEDED)
        await first.send(Unsubscribe(packet_id=2, filters=("t/1",)))
        await first.next()
        await second.send(Disconnect())
        await trio.testing.wait_all_tasks_blocked()
        assert broker.messaging.budget.filters_bytes == 0


async def test_wills_count_as_waiting_until_they_are_published_or_not() -> None:
    limits = BrokerLimits(max_waiting_bytes_per_principal=3_000)
    will = Will(topic="t/w", payload=bytes(2_000))
    async with running_broker(SENSOR, limits=limits) as broker:
        first, second = broker.peer("sensor"), broker.peer("sensor")
        await first.greet(Connect(client_id="1", will=will))
        assert broker.messaging.budget.used_bytes > 2_000
        refused = await second.greet(Connect(client_id="2", will=will))
        assert isinstance(refused, Connack)
        assert refused.reason is ReasonCode.QUOTA_EXCEEDED
        assert refused.properties.reason_string == "no room for the will"
        await first.send(Disconnect())
        await trio.testing.wait_all_tasks_blocked()
        assert broker.messaging.budget.used_bytes == 0
