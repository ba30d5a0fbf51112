from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from broker import store_load
from broker.records import QueuedRecord, Restored, SessionRecord, WillRecord
from broker.store_batch import Batch
from broker.store_load import load, repaired, with_heads
from broker.store_open import open_database
from broker.store_schema import Database, StoreDamaged, StoreError
from broker.store_write import write
from tests.store_records import (
    DATA,
    KEY,
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
)


def opened(folder: Path, key: bytes | None = KEY) -> Database:
    return open_database(folder / "store.db", key=key, synchronous="off", max_bytes=1 << 30)


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = opened(tmp_path)
    yield database
    database.connection.close()


SOUND = Restored(
    sessions=(
        a_session(1, will=WillRecord(packet=b"will", delay_s=5)),
        a_session(2, settled_below=9, ended_at=17.5),
    ),
    subscriptions=(a_subscription(1, "a"), a_subscription(1, "b"), a_subscription(2, "a")),
    messages=(a_message(1), a_message(2, count=5), a_message(3), a_message(4)),
    queued=(a_queued(1, 1, message_id=1), a_queued(2, 8, message_id=2, first=1, count=4)),
    released=((2, 9), (2, 10)),
    received=((1, 3), (2, 65_535)),
    retained=(a_retained("a", 3), a_retained("b", 1)),
    delayed=(a_delayed(4),),
)


def batch_of(restored: Restored) -> Batch:
    batch = Batch()
    for session in restored.sessions:
        batch.put_session(session)
    for subscription in reversed(restored.subscriptions):
        batch.put_subscription(subscription)
    for message in restored.messages:
        batch.put_message(message)
    for queued in reversed(restored.queued):
        batch.put_queued(queued)
    for session_id, sequence in restored.released:
        batch.put_released(session_id, [sequence])
    for session_id, packet_id in restored.received:
        batch.put_received(session_id, [packet_id])
    for retained in reversed(restored.retained):
        batch.put_retained(retained)
    for delayed in restored.delayed:
        batch.put_delayed(delayed)
    return batch


def without_numbers(restored: Restored) -> Restored:
    return replace(restored, next_session_id=1, next_message_id=1)


@pytest.mark.parametrize("key", [KEY, None])
def test_load_gives_back_everything_in_the_order_of_its_keys(
    tmp_path: Path, key: bytes | None
) -> None:
    database = opened(tmp_path, key)
    assert load(database) == (Restored(), 0)
    write(database, batch_of(SOUND))
    database.connection.close()
    for _ in range(2):
        database = opened(tmp_path, key)
        restored, repairs = load(database)
        assert without_numbers(restored) == SOUND
        assert repairs == 0
        database.connection.close()


def test_load_knows_how_far_a_queue_is_settled(database: Database) -> None:
    write(database, batch_of(SOUND))
    batch = Batch()
    batch.settle(1, 2)
    batch.settle(2, 10)
    write(database, batch)
    restored, repairs = load(database)
    assert [each.settled_below for each in restored.sessions] == [2, 10]
    assert restored.queued == SOUND.queued[1:]
    assert restored.released == ((2, 10),)
    assert repairs == 0


def test_load_never_gives_a_number_twice(tmp_path: Path) -> None:
    database = opened(tmp_path)
    write(database, batch_of(SOUND))
    batch = Batch()
    batch.drop_session(2)
    batch.drop_message(4)
    batch.drop_delayed(4)
    write(database, batch)
    database.connection.close()
    database = opened(tmp_path)
    restored, _ = load(database)
    assert restored.next_session_id > 2
    assert restored.next_message_id > 4
    database.connection.close()


def test_load_repairs_what_refers_to_nothing(database: Database) -> None:
    write(database, batch_of(SOUND))
    stray = Batch()
    stray.put_subscription(a_subscription(8, "a"))
    stray.put_released(8, [1])
    stray.put_received(9, [1])
    stray.put_queued(a_queued(9, 1, message_id=1))
    stray.put_queued(a_queued(1, 20, message_id=77))
    stray.put_queued(a_queued(1, 30, message_id=2, first=3, count=3))
    stray.put_queued(a_queued(2, 1, message_id=2))
    stray.put_retained(a_retained("stray", 78))
    stray.put_delayed(a_delayed(79))
    stray.put_message(a_message(80))
    write(database, stray)
    restored, repairs = load(database)
    assert without_numbers(restored) == SOUND
    assert repairs == 8  # two sessions count as one row each
    assert load(database)[1] == 0


def test_repair_of_something_sound_changes_nothing() -> None:
    left, drops = repaired(SOUND)
    assert left == SOUND
    assert drops.rows == 0


# -- queues longer than memory ---------------------------------------------------------------


def a_queue(*counts: int, group_at: int | None = None, session: SessionRecord) -> Restored:
    """A session with a row of so many messages each, from number 1 on."""
    queued: list[QueuedRecord] = []
    for index, count in enumerate(counts):
        sequence = sum(counts[:index]) + 1
        group = "$share/g/a" if index == group_at else ""
        queued.append(a_queued(1, sequence, count=count, message_id=index + 1, group=group))
    messages = tuple(a_message(index + 1, count=count) for index, count in enumerate(counts))
    return Restored(sessions=(session,), messages=messages, queued=tuple(queued))


def heads(found: Restored, most: float = inf, most_bytes: float = inf) -> tuple[int, int]:
    """How many rows of a queue are in memory, and how many are left in the store."""
    sizes = {each.message_id: len(each.data) for each in found.messages}
    left = with_heads(found, sizes, most, most_bytes)
    assert left.queued == found.queued[: len(left.queued)]
    rest = found.queued[len(left.queued) :]
    assert [each.sequence for each in left.spilled] == [each.sequence for each in rest]
    assert [each.count for each in left.spilled] == [each.count for each in rest]
    return len(left.queued), len(left.spilled)


