from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing
from typing_extensions import override

from broker.delivery import (
    FREE_IN_FLIGHT_BYTES,
    PARCEL_BYTES,
    Delivery,
    Queued,
    QueueLimits,
    Verdict,
)
from broker.durability import Volatile
from broker.faults import Faults
from broker.messages import Message
from broker.overflow import MOST_READ, RETRY_S, SPILLED_BYTES, Overflow, Refiller, Spilled
from broker.records import MessageRecord, QueuedRecord
from broker.store_schema import StoreDamaged, StoreError, StoreUnusable
from tests.durable_rows import Rows
from tests.unit.broker.test_delivery import Bench
from tests.unit.broker.test_messaging import SlowStore

ROOM = 1 << 20


def spilled(*counts: int, size_bytes: int = 10) -> list[Spilled]:
    found: list[Spilled] = []
    sequence = 100
    for number, count in enumerate(counts):
        found.append(Spilled(sequence, count, number + 1, count * size_bytes))
        sequence += count
    return found


def test_overflow_counts_what_comes_and_goes_in_order() -> None:
    first, second = spilled(2, 3)
    overflow = Overflow()
    overflow.add(first)
    overflow.add(second)
    assert (len(overflow), overflow.messages, overflow.bytes) == (2, 5, 50)
    assert overflow.take(first) == second.sequence
    assert (len(overflow), overflow.messages, overflow.bytes) == (1, 3, 30)
    assert overflow.take(second) is None
    assert (len(overflow), overflow.messages, overflow.bytes) == (0, 0, 0)


def test_only_what_is_on_disk_is_read_back() -> None:
    overflow = Overflow()
    entries = spilled(1, 1, 1)
    for each in entries:
        overflow.add(each)
    assert overflow.next(100, ROOM) == []
    overflow.durable_below = entries[1].end
    assert overflow.next(100, ROOM) == entries[:2]


def test_what_an_earlier_life_left_is_on_disk() -> None:
    entries = spilled(1, 2)
    overflow = Overflow(entries)
    assert overflow.next(100, ROOM) == entries == overflow.entries()
    assert overflow.messages == 3


@pytest.mark.parametrize(("messages", "size_bytes", "fit"), [(3, ROOM, 2), (100, 25, 1), (0, 0, 1)])
def test_as_much_is_read_back_as_fits_and_one_in_any_case(
    messages: int, size_bytes: int, fit: int
) -> None:
    entries = spilled(2, 1, 1)
    assert Overflow(entries).next(messages, size_bytes) == entries[:fit]


def test_one_read_is_bounded() -> None:
    entries = spilled(*[1] * (MOST_READ + 5))
    assert Overflow(entries).next(10_000, ROOM) == entries[:MOST_READ]


class Shelf(Volatile):
    """A store whose reads fail as often as it is told to."""

    def __init__(self) -> None:
        self.fails = 0
        self.reads: list[tuple[int, list[int], list[int]]] = []

    @override
    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        await trio.lowlevel.checkpoint()
        self.reads.append((session_id, list(sequences), sorted(message_ids)))
        if self.fails:
            self.fails -= 1
            raise StoreUnusable("the disk sleeps")
        return {}, {}


class Session:
    """One that wants some messages until it gets them."""

    def __init__(self, *wants: Spilled) -> None:
        self.session_id = 7
        self.wants = list(wants)
        self.breaks: StoreError | None = None
        self.got: list[Spilled] = []
        self.gave_up = 0
        self.went_on = 0

    def wanted(self) -> list[Spilled]:
        return self.wants

    def bring(
        self,
        wanted: Sequence[Spilled],
        rows: dict[int, QueuedRecord],
        messages: dict[int, MessageRecord],
    ) -> None:
        if self.breaks is not None:
            broken, self.breaks = self.breaks, None
            raise broken
        self.got += wanted
        self.wants = []

    def bring_nothing(self) -> None:
        self.gave_up += 1

    def go_on(self) -> None:
        self.went_on += 1


async def refilled(shelf: Shelf, session: Session, seconds: float = 10.0) -> Refiller:
    refiller = Refiller(shelf, Faults())
    async with trio.open_nursery() as nursery:
        await nursery.start(refiller.run)
        assert refiller.refill(session)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return refiller


