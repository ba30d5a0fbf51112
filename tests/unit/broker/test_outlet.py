from __future__ import annotations

import trio
import trio.testing

from broker.outlet import WRITE_PIECE_BYTES, Outlet
from mqtt.packets import Version


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


def outlet_on(pipe: Pipe, reasons: list[str], *, max_queued_bytes: int = 1000) -> Outlet:
    return Outlet(
        pipe,
        version=Version.V5,
        max_packet_bytes=100,
        max_queued_bytes=max_queued_bytes,
        slow_consumer_s=2.0,
        stuck_consumer_s=30.0,
        broken=reasons.append,
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
