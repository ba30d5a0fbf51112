from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from broker.records import Restored
from broker.store import CALLS_A_TURN, Store, StoreError, SyncMode
from tests.store_records import (
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
    open_store,
    running,
)

pytestmark = pytest.mark.timeout(30)


def stored(path: Path) -> Restored:
    store = open_store(path)
    try:
        return replace(store.load(), next_session_id=1, next_message_id=1)
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


# ---- durable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", SyncMode)
async def test_store_keeps_what_it_called_durable(path: Path, sync: SyncMode) -> None:
    async with running(open_store(path, sync=sync)) as store:
        store.put_session(a_session())
        store.put_subscription(a_subscription())
        store.put_message(a_message())
        store.put_queued(a_queued())
        store.put_released(1, [1])
        store.put_received(1, [3])
        store.put_retained(a_retained())
        store.put_delayed(a_delayed())
        assert await store.flush()
        assert (store.pending_rows, store.pending_bytes, store.failing) == (0, 0, "")
        assert (store.commits, store.failed_commits, store.written_rows) == (1, 0, 8)
    assert stored(path) == Restored(
        sessions=(a_session(),),
        subscriptions=(a_subscription(),),
        messages=(a_message(),),
        queued=(a_queued(),),
        released=((1, 1),),
        received=((1, 3),),
        retained=(a_retained(),),
        delayed=(a_delayed(),),
    )