async def test_refiller_reads_what_is_wanted(autojump_clock: trio.testing.MockClock) -> None:
    shelf, entries = Shelf(), spilled(1, 2)
    session = Session(*entries)
    refiller = await refilled(shelf, session)
    assert session.got == entries
    assert shelf.reads == [(7, [100, 101], [1, 2])]
    assert (session.gave_up, refiller.failures) == (0, 0)


async def test_read_that_fails_is_tried_again_ever_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shelf, session = Shelf(), Session(*spilled(1))
    shelf.fails = 3
    refiller = await refilled(shelf, session, seconds=6.5 * RETRY_S)
    assert not session.got, "1 + 2 + 4 seconds"
    assert refiller.failures == 3
    shelf.fails, session.wants = 3, list(spilled(1))
    await refilled(shelf, session, seconds=7.5 * RETRY_S)
    assert session.got


async def test_what_is_no_message_is_a_read_that_failed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = Session(*spilled(1))
    session.breaks = StoreUnusable("no packet")
    refiller = await refilled(Shelf(), session)
    assert (refiller.failures, len(session.got)) == (1, 1)


async def test_session_that_ends_while_it_is_read_is_no_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shelf, session = Shelf(), Session(*spilled(1))
    shelf.fails = 1
    session.session_id = 0
    refiller = await refilled(shelf, session)
    assert (refiller.failures, session.got, session.gave_up) == (0, [], 1)


async def test_session_that_wants_nothing_any_more_is_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shelf, session = Shelf(), Session()
    await refilled(shelf, session)
    assert (shelf.reads, session.gave_up) == ([], 1)


def test_refiller_that_does_not_run_says_so() -> None:
    refiller = Refiller(Shelf(), Faults())
    assert not refiller.refill(Session(*spilled(1)))
    assert not refiller.go_on_later(Session())


async def test_session_goes_on_after_others_had_their_turn() -> None:
    refiller, session = Refiller(Shelf(), Faults()), Session()
    async with trio.open_nursery() as nursery:
        await nursery.start(refiller.run)
        assert refiller.go_on_later(session)
        assert session.went_on == 0
        await trio.testing.wait_all_tasks_blocked()
        assert session.went_on == 1
        nursery.cancel_scope.cancel()


# ---- a delivery with an overflow -------------------------------------------------------------------


def stored(
    *,
    max_queued: int = 2,
    max_queued_bytes: int = 1000,
    max_stored: int = 10,
    max_stored_bytes: int = ROOM,
    ceiling_bytes: int = 1 << 30,
) -> Bench:
    """A kept session whose window takes one message and whose queue two; the rest is in the store."""
    return Bench(
        store=Rows(),
        session_id=1,
        window=1,
        max_queued=max_queued,
        max_queued_bytes=max_queued_bytes,
        max_packet_bytes=max_queued_bytes,
        max_stored=max_stored,
        max_stored_bytes=max_stored_bytes,
        ceiling_bytes=ceiling_bytes,
    )


def read_back(bench: Bench) -> None:
    """What the store's thread does, at once."""
    rows = bench.store
    assert isinstance(rows, Rows)
    wanted = bench.delivery.wanted()
    bench.delivery.bring(
        wanted,
        {each.sequence: rows.queued[1, each.sequence] for each in wanted},
        {each.message_id: rows.messages[each.message_id] for each in wanted},
    )


def payloads(bench: Bench) -> list[bytes]:
    return [payload for _, payload, _ in bench.published()]


def test_what_does_not_fit_the_queue_waits_in_the_store_and_comes_back_in_order() -> None:
    bench = stored()
    for number in range(8):
        bench.give(b"%d" % number)
    overflow = bench.delivery.overflow
    assert overflow is not None
    assert (overflow.messages, bench.delivery.outgoing.queued, bench.lost) == (5, 2, [])
    for packet_id in range(1, 9):
        bench.delivery.acknowledged([packet_id])
        if bench.delivery.wanted():
            read_back(bench)
    assert payloads(bench) == [b"%d" % number for number in range(8)]
    assert bench.ids() == list(range(1, 9))
    assert bench.delivery.overflow is None
    assert bench.refills > 0
    assert (bench.messages.stored, bench.budget.used_bytes) == (0, 0)
    assert isinstance(bench.store, Rows)
    assert not bench.store.messages


