from __future__ import annotations

import random
from itertools import groupby

import pytest
import trio
import trio.testing

from client.errors import ConnectionLost
from client.writer import MAX_CHUNK_BYTES, MAX_POSTED_BYTES, STALL_S, Sink, Writer


class NarrowSink:
    """A stream whose kernel takes so many bytes at once; `drain` makes room. Behaves as `TlsStream`."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = bytearray()
        self.largest = 0
        self._kept = bytearray()
        self._flushing = False
        self._more = trio.Event()

    @property
    def unsent_bytes(self) -> int:
        return len(self._kept)

    def send_now(self, data: bytes | bytearray | memoryview) -> bool:
        assert not self._kept, "send_now before flush finished"
        assert not self._flushing
        self.largest = max(self.largest, len(data))
        self._kept += data
        return self._push()

    async def flush(self) -> None:
        self._flushing = True
        try:
            while not self._push():
                await self._more.wait()
        finally:
            self._flushing = False
        await trio.lowlevel.checkpoint()

    def drain(self, room: int) -> None:
        self.room += room
        more, self._more = self._more, trio.Event()
        more.set()

    def _push(self) -> bool:
        sent = min(self.room, len(self._kept))
        self.room -= sent
        self.taken += self._kept[:sent]
        del self._kept[:sent]
        return not self._kept


async def test_packets_of_several_tasks_leave_whole_and_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sink = NarrowSink(10)
    writer = Writer(sink)
    packets = [bytes([n]) * (n % 37 + 1) for n in range(100)]

    async def drain() -> None:
        chance = random.Random(1)
        while True:
            await trio.sleep(0.01)
            sink.drain(chance.randrange(1, 50))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.start_soon(drain)
        async with trio.open_nursery() as senders:
            for packet in packets:
                senders.start_soon(writer.send, packet)
                writer.post(b"\xff")
        while sink.unsent_bytes or sink.taken.count(b"\xff") < 100:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    whole = {bytes(group) for _, group in groupby(bytes(sink.taken).replace(b"\xff", b""))}
    assert whole == set(packets)
    assert len([value for value, _ in groupby(sink.taken) if value != 0xFF]) == len(packets)


async def test_post_leaves_at_once_when_the_line_is_free() -> None:
    sink = NarrowSink(100)
    Writer(sink).post(b"ack")
    assert sink.taken == b"ack"


async def test_posted_bytes_are_bounded() -> None:
    sink = NarrowSink(0)
    writer = Writer(sink)
    writer.post(b"first")
    writer.post(bytes(MAX_POSTED_BYTES))
    with pytest.raises(ConnectionLost, match="takes no acknowledgements"):
        writer.post(b"x")


async def test_posted_leaves_before_the_next_packet() -> None:
    sink = NarrowSink(2)
    writer = Writer(sink)
    writer.post(b"one")
    writer.post(b"two")
    sink.drain(100)
    await writer.send(b"three")
    assert sink.taken == b"onetwothree"


async def test_large_packet_is_sent_in_chunks() -> None:
    sink = NarrowSink(10 * MAX_CHUNK_BYTES)
    data = random.Random(2).randbytes(3 * MAX_CHUNK_BYTES + 5)
    await Writer(sink).send(data)
    assert sink.taken == data
    assert sink.largest == MAX_CHUNK_BYTES


async def test_cancelled_send_is_whole_or_not_at_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sink = NarrowSink(3)
    writer = Writer(sink)
    taken: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        with trio.move_on_after(1):
            await writer.send(b"first", taken=lambda: taken.append("first"))
        with trio.move_on_after(1):
            await writer.send(b"never", taken=lambda: taken.append("never"))
        assert taken == ["first"]
        sink.drain(100)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sink.taken == b"first"


async def test_broker_that_takes_nothing_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="took no bytes"):
        await Writer(NarrowSink(0)).send(b"x")
    assert trio.current_time() - began == pytest.approx(STALL_S)


def test_narrow_sink_is_a_sink() -> None:
    sink: Sink = NarrowSink(0)
    assert sink.unsent_bytes == 0
