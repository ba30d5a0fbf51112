"""A raw connection that keeps what the kernel did not take and ends once."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.unit.transport.pairs import tcp_pair
from transport.errors import TransportBroken, TransportClosed
from transport.wire import MAX_DRAIN_BYTES, Wire

SMALL_BUFFER_BYTES = 8192


async def test_wire_receives_and_sends_without_waiting() -> None:
    client, server = tcp_pair()
    wire = Wire(server)
    with client:
        assert wire.receive_now() is None
        assert wire.send(b"hello")
        assert client.recv(10) == b"hello"
        client.sendall(b"world")
        assert await wire.receive(3) == b"wor"
        assert await wire.receive() == b"ld"
        wire.verify_open()
        wire.close()
        wire.close()
        assert wire.closed
        with pytest.raises(TransportClosed):
            wire.verify_open()
        with pytest.raises(TransportClosed):
            wire.receive_now()


async def test_wire_keeps_the_order_of_a_tail() -> None:
    client, server = tcp_pair(buffer_bytes=SMALL_BUFFER_BYTES)
    one, other = Wire(server), Wire(client)
    data = bytes(range(256)) * 10_000
    assert not one.send(data)
    one.append(b"")
    one.append(b"end")
    received = bytearray()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_tail)
            while len(received) < len(data) + 3:
                received += await other.receive()
    assert received == data + b"end"
    assert one.tail is None
    one.close()
    other.close()


async def test_goodbye_delivers_last_words_although_the_peer_was_sending() -> None:
    client, server = tcp_pair()
    wire, other = Wire(server), Wire(client)
    assert other.send(b"never read")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.goodbye, b"last words")
        assert await other.receive() == b"last words"
        assert await other.receive() == b""
        other.close()
    assert wire.closed
    await wire.goodbye(b"again")


async def test_goodbye_listens_to_a_talker_for_a_bounded_time() -> None:
    client, server = tcp_pair()
    wire, other = Wire(server), Wire(client)

    async def talk() -> None:
        with suppress(TransportBroken):
            while True:
                other.append(bytes(65536))
                await other.send_tail()
                await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await wire.goodbye()
    assert MAX_DRAIN_BYTES < 1 << 24
    other.close()


async def test_broken_wire_tells_the_same_story_twice() -> None:
    client, server = tcp_pair()
    wire = Wire(server)
    assert wire.send(b"unread")
    await trio.testing.wait_all_tasks_blocked(0.02)
    client.close()  # with unread bytes: a reset
    with pytest.raises(TransportBroken, match="connection reset"):
        await wire.receive()
    for _ in range(2):
        with pytest.raises(TransportBroken, match="connection reset"):
            wire.verify_open()
    await wire.goodbye(b"nobody listens")
    assert wire.closed


async def test_goodbye_when_cancelled_closes_at_once() -> None:
    client, server = tcp_pair()
    wire = Wire(server)
    with client, trio.CancelScope() as scope:
        scope.cancel()
        await wire.goodbye(b"x")
    assert scope.cancelled_caught
    assert wire.closed