def test_packets_that_are_in_the_store_only_are_not_in_memory() -> None:
    bench = stored(max_stored=1000, max_stored_bytes=1 << 30)
    gone: list[weakref.ref[Message]] = []
    for number in range(20):
        message = bench.message(b"%d" % number)
        gone.append(weakref.ref(message))
        bench.give_message(message)
        del message
    assert sum(ref() is not None for ref in gone) == 3, "one under way and two that wait"
    assert bench.budget.used_bytes < 3 * (PARCEL_BYTES + 10) + 17 * SPILLED_BYTES + 1


def test_message_that_waits_for_two_in_the_store_is_one_again_and_goes_with_the_last() -> None:
    one, other = stored(), stored()
    other.store, other.messages = one.store, one.messages
    other.delivery = Delivery(
        one.messages,
        one.store,
        limits=QueueLimits(
            max_queued=2, max_queued_bytes=1000, max_stored=10, max_stored_bytes=1000
        ),
        budget=other.budget.share("viewer"),
        weigh=lambda _queued: Verdict.SEND,
        lost=lambda *_: None,
        hand_over=lambda _parcel: None,
        refill=lambda _delivery: True,
        later=lambda _delivery: True,
        session_id=2,
    )
    message = one.message(b"x")
    queued = Queued(message=message, retain=False, identifiers=(), group="", weighed=0)
    for delivery in (one.delivery, other.delivery):
        for _ in range(4):
            delivery.deliver(queued, qos=1, first=0, count=1)
    del message, queued
    assert one.messages.stored == 1
    other.delivery.close()
    assert one.messages.stored == 1
    for packet_id in range(1, 5):
        one.delivery.acknowledged([packet_id])
        if one.delivery.wanted():
            read_back(one)
    assert payloads(one) == [b"x"] * 4
    assert one.messages.stored == 0


def test_nobody_overtakes_what_is_in_the_store() -> None:
    bench = stored(max_queued=1)
    for payload in (b"1", b"2", b"3"):
        bench.give(payload)
    bench.delivery.acknowledged([1])
    bench.delivery.acknowledged([2])
    assert len(bench.delivery.outgoing) == 0
    bench.give(b"4")
    assert len(bench.delivery.outgoing) == 0
    for packet_id in (3, 4):
        read_back(bench)
        bench.delivery.acknowledged([packet_id])
    assert payloads(bench) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(("messages", "size_bytes"), [(2, ROOM), (10, 20)])
def test_store_only_is_bounded_and_what_is_beyond_is_told(messages: int, size_bytes: int) -> None:
    bench = stored(max_stored=messages, max_stored_bytes=size_bytes)
    for number in range(6):
        bench.give(b"%d" % number)
    assert bench.delivery.overflow is not None
    assert bench.delivery.overflow.messages == 2
    assert bench.lost == [(0, 1, "queue full")]


def test_what_came_by_a_shared_subscription_does_not_wait_in_the_store_only() -> None:
    bench = stored()
    for number in range(4):
        bench.give(b"%d" % number, group="$share/g/t")
    assert bench.delivery.overflow is None
    assert bench.lost == [(0, 1, "queue full")]


def test_session_that_is_not_kept_has_nothing_in_the_store_only() -> None:
    bench = Bench(window=1, max_queued=1, max_stored=10)
    for number in range(3):
        bench.give(b"%d" % number)
    assert bench.delivery.overflow is None
    assert bench.lost == [(0, 1, "queue full")]


def test_half_of_the_ceiling_sends_what_can_wait_to_the_store() -> None:
    bench = stored(max_queued=100, ceiling_bytes=3_000)
    for number in range(10):
        bench.give(b"%d" % number)
    assert bench.delivery.overflow is not None
    assert not bench.lost
    assert bench.delivery.outgoing.queued == 5


def test_ceiling_that_others_have_passed_sends_what_comes_to_the_store() -> None:
    bench = stored(max_queued=100, ceiling_bytes=10_000)
    bench.delivery.detach()
    bench.budget.used_bytes += 20_000
    for number in range(4):
        bench.give(b"%d" % number)
    assert bench.delivery.overflow is not None
    assert (bench.delivery.overflow.messages, bench.lost) == (4, [])