AWAY = a_session(1, ended_at=17.5)


@pytest.mark.parametrize(
    ("most", "most_bytes", "expected"),
    [
        (inf, inf, (4, 0)),
        (3, inf, (2, 2)),
        (0, inf, (0, 4)),
        (inf, 3 * len(DATA), (2, 2)),
        (1, 3 * len(DATA), (1, 3)),
    ],
)
def test_head_of_a_queue_is_what_fits_memory(
    most: float, most_bytes: float, expected: tuple[int, int]
) -> None:
    assert heads(a_queue(1, 2, 1, 1, session=AWAY), most, most_bytes) == expected


def test_what_may_have_been_sent_is_in_memory_whatever_fits() -> None:
    session = replace(AWAY, next_sequence=3)
    assert heads(a_queue(1, 1, 1, 1, session=session), 0) == (2, 2)


def test_what_was_released_is_in_memory_whatever_fits() -> None:
    found = replace(a_queue(1, 1, 1, 1, session=a_session(1)), released=((1, 1), (1, 3)))
    assert heads(found, 0) == (3, 1)


def test_what_came_by_a_shared_subscription_is_in_memory_whatever_fits() -> None:
    assert heads(a_queue(1, 1, 1, 1, group_at=2, session=AWAY), 0) == (3, 1)


def test_row_that_is_finished_in_part_is_in_memory_whatever_fits() -> None:
    session = a_session(1, settled_below=3)  # its client was connected: nobody knows what was sent
    assert heads(a_queue(4, 1, session=session), 1) == (1, 1)


def test_message_that_is_needed_in_the_store_only_is_not_loaded(database: Database) -> None:
    found = replace(a_queue(1, 1, 1, 1, session=AWAY), retained=(a_retained("a", 4),))
    write(database, batch_of(found))
    restored, repairs = load(database, most=1)
    assert [each.message_id for each in restored.messages] == [1, 4]
    assert restored.messages == (a_message(1), a_message(4))
    assert [(each.message_id, each.size_bytes) for each in restored.spilled] == [
        (2, len(DATA)),
        (3, len(DATA)),
        (4, len(DATA)),
    ]
    assert repairs == 0


def test_packets_of_a_large_store_are_read_twice_and_are_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(database, batch_of(SOUND))
    whole, _ = load(database)
    for held_bytes in (0, 2 * len(DATA)):
        monkeypatch.setattr(store_load, "HELD_BYTES", held_bytes)
        assert load(database) == (whole, 0)


def test_damaged_message_is_refused_also_if_it_is_needed_in_the_store_only(
    database: Database,
) -> None:
    write(database, batch_of(a_queue(1, 1, session=AWAY)))
    database.connection.execute("update message set body = zeroblob(40) where id = 2")
    with pytest.raises(StoreDamaged):
        load(database, most=1)


def test_load_forgets_lives_nothing_was_sealed_in(tmp_path: Path) -> None:
    for life in range(1, 7):
        database = opened(tmp_path)
        load(database)
        if life == 3:
            write(database, batch_of(SOUND))
        known = [number for (number,) in database.connection.execute("select number from life")]
        assert len(known) <= 2
        database.connection.close()
    database = opened(tmp_path)
    assert without_numbers(load(database)[0]) == SOUND
    database.connection.close()


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "clear"])
@pytest.mark.parametrize(
    "change",
    [
        "update message set body = zeroblob(60) where id = 2",
        "update message set id = 99 where id = 2",
        "update session set body = (select body from session where id = 2) where id = 1",
        "update settled set below = 4",
        "update queued set count = 1 where session = 2",
        "update queued set sequence = 7 where session = 2",
        "update released set sequence = 12 where sequence = 10",
        "update received set body = 5",
        "update retained set tag = zeroblob(16) where tag = (select min(tag) from retained)",
        "update delayed set body = 'text'",
        "update subscription set tag = 'text' where session = 2",
    ],
)
def test_load_refuses_a_row_that_is_not_what_was_written(
    tmp_path: Path, key: bytes | None, change: str
) -> None:
    database = opened(tmp_path, key)
    batch = batch_of(SOUND)
    batch.settle(1, 1)
    write(database, batch)
    assert database.connection.execute(change).rowcount > 0
    with pytest.raises(StoreDamaged, match="restore it from a backup"):
        load(database)
    database.connection.close()


def flipped(content: bytes, position: int) -> bytes:
    altered = bytearray(content)
    altered[position] ^= 0x10
    return bytes(altered)


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "clear"])
def test_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path, key: bytes | None) -> None:
    """Some bytes mean nothing (free space, SQLite's counters); all others are noticed."""
    database = opened(tmp_path, key)
    write(database, batch_of(SOUND))
    database.connection.close()
    path = tmp_path / "store.db"
    content = path.read_bytes()
    meaning = [position for position in range(len(content)) if content[position]]
    refused = 0
    for position in meaning[:: max(len(meaning) // 300, 1)]:
        path.write_bytes(flipped(content, position))
        refused += _refused(lambda: opened(tmp_path, key))
        for leftover in tmp_path.glob("store.db-*"):
            leftover.unlink()
    assert refused > 100


def _refused(make: Callable[[], Database]) -> bool:
    try:
        database = make()
    except StoreError:
        return True
    try:
        restored, repairs = load(database)
    except StoreError:
        return True
    finally:
        database.connection.close()
    assert without_numbers(restored) == SOUND
    assert repairs == 0
    return False