async def test_store_drops_what_it_was_told_to(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_session(a_session(1))
        store.put_session(a_session(2))
        store.put_subscription(a_subscription(1, "a"))
        store.put_subscription(a_subscription(2, "b"))
        store.put_message(a_message(1))
        store.put_message(a_message(2))
        store.put_queued(a_queued(2, 1))
        store.put_queued(a_queued(2, 2))
        store.put_received(2, [1])
        store.put_retained(a_retained("t", 2))
        store.put_delayed(a_delayed(2))
        await store.flush()
        store.drop_session(1)
        store.drop_subscription(2, "b")
        store.drop_queued(2, 1)
        store.settle(2, 3)
        store.drop_received(2, [1])
        store.drop_retained("t")
        store.drop_delayed(2)
        store.drop_message(1)
        store.drop_message(2)
        assert await store.flush()
    assert stored(path) == Restored(sessions=(replace(a_session(2), settled_below=3),))


async def test_store_commits_at_its_end_what_nobody_waited_for(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_session(a_session())
    assert stored(path).sessions == (a_session(),)
    store.put_session(a_session(2))
    assert await store.flush() is False


async def test_store_writes_what_nobody_waits_for_before_long(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_session(a_session())
        await wait_until(lambda: store.commits == 1)
        assert store.pending_rows == 0


async def test_store_writes_rows_nobody_waits_for_along_with_others(path: Path) -> None:
    async with running(open_store(path)) as store:
        for number in range(1, 11):
            store.drop_message(number)
            await trio.lowlevel.checkpoint()
        store.put_session(a_session())
        await store.flush()
        assert store.commits == 1
        assert store.written_rows == 11


async def test_store_never_touches_the_disk_for_what_came_and_went(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_message(a_message())
        store.put_queued(a_queued())
        told: list[bool] = []
        store.when_durable(told.append)
        store.drop_queued(1, 1)
        store.drop_message(1)
        assert await store.flush()
        assert told == [True]
        assert store.commits == 0


async def test_store_commits_together_what_came_together(path: Path) -> None:
    notes: list[int] = []
    store = open_store(path, note_commit=lambda _seconds, rows: notes.append(rows))
    async with running(store):
        for number in range(1, 101):
            store.put_message(a_message(number))
            store.when_durable(lambda _: None)
        await store.flush()
    assert notes == [100]


async def wait_until(true: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not true():
            await trio.lowlevel.checkpoint()


# ---- telling -----------------------------------------------------------------------------------


async def test_store_tells_in_order_and_once(path: Path) -> None:
    told: list[int] = []

    def note(number: int, durable: bool) -> None:  # noqa: FBT001  a callback's one fact
        assert durable
        told.append(number)

    async with running(open_store(path)) as store:
        for number in range(10 * CALLS_A_TURN):
            if number % 3 == 0:
                store.put_message(a_message(number + 1))
            store.when_durable(partial(note, number))
            if number % 50 == 0:
                await trio.lowlevel.checkpoint()
        await store.flush()
    assert told == list(range(10 * CALLS_A_TURN))


async def test_store_tells_at_once_when_nothing_is_pending(path: Path) -> None:
    async with running(open_store(path)) as store:
        told: list[bool] = []
        store.when_durable(told.append)
        assert told == [True]
        assert await store.flush()
        assert store.commits == 0


async def test_store_callback_may_record_and_wait_again(path: Path) -> None:
    told: list[str] = []

    def first(durable: bool) -> None:  # noqa: FBT001  a callback's one fact
        told.append(f"first {durable}")
        store.put_message(a_message(2))
        store.when_durable(lambda durable: told.append(f"again {durable}"))

    async with running(open_store(path)) as store:
        store.put_message(a_message(1))
        store.when_durable(first)
        store.when_durable(lambda durable: told.append(f"second {durable}"))
        await store.flush()
        await store.flush()
    assert told == ["first True", "second True", "again True"]


async def test_store_tells_nobody_out_of_turn_from_within_a_callback(path: Path) -> None:
    told: list[str] = []
    async with running(open_store(path)) as store:
        store.put_message(a_message(1))
        store.when_durable(lambda _: store.when_durable(lambda _: told.append("nested")))
        store.when_durable(lambda _: told.append("second"))
        await store.flush()
        await store.flush()
    assert told == ["second", "nested"]


async def test_store_lets_other_tasks_run_between_callbacks(path: Path) -> None:
    turns, seen = [0], Counter[int]()

    async def other() -> None:
        while True:
            turns[0] += 1
            await trio.lowlevel.checkpoint()

    async with running(open_store(path)) as store, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        store.put_message(a_message(1))
        for _ in range(8 * CALLS_A_TURN):
            store.when_durable(lambda _: seen.update(turns))
        await store.flush()
        nursery.cancel_scope.cancel()
    assert sum(seen.values()) == 8 * CALLS_A_TURN
    # Trio runs the tasks of a turn in any order, so this one may come twice between two runs of the other.
    assert max(seen.values()) <= 2 * CALLS_A_TURN


# ---- failing -----------------------------------------------------------------------------------


async def test_full_store_says_so_and_recovers_when_room_returns(path: Path) -> None:
    big = bytes(400_000)
    with capture_logs() as logs:
        async with running(open_store(path, max_bytes=1 << 20)) as store:
            store.put_session(a_session())
            for number in (1, 2):
                store.put_message(a_message(number, data=big))
                store.put_queued(a_queued(1, number, message_id=number))
            assert await store.flush()
            store.put_message(a_message(3, data=big))
            store.put_queued(a_queued(1, 3, message_id=3))
            assert await store.flush() is False
            assert "full" in store.failing
            assert (store.pending_rows, store.failed_commits) == (2, 1)
            assert await store.flush() is False
            store.settle(1, 2)
            store.drop_message(1)
            assert await store.flush()
            assert (store.failing, store.pending_rows) == ("", 0)
    assert [each["event"] for each in logs] == ["store cannot write", "store writes again"]
    assert [each.message_id for each in stored(path).queued] == [2, 3]


async def test_failing_store_lets_go_of_what_is_dropped(path: Path) -> None:
    async with running(open_store(path, max_bytes=1 << 20)) as store:
        store.put_message(a_message(1, data=bytes(2 << 20)))
        assert await store.flush() is False
        store.drop_message(1)
        assert await store.flush()
        await wait_until(lambda: not store.failing)
        assert store.commits == 0


async def test_failing_store_keeps_what_came_during_the_commit_that_failed(path: Path) -> None:
    told: list[str] = []
    async with running(open_store(path, max_bytes=1 << 20)) as store:
        store.put_message(a_message(1, data=bytes(2 << 20)))
        store.when_durable(lambda durable: told.append(f"first {durable}"))
        await wait_until(lambda: store._writing is not None)
        store.put_session(a_session())
        store.when_durable(lambda durable: told.append(f"second {durable}"))
        store.drop_message(1)
        assert store.pending_rows == 3
        await wait_until(lambda: len(told) == 2)
    assert told == ["first False", "second True"]
    assert stored(path).sessions == (a_session(),)


async def test_failing_store_tells_in_order_again_and_again(path: Path) -> None:
    told: list[str] = []

    def retry(durable: bool) -> None:  # noqa: FBT001  a callback's one fact
        told.append(f"retry {durable}")
        if not durable:
            store.when_durable(retry)

    async with running(open_store(path, max_bytes=1 << 20)) as store:
        store.put_message(a_message(1, data=bytes(2 << 20)))
        store.when_durable(retry)
        await store.flush()
        store.when_durable(lambda durable: told.append(f"later {durable}"))
        await store.flush()
        store.drop_message(1)
        await store.flush()
    assert told == ["retry False", "retry False", "later False", "retry True"]


async def test_store_that_fails_at_its_end_says_what_is_lost(path: Path) -> None:
    told: list[bool] = []
    with capture_logs() as logs:
        async with running(open_store(path, max_bytes=1 << 20)) as store:
            store.put_message(a_message(1, data=bytes(2 << 20)))
            store.when_durable(told.append)
    assert told == [False]
    assert logs[-1] == {"event": "store not written at the end", "log_level": "error", "rows": 1}
    store = open_store(path)
    store.close()


async def test_store_gives_back_what_is_on_disk_between_two_commits(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_session(a_session())
        for number in (1, 2, 3):
            store.put_message(a_message(number))
            store.put_queued(a_queued(sequence=number, message_id=number))
        assert await store.flush()
        found: list[object] = []

        async def read(*numbers: int) -> None:
            found.append(await store.fetch(1, numbers, numbers))

        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(read, number, number + 1)
            store.put_message(a_message(4))
            nursery.start_soon(store.flush)
    assert len(found) == 2
    for number in (1, 2):
        pair = (number, number + 1)
        rows = {each: a_queued(sequence=each, message_id=each) for each in pair}
        assert (rows, {each: a_message(each) for each in pair}) in found


async def test_store_gives_nothing_back_once_it_is_closed(path: Path) -> None:
    async with running(open_store(path)) as store:
        store.put_session(a_session())
    with pytest.raises(StoreError, match="the store is closed"):
        await store.fetch(1, [1], [1])


async def test_store_recovers_from_a_disk_that_refuses(path: Path) -> None:
    """SQLite's own switch for a read-only database stands for a disk that became one."""
    store = open_store(path)
    connection: sqlite3.Connection = store._database.connection
    async with running(store):
        connection.execute("pragma query_only=on")
        store.put_session(a_session())
        assert await store.flush() is False
        assert "readonly" in store.failing
        connection.execute("pragma query_only=off")
        assert await store.flush()
    assert stored(path).sessions == (a_session(),)


async def test_store_syncs_its_log_within_the_interval(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = trio.Event()
    entry = trio.lowlevel.current_trio_token()
    original = os.fsync

    def fsync(handle: int) -> None:
        original(handle)
        entry.run_sync_soon(synced.set)

    async with running(open_store(path, sync=SyncMode.INTERVAL)) as store:
        monkeypatch.setattr("broker.store.os.fsync", fsync)
        store.put_session(a_session())
        assert await store.flush()
        assert not synced.is_set()
        with trio.fail_after(5):
            await synced.wait()


async def test_store_says_when_its_log_cannot_be_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    async with running(open_store(path, sync=SyncMode.INTERVAL)) as store:
        with monkeypatch.context() as patch:
            patch.setattr("broker.store.os.fsync", refuse)
            store.put_session(a_session())
            assert await store.flush()
            await wait_until(lambda: store.failing == "Input/output error")
        await wait_until(lambda: not store.failing)


# ---- opening -----------------------------------------------------------------------------------


def test_store_says_what_it_repaired(path: Path) -> None:
    store = open_store(path)

    async def record() -> None:
        async with running(store):
            store.put_message(a_message())

    trio.run(record)
    store = open_store(path)
    with capture_logs() as logs:
        assert store.load().messages == ()
    store.close()
    assert [(each["event"], each["rows"]) for each in logs] == [("store repaired", 1)]


def test_store_refuses_a_wrong_key(path: Path) -> None:
    open_store(path).close()
    with pytest.raises(StoreError, match="another key"):
        open_store(path, key=bytes(32))


def test_store_shows_its_state_and_no_secret(path: Path) -> None:
    store = open_store(path)
    assert repr(store) == f"<Store {path} never sound, 0 rows pending>"
    store.close()
    assert "closed" in repr(store)
    assert isinstance(store, Store)