def test_entries_of_what_is_in_the_store_only_have_a_ceiling_too() -> None:
    bench = stored(max_queued=1, ceiling_bytes=8 * SPILLED_BYTES)
    bench.delivery.detach()
    for number in range(10):
        bench.give(b"%d" % number)
    assert bench.delivery.overflow is not None
    assert bench.delivery.overflow.messages == 5
    assert bench.lost == [(0, 1, "queue full")] * 4
    assert bench.budget.entry_bytes == 5 * SPILLED_BYTES
    bench.delivery.close()
    assert (bench.budget.entry_bytes, bench.budget.used_bytes) == (0, 0)


def test_little_is_read_back_while_memory_is_short() -> None:
    payload = b"x" * 30_000
    bench = stored(max_queued=10, max_queued_bytes=1 << 20)
    bench.delivery.detach()
    bench.budget.used_bytes += bench.budget.ceiling_bytes
    for _ in range(8):
        bench.give(payload)
    bench.connect()
    assert len(bench.delivery.wanted()) == FREE_IN_FLIGHT_BYTES // len(payload)
    bench.budget.used_bytes = 0
    assert len(bench.delivery.wanted()) == 8


@pytest.mark.parametrize(
    "harm",
    [
        lambda row, message: (replace(row, message_id=99), message),
        lambda row, message: (replace(row, count=2), replace(message, data=message.data * 2)),
        lambda row, message: (replace(row, first=1), message),
        lambda row, message: (row, replace(message, data=b"no packet")),
    ],
)
def test_what_is_not_what_was_written_stops_the_queue_and_what_is_before_it_is_sent(
    harm: Callable[[QueuedRecord, MessageRecord], tuple[QueuedRecord, MessageRecord]],
) -> None:
    bench = stored()
    bench.delivery.detach()
    for number in range(5):
        bench.give(b"%d" % number)
    bench.connect(window=10)
    rows = bench.store
    assert isinstance(rows, Rows)
    sound = dict(rows.queued), dict(rows.messages)
    first, second = bench.delivery.wanted()
    row, message = rows.queued[1, second.sequence], rows.messages[second.message_id]
    rows.queued[1, second.sequence], rows.messages[second.message_id] = harm(row, message)
    with pytest.raises(StoreDamaged):
        read_back(bench)
    assert payloads(bench) == [b"0", b"1", b"2"]
    assert bench.delivery.overflow is not None
    assert bench.delivery.overflow.entries()[0] == second
    assert bench.refills == 1, "whoever read it tries again, nobody else"
    rows.queued, rows.messages = sound
    read_back(bench)
    assert payloads(bench) == [b"%d" % number for number in range(5)]
    assert first.message_id not in {each.message_id for each in bench.delivery.wanted()}


def test_client_that_is_away_has_nothing_read_back_until_it_comes() -> None:
    bench = stored()
    bench.delivery.detach()
    for number in range(6):
        bench.give(b"%d" % number)
    assert bench.delivery.wanted() == []
    bench.connect(window=10)
    assert payloads(bench) == [b"0", b"1"]
    read_back(bench)
    assert bench.ids() == [1, 2, 3, 4]
    read_back(bench)
    assert bench.ids() == [1, 2, 3, 4, 5, 6]


def test_end_of_a_session_drops_its_messages_in_the_store_too() -> None:
    bench = stored()
    for number in range(6):
        bench.give(b"%d" % number)
    bench.delivery.close()
    assert (bench.messages.stored, bench.budget.used_bytes) == (0, 0)
    assert isinstance(bench.store, Rows)
    assert not bench.store.messages
    bench.delivery.bring([], {}, {})  # a read that was under way


def test_read_that_gave_up_is_begun_again_by_what_makes_room() -> None:
    bench = stored()
    for number in range(6):
        bench.give(b"%d" % number)
    assert bench.refills == 0, "there is no room"
    bench.delivery.acknowledged([1])
    assert bench.refills == 1
    bench.delivery.acknowledged([2])
    assert bench.refills == 1, "one read at a time"
    bench.delivery.bring_nothing()
    bench.delivery.pump()
    assert bench.refills == 2


def test_word_of_an_earlier_commit_that_comes_late_takes_nothing_back() -> None:
    store = SlowStore()
    bench = Bench(store=store, session_id=1, window=1, max_queued=2, max_stored=10)
    for number in range(6):
        bench.give(b"%d" % number)
    overflow = bench.delivery.overflow
    assert overflow is not None
    last = overflow.entries()[-1].end
    for told in reversed(store.waiting):
        told(True)  # noqa: FBT003  a callback's one fact
    assert overflow.durable_below == last
