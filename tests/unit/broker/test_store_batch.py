from __future__ import annotations

from broker.store_batch import ROW_BYTES, Batch
from tests.store_records import (
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
)


def test_batch_counts_rows_and_bytes() -> None:
    batch = Batch()
    assert (batch.rows, batch.bytes) == (0, 0)
    batch.put_session(a_session())
    batch.put_subscription(a_subscription())
    batch.put_message(a_message(data=b"x" * 100))
    batch.put_queued(a_queued())
    batch.put_released(1, [1, 2])
    batch.put_received(1, [5])
    batch.put_retained(a_retained())
    batch.put_delayed(a_delayed())
    batch.settle(1, 1)
    batch.drop_session(2)
    assert batch.rows == 11
    assert batch.bytes == 100 + 11 * ROW_BYTES
    assert repr(batch) == "<Batch of 11 rows, 0 wait>"


def test_batch_forgets_a_message_that_came_and_went() -> None:
    batch = Batch()
    batch.put_message(a_message(1))
    batch.put_queued(a_queued(1, 5))
    batch.drop_queued(1, 5)
    batch.drop_message(1)
    assert (batch.rows, batch.bytes) == (0, 0)


def test_batch_drops_what_is_on_disk() -> None:
    batch = Batch()
    batch.drop_message(1)
    batch.drop_queued(1, 5)
    assert batch.messages == {1: None}
    assert list(batch.queued_drops()) == [(1, 5)]


def test_batch_still_drops_a_row_on_disk_whose_replacement_went() -> None:
    batch = Batch()
    batch.drop_queued(1, 5)
    batch.put_queued(a_queued(1, 5))
    assert list(batch.queued_drops()) == []
    batch.drop_queued(1, 5)
    assert list(batch.queued_drops()) == [(1, 5)]
    assert list(batch.queued_puts()) == []


def test_batch_leaves_out_queued_rows_that_are_finished() -> None:
    batch = Batch()
    ended, cut, later = a_queued(1, 1, count=4), a_queued(1, 5, count=4), a_queued(1, 9)
    for record in (ended, cut, later, a_queued(2, 1)):
        batch.put_queued(record)
    batch.settle(1, 7)
    assert list(batch.queued_puts()) == [cut, later, a_queued(2, 1)]
    assert list(batch.queued_drops()) == []


def test_batch_drops_a_finished_replacement_by_its_key() -> None:
    """The row on disk may be longer than what replaced it, so that settling would only cut it."""
    batch = Batch()
    batch.drop_queued(1, 1)
    batch.put_queued(a_queued(1, 1, count=2))
    batch.settle(1, 3)
    assert list(batch.queued_puts()) == []
    assert list(batch.queued_drops()) == [(1, 1)]


def test_batch_settles_forward_only() -> None:
    batch = Batch()
    batch.settle(1, 9)
    batch.settle(1, 4)
    batch.put_released(1, [8, 9])
    assert batch.settled == {1: 9}
    assert list(batch.released_puts()) == [(1, 9)]


def test_batch_takes_everything_of_a_dropped_session_with_it() -> None:
    batch = Batch()
    batch.put_session(a_session(1))
    batch.put_queued(a_queued(1, 1))
    batch.put_released(1, [1])
    batch.settle(1, 1)
    batch.drop_session(1)
    batch.settle(1, 2)
    batch.put_session(a_session(1))
    assert not batch.alive(1)
    assert batch.sessions == {}
    assert batch.settled == {}
    assert list(batch.queued_puts()) == []
    assert list(batch.released_puts()) == []


def test_batch_last_word_counts() -> None:
    batch = Batch()
    batch.put_received(1, [1, 2])
    batch.drop_received(1, [2, 3])
    batch.put_retained(a_retained("a", 1))
    batch.put_retained(a_retained("a", 2))
    batch.drop_retained("b")
    batch.put_delayed(a_delayed(1))
    batch.drop_delayed(1)
    batch.put_subscription(a_subscription(1, "x"))
    batch.drop_subscription(1, "x")
    assert batch.received == {(1, 1): True, (1, 2): False, (1, 3): False}
    assert batch.retained == {"a": a_retained("a", 2), "b": None}
    assert batch.delayed == {1: None}
    assert batch.subscriptions == {(1, "x"): None}


def test_batch_absorbs_what_came_later() -> None:
    called: list[str] = []
    older, newer = Batch(), Batch()
    older.put_message(a_message(1))
    older.put_queued(a_queued(1, 1))
    older.drop_queued(1, 2)
    older.callbacks.append(lambda _: called.append("older"))
    newer.drop_message(1)
    newer.drop_queued(1, 1)
    newer.put_queued(a_queued(1, 2))
    newer.put_message(a_message(2))
    newer.settle(1, 1)
    newer.drop_session(3)
    newer.callbacks.append(lambda _: called.append("newer"))
    older.absorb(newer)
    for callback in older.callbacks:
        callback(True)  # noqa: FBT003  its one fact
    assert called == ["older", "newer"]
    assert older.messages == {2: a_message(2)}
    assert list(older.queued_puts()) == [a_queued(1, 2)]
    assert older.replaced == {(1, 2)}
    assert older.dropped_sessions == {3}
    assert older.data_bytes == len(a_message(2).data)


def test_batch_absorbs_a_replacement_of_its_own_put() -> None:
    older, newer = Batch(), Batch()
    older.put_queued(a_queued(1, 1, count=9))
    newer.drop_queued(1, 1)
    newer.put_queued(a_queued(1, 1, count=2))
    older.absorb(newer)
    assert older.queued == {(1, 1): a_queued(1, 1, count=2)}
    assert older.replaced == set()


def test_batch_still_drops_a_row_on_disk_that_was_replaced_later() -> None:
    older, newer = Batch(), Batch()
    newer.drop_queued(1, 1)
    newer.put_queued(a_queued(1, 1, count=2))
    older.absorb(newer)
    assert list(older.queued_puts()) == [a_queued(1, 1, count=2)]
    older.drop_queued(1, 1)
    assert list(older.queued_drops()) == [(1, 1)]
