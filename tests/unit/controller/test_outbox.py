"""The outbox: in order, bounded, and nothing lost by a cancelled wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from controller import outbox as outbox_module
from controller.errors import OutboxFull
from controller.outbox import Outbox


async def test_outbox_keeps_the_order_of_frames_and_streams() -> None:
    outbox = Outbox()
    outbox.put(b"1")
    outbox.put_stream(iter([b"2", b"3"]))
    outbox.put(b"4")
    outbox.put_stream(iter([]))
    outbox.put(b"5")
    assert [await outbox.take() for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
    assert len(outbox) == 0


async def test_outbox_stream_is_made_while_it_is_sent() -> None:
    made: list[int] = []

    def frames() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    outbox = Outbox()
    outbox.put_stream(frames())
    assert await outbox.take() == b"0"
    assert made == [0]


async def test_outbox_wakes_whoever_waits(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    taken: list[bytes] = []

    async def reader() -> None:
        taken.append(await outbox.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.sleep(1)
        outbox.put(b"late")
    assert taken == [b"late"]


async def test_outbox_cancelled_wait_takes_nothing() -> None:
    outbox = Outbox()
    outbox.put(b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.take()
    assert await outbox.take() == b"1"


@pytest.mark.parametrize(("limit", "value"), [("MAX_OUTBOX_BYTES", 25), ("MAX_OUTBOX_FRAMES", 2)])
async def test_outbox_is_bounded_and_refuses_whole_frames(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(outbox_module, limit, value)
    outbox = Outbox()
    outbox.put(b"x" * 10)
    outbox.put(b"y" * 10)
    with pytest.raises(OutboxFull, match="does not read"):
        outbox.put(b"z" * 10)
    assert len(outbox) == 2
    assert await outbox.take() == b"x" * 10
    outbox.put(b"z" * 10)
