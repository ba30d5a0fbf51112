"""The table of brokers: who lags behind, and when a change has taken effect everywhere."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from controller import brokers as brokers_module, outbox as outbox_module
from controller.brokers import BrokerSession, BrokerTable
from controller.errors import RemoteProtocolError
from controller.state import PolicyChange
from controller.wire import Policy


def table() -> BrokerTable:
    return BrokerTable(clock=trio.current_time)


def joined(brokers: BrokerTable, name: str = "b1", epoch: int = -1) -> BrokerSession:
    session = BrokerSession(name, "127.0.0.1:1", trio.CancelScope(), trusts_for_s=3.0)
    brokers.join(session)
    if epoch >= 0:
        brokers.note_applied(session, epoch)
    return session


async def test_change_waits_for_every_connected_broker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    brokers = table()
    first, second = joined(brokers, "b1", 4), joined(brokers, "b2", 4)

    async def confirm() -> None:
        await trio.sleep(0.5)
        brokers.note_applied(first, 5)
        await trio.sleep(0.5)
        brokers.note_applied(second, 6)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm)
        assert await brokers.wait_applied(5, deadline_s=2.0) == ()
    assert trio.current_time() - began == pytest.approx(1.0)


async def test_change_names_those_that_lag_after_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    brokers = table()
    joined(brokers, "slow", 4)
    joined(brokers, "new")
    joined(brokers, "good", 5)
    began = trio.current_time()
    assert await brokers.wait_applied(5, deadline_s=2.0) == ("new", "slow")
    assert trio.current_time() - began == pytest.approx(2.0)


async def test_change_without_brokers_does_not_wait() -> None:
    assert await table().wait_applied(5, deadline_s=2.0) == ()


async def test_lost_broker_lags_until_it_must_have_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    brokers = table()
    brokers.leave(joined(brokers, "b1", 4))
    assert brokers.laggards(5) == ("b1",)
    assert brokers.laggards(4) == ()
    assert await brokers.wait_applied(5, deadline_s=2.0) == ("b1",)
    assert await brokers.wait_applied(5, deadline_s=2.0) == ()
    assert brokers.statuses() == ()


async def test_broker_that_came_back_counts_by_its_new_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    brokers = table()
    brokers.leave(joined(brokers, "b1", 4))
    joined(brokers, "b1", 5)
    assert brokers.laggards(5) == ()
    [status] = brokers.statuses()
    assert (status.broker_id, status.epoch, status.connected) == ("b1", 5, True)


async def test_newer_connection_of_a_broker_ends_the_older() -> None:
    brokers = table()
    older = joined(brokers)
    newer = joined(brokers)
    assert older.ended == "the same broker connected again"
    brokers.leave(older)
    assert len(brokers) == 1
    assert newer.ended == ""
    brokers.leave(newer)
    assert len(brokers) == 0


async def test_brokers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers_module, "MAX_BROKERS", 2)
    brokers = table()
    joined(brokers, "b1")
    joined(brokers, "b2")
    with pytest.raises(RemoteProtocolError, match="connected already"):
        joined(brokers, "b3")
    joined(brokers, "b2")
    assert len(brokers) == 2


async def test_push_reaches_everybody_and_ends_who_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_OUTBOX_FRAMES", 2)
    brokers = table()
    reading, stuck = joined(brokers, "reading"), joined(brokers, "stuck")
    for epoch in (1, 2, 3):
        brokers.push(PolicyChange(epoch, (("a", "topic.x"),)))
        frame = msgspec.msgpack.decode(await reading.outbox.take(), type=Policy)
        assert frame == Policy(epoch=epoch, reset=False, more=False, grants=(("a", "topic.x"),))
    assert "does not read" in stuck.ended
    assert reading.ended == ""
    assert "queued=2" in repr(stuck)


async def test_epoch_of_a_broker_never_goes_back() -> None:
    brokers = table()
    session = joined(brokers, "b1", 5)
    brokers.note_applied(session, 3)
    assert session.epoch == 5
