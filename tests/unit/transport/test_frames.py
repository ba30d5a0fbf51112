"""Frames over a stream of any chunking: whole, typed, bounded."""

from __future__ import annotations

import random

import msgspec
import pytest
import trio
import trio.testing

from transport.errors import FrameRefused, TransportBroken
from transport.frames import MAX_FRAMES_PER_TURN, FrameStream

MAX_FRAME_BYTES = 1000


class Note(msgspec.Struct, frozen=True):
    number: int
    text: str


def frames_over(stream: trio.abc.Stream) -> FrameStream[Note]:
    decoder = msgspec.msgpack.Decoder(Note)
    return FrameStream(stream, max_frame_bytes=MAX_FRAME_BYTES, decoder=decoder)


async def test_frames_arrive_whole_and_typed_for_any_chunking() -> None:
    one, other = trio.testing.lockstep_stream_pair()
    rng = random.Random(5)
    notes = [Note(number=i, text="x" * rng.choice([0, 3, 300, 900])) for i in range(60)]
    wire = b""
    for note in notes:
        body = msgspec.msgpack.encode(note)
        wire += len(body).to_bytes(4) + body

    async def send() -> None:
        at = 0
        while at < len(wire):
            size = rng.choice([1, 2, 5, 700, 5000])
            await one.send_all(wire[at : at + size])
            at += size
        await one.aclose()

    received: list[Note] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        frames = frames_over(other)
        while (got := await frames.receive()) is not None:
            received.append(got)
    assert received == notes


async def test_frames_of_many_senders_are_not_mixed() -> None:
    one, other = trio.testing.memory_stream_pair()
    sender, receiver = frames_over(one), frames_over(other)
    async with trio.open_nursery() as nursery:
        for i in range(50):
            nursery.start_soon(sender.send, Note(number=i, text="y" * i))
        got = [await receiver.receive() for _ in range(50)]
    assert {note.number for note in got if note is not None} == set(range(50))


async def test_receive_refuses_a_long_frame_before_its_body() -> None:
    one, other = trio.testing.memory_stream_pair()
    await one.send_all((MAX_FRAME_BYTES + 1).to_bytes(4))
    with pytest.raises(FrameRefused, match="1001 bytes, at most 1000"):
        await frames_over(other).receive()


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", msgspec.msgpack.encode({"number": "one", "text": ""})]
)
async def test_receive_refuses_what_was_not_agreed(body: bytes) -> None:
    one, other = trio.testing.memory_stream_pair()
    await one.send_all(len(body).to_bytes(4) + body)
    with pytest.raises(FrameRefused, match="not what was agreed"):
        await frames_over(other).receive()


async def test_receive_tells_an_end_between_frames_from_one_inside() -> None:
    for cut, whole in ((b"", True), (b"\x00", False), (b"\x00\x00\x00\x05abc", False)):
        one, other = trio.testing.memory_stream_pair()
        await one.send_all(cut)
        await one.aclose()
        if whole:
            assert await frames_over(other).receive() is None
        else:
            with pytest.raises(TransportBroken, match="inside a frame"):
                await frames_over(other).receive()


async def test_receive_loses_nothing_when_cancelled() -> None:
    one, other = trio.testing.memory_stream_pair()
    sender, receiver = frames_over(one), frames_over(other)
    body = msgspec.msgpack.encode(Note(number=7, text="z"))
    await one.send_all(len(body).to_bytes(4) + body[:3])
    with trio.move_on_after(0.01):
        await receiver.receive()
    await one.send_all(body[3:])
    assert await receiver.receive() == Note(number=7, text="z")
    await sender.send(Note(number=8, text=""))
    assert await receiver.receive() == Note(number=8, text="")


async def test_send_refuses_our_own_long_frame_and_goes_on() -> None:
    one, other = trio.testing.memory_stream_pair()
    sender = frames_over(one)
    with pytest.raises(FrameRefused, match="our own frame"):
        await sender.send(Note(number=1, text="w" * MAX_FRAME_BYTES))
    await sender.send(Note(number=2, text=""))
    assert await frames_over(other).receive() == Note(number=2, text="")


async def test_send_after_a_cut_frame_is_broken() -> None:
    one, _ = trio.testing.lockstep_stream_pair()
    sender = frames_over(one)
    with trio.move_on_after(0.01):
        await sender.send(Note(number=1, text=""))
    with pytest.raises(TransportBroken, match="cut in half"):
        await sender.send(Note(number=2, text=""))


async def test_receive_lets_others_run_although_many_frames_are_here() -> None:
    one, other = trio.testing.memory_stream_pair()
    body = msgspec.msgpack.encode(Note(number=1, text=""))
    await one.send_all((len(body).to_bytes(4) + body) * 20 * MAX_FRAMES_PER_TURN)
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    frames = frames_over(other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        for _ in range(20 * MAX_FRAMES_PER_TURN):
            assert await frames.receive() is not None
        assert turns >= 18
        nursery.cancel_scope.cancel()
