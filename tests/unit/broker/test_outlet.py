from __future__ import annotations

import trio
import trio.testing

from broker.aliases import Aliases
from broker.memory import MemoryBudget
from broker.outlet import WRITE_PIECE_BYTES, Outlet
from broker.turns import Turns
from mqtt.packets import Version

ROOMY_BYTES = 1 << 30


class Pipe:
    """A verified fake of a link: takes `room` bytes, keeps the rest until `open` is set."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.written = b""
        self.kept = b""
        self.open = trio.Event()
        self.broken = False

    async def receive_some(self, max_bytes: int = 65_536) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    def send_now(self, data: bytes) -> bool:
        if self.broken:
            raise trio.BrokenResourceError("gone")
        assert not self.kept, "an earlier send is not finished"
        self.written += data[: self.room]
        self.kept = data[self.room :]
        self.room -= len(data) - len(self.kept)
        return not self.kept

    async def flush(self) -> None:
        if self.kept:
            await self.open.wait()
        self.written += self.kept
        self.kept = b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def outlet_on(
    pipe: Pipe,
    reasons: list[str],
    *,
    version: Version = Version.V5,
    max_packet_bytes: int = 100,
    max_queued_bytes: int = 1000,
    budget: MemoryBudget | None = None,
    aliases: Aliases | None = None,
) -> Outlet:
    return Outlet(
        pipe,
        version=version,
        max_packet_bytes=max_packet_bytes,
        max_queued_bytes=max_queued_bytes,
        slow_consumer_s=2.0,
        stuck_consumer_s=30.0,
        broken=reasons.append,
        budget=(budget or MemoryBudget(ROOMY_BYTES)).share("viewer"),
        turns=Turns(),
        aliases=aliases,
    )


def test_outlet_joins_what_one_read_brought_and_writes_it_at_once() -> None:
    pipe, reasons = Pipe(), list[str]()
    outlet = outlet_on(pipe, reasons)
    assert outlet.put(b"aa", 2, 1)
    assert not outlet.put(b"bb", 2, 1)
    assert pipe.written == b""
    outlet.flush_now()
    assert pipe.written == b"aabb"
    assert outlet.put(b"cc", 2, 1), "after a flush the next touch is the first again"


def test_outlet_drops_packets_above_the_clients_maximum() -> None:
    pipe, reasons = Pipe(), list[str]()
    outlet = outlet_on(pipe, reasons)
    assert not outlet.put(b"x" * 101, 101, 1)
    outlet.flush_now()
    assert pipe.written == b""
    assert outlet.dropped == 1


def test_outlet_reports_a_broken_link_and_does_not_raise_into_the_publisher() -> None:
    pipe, reasons = Pipe(), list[str]()
    pipe.broken = True
    outlet = outlet_on(pipe, reasons)
    outlet.put(b"aa", 2, 1)
    outlet.flush_now()
    assert reasons == ["cannot write: gone"]


async def test_outlet_keeps_order_when_the_socket_blocks(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    pipe, reasons = Pipe(room=3), list[str]()
    outlet = outlet_on(pipe, reasons)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"12345", 5, 1)
    outlet.flush_now()
    outlet.put(b"678", 3, 1)
    outlet.flush_now()
    assert pipe.written == b"123"
    pipe.room = 1 << 30
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert pipe.written == b"12345678"
    outlet.put(b"9", 1, 1)
    outlet.flush_now()
    assert pipe.written == b"123456789", "drained: writes go inline again"


async def test_outlet_turns_lossy_for_a_slow_client_and_recovers(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    pipe, reasons = Pipe(room=0), list[str]()
    outlet = outlet_on(pipe, reasons, max_queued_bytes=10)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"first", 5, 1)
    outlet.flush_now()
    outlet.put(b"x" * 20, 20, 1)
    outlet.flush_now()
    assert outlet.over_full
    started = trio.current_time()
    await outlet.wait_for_room(started)
    assert trio.current_time() - started == 2.0
    assert outlet.lossy
    assert not outlet.put(b"lost", 4, 3)
    assert outlet.dropped == 3
    pipe.room = 1 << 30
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [outlet.lossy] == [False]
    assert pipe.written == b"first" + b"x" * 20


async def test_outlet_gives_up_a_client_that_takes_nothing(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    pipe, reasons = Pipe(room=0), list[str]()
    outlet = outlet_on(pipe, reasons)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"first", 5, 1)
    outlet.flush_now()
    await trio.sleep(31)
    assert reasons == ["the client takes no data"]


async def test_outlet_writes_a_backlog_in_bounded_pieces(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    pipe, reasons = Pipe(room=0), list[str]()
    outlet = outlet_on(pipe, reasons, max_queued_bytes=1 << 30)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"a", 1, 1)
    outlet.flush_now()
    half = b"h" * (WRITE_PIECE_BYTES // 2 + 1)
    for _ in range(3):
        outlet.put_control(half)
    outlet.flush_now()
    pipe.room = 1 << 30
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert pipe.written == b"a" + half * 3
    assert outlet.queued_bytes == 0


async def test_outlet_release_lets_paused_publishers_go(autojump_clock: trio.abc.Clock) -> None:
    pipe, reasons = Pipe(room=0), list[str]()
    outlet = outlet_on(pipe, reasons, max_queued_bytes=1)
    outlet.put(b"first", 5, 1)
    outlet.flush_now()
    outlet.put(b"more", 4, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.wait_for_room, trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        outlet.release()
    assert outlet.queued_bytes == 0


def test_outlet_writes_nothing_after_its_release() -> None:
    pipe, reasons = Pipe(), list[str]()
    outlet = outlet_on(pipe, reasons)
    outlet.release()
    outlet.put(b"aa", 2, 1)
    outlet.put_control(b"bb")
    outlet.flush_now()
    assert pipe.written == b"", "the link is its session's, for the last word"


async def test_outlet_reports_a_link_that_breaks_while_it_waits(nursery: trio.Nursery) -> None:
    pipe, reasons = Pipe(room=0), list[str]()
    outlet = outlet_on(pipe, reasons)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"first", 5, 1)
    outlet.flush_now()
    outlet.put(b"second", 6, 1)
    await trio.testing.wait_all_tasks_blocked()
    pipe.broken = True
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert reasons == ["cannot write: gone"]


# -- publishers pause ------------------------------------------------------------------------


async def test_outlet_pauses_publishers_while_too_much_waits_behind_the_window(
    autojump_clock: trio.abc.Clock,
) -> None:
    outlet = outlet_on(Pipe(), [])
    outlet.note_backlog(True)  # noqa: FBT003  its one fact
    assert outlet.over_full
    assert not outlet.congested, "the client itself is still read from: its acknowledgements help"
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.wait_for_room, began)
        await trio.sleep(1)
        outlet.note_backlog(False)  # noqa: FBT003
    assert trio.current_time() == began + 1
    assert not outlet.lossy


async def test_outlet_with_a_lasting_backlog_is_lossy_until_the_backlog_is_gone(
    autojump_clock: trio.abc.Clock,
) -> None:
    pipe = Pipe()
    outlet = outlet_on(pipe, [])
    outlet.note_backlog(True)  # noqa: FBT003
    await outlet.wait_for_room(trio.current_time())
    assert not outlet.put(b"lost", 4, 1)
    began = trio.current_time()
    await outlet.wait_for_room(began)
    assert trio.current_time() == began, "who is known to be slow costs publishers no more time"
    outlet.note_backlog(False)  # noqa: FBT003
    assert outlet.put(b"kept", 4, 1)
    outlet.flush_now()
    assert pipe.written == b"kept"


async def test_outlet_that_drains_stays_lossy_while_the_backlog_lasts(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    pipe = Pipe(room=0)
    outlet = outlet_on(pipe, [], max_queued_bytes=10)
    nursery.start_soon(outlet.run_writer)
    outlet.put(b"first", 5, 1)
    outlet.flush_now()
    outlet.note_backlog(True)  # noqa: FBT003
    await outlet.wait_for_room(trio.current_time())
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert outlet.lossy


async def test_publishers_wait_for_all_their_slow_subscribers_together(
    autojump_clock: trio.abc.Clock,
) -> None:
    outlets = [outlet_on(Pipe(), []) for _ in range(3)]
    began = trio.current_time()
    for outlet in outlets:
        outlet.note_backlog(True)  # noqa: FBT003
        await outlet.wait_for_room(began)
    assert trio.current_time() == began + 2.0
    assert all(outlet.lossy for outlet in outlets)


async def test_outlet_lets_nobody_in_for_a_backlog_that_ends_while_bytes_still_wait(
    autojump_clock: trio.abc.Clock,
) -> None:
    outlet = outlet_on(Pipe(), [], max_queued_bytes=10)
    outlet.put_control(b"x" * 20)
    outlet.note_backlog(True)  # noqa: FBT003
    with trio.move_on_after(1) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.wait_for_room, trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
            outlet.note_backlog(False)  # noqa: FBT003
    assert patience.cancelled_caught
    outlet.release()


async def test_task_of_the_broker_waits_until_the_client_is_ready_for_more(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    outlet = outlet_on(Pipe(), [])
    outlet.note_backlog(True)  # noqa: FBT003
    ready = trio.Event()

    async def wait() -> None:
        await outlet.wait_until_ready()
        ready.set()

    nursery.start_soon(wait)
    await trio.sleep(60)
    assert not ready.is_set(), "not bounded here"
    outlet.note_backlog(False)  # noqa: FBT003
    await ready.wait()


# -- the ceiling over all --------------------------------------------------------------------


async def test_outlet_counts_what_waits_against_the_ceiling_until_it_leaves(
    nursery: trio.Nursery,
) -> None:
    budget = MemoryBudget(1000)
    pipe = Pipe(room=0)
    outlet = outlet_on(pipe, [], budget=budget)
    nursery.start_soon(outlet.run_writer)
    outlet.put_control(b"12345")
    assert budget.used_bytes == 5
    outlet.flush_now()
    assert budget.used_bytes == 0, "what the TLS layer holds has a bound of its own"
    outlet.put_control(b"678")
    outlet.flush_now()
    assert budget.used_bytes == 3
    pipe.room = ROOMY_BYTES
    pipe.open.set()
    await trio.testing.wait_all_tasks_blocked()
    assert budget.used_bytes == 0


def test_outlet_gives_back_its_share_of_the_ceiling_when_it_is_released() -> None:
    budget = MemoryBudget(1000)
    outlet = outlet_on(Pipe(), [], budget=budget)
    outlet.put_control(b"12345")
    outlet.release()
    assert budget.used_bytes == 0
    outlet.put_control(b"678")
    assert budget.used_bytes == 0


def test_every_outlet_with_something_waiting_is_full_while_the_ceiling_is_passed() -> None:
    budget = MemoryBudget(10)
    stuck, idle, slow = (outlet_on(Pipe(), [], budget=budget) for _ in range(3))
    stuck.put_control(b"x" * 10)
    slow.put_control(b"y")
    assert budget.share("viewer").spent
    assert slow.over_full, "though it holds one byte"
    assert not idle.over_full, "who takes everything at once need not wait for the others"
    stuck.release()
    assert not slow.over_full
