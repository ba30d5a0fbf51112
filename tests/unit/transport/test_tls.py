"""The TLS stream between two real TCP sockets: bytes, endings, errors, handshakes."""

from __future__ import annotations

import random
import socket
import ssl

import pytest
import trio
import trio.testing

from tests.pki import SERVER_AUTH, TestPki
from tests.unit.transport.pairs import Pair, connected, raw_pair, shake, tcp_pair
from transport.errors import (
    HandshakeFailed,
    RemoteAlert,
    ServerUntrusted,
    TransportBroken,
    TransportBusy,
    TransportClosed,
)
from transport.tls import MAX_STEPS_PER_TURN, SEND_CHUNK_BYTES, TlsStream
from transport.wire import Wire

SMALL_BUFFER_BYTES = 8192
FOREVER_S = 20


async def receive_exactly(stream: TlsStream, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = await stream.receive_some(count)
        assert part
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


async def test_stream_carries_bytes_both_ways(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        assert pair.client.alpn == pair.server.alpn == "mqtt"
        assert pair.client.send_now(b"ping")
        assert await pair.server.receive_some() == b"ping"
        assert pair.server.send_now(memoryview(b"pong"))
        assert await pair.client.receive_some() == b"pong"
        assert pair.server.peer_certificate()


@pytest.mark.parametrize("seed", range(6))
async def test_stream_echoes_the_same_bytes_for_random_chunks(
    seed: int, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(700_000)

    async def echo(stream: TlsStream) -> None:
        while chunk := await stream.receive_some(rng.choice([1000, 17_000, 65_536, 200_000])):
            if not stream.send_now(chunk):
                await stream.flush()
        await stream.aclose()

    async def send(stream: TlsStream) -> None:
        at = 0
        while at < len(data):
            size = rng.choice([1, 7, 100, 16_384, 16_385, 40_000, 300_000])
            await stream.send_all(data[at : at + size])
            at += size

    with trio.fail_after(FOREVER_S):
        async with (
            connected(client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES) as pair,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(echo, pair.server)
            nursery.start_soon(send, pair.client)
            assert await receive_exactly(pair.client, len(data)) == data
            await pair.client.aclose()


async def test_receive_some_joins_records_up_to_the_limit(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        for i in range(5):
            assert pair.client.send_now(bytes([i]) * 1000)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert await pair.server.receive_some(1500) == bytes(1000) + b"\x01" * 500
        assert await pair.server.receive_some() == b"".join(
            [b"\x01" * 500, *(bytes([i]) * 1000 for i in (2, 3, 4))]
        )


async def test_receive_some_needs_a_positive_limit(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        with pytest.raises(ValueError, match="max_bytes"):
            await pair.server.receive_some(0)


async def test_receive_some_lets_others_run_after_some_reads(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with connected(client_context, server_context) as pair:
        assert pair.client.send_now(bytes(20 * MAX_STEPS_PER_TURN))
        await trio.testing.wait_all_tasks_blocked(0.02)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystander)
            for _ in range(20 * MAX_STEPS_PER_TURN):
                await pair.server.receive_some(1)
            assert 15 <= turns <= 25
            nursery.cancel_scope.cancel()


class FewTurns:
    """The others' time has always come; notes who asked, and lets them go on."""

    def __init__(self) -> None:
        self.ends = 0.0
        self.light: list[bool] = []

    def clock(self) -> float:
        return 1.0

    async def wait(self, *, light: bool) -> None:
        self.light.append(light)
        await trio.lowlevel.checkpoint()


async def test_receive_some_waits_for_its_turn_before_each_read_of_the_socket(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        turns = pair.server.turns = FewTurns()
        assert pair.client.send_now(bytes(20_000))
        assert len(await pair.server.receive_some()) == 20_000
        assert turns.light == [True]
        assert pair.client.send_now(b"x")
        assert await pair.server.receive_some() == b"x"
        assert turns.light == [True, False], "the read before had brought much"
        assert pair.client.send_now(b"y" * 20 * MAX_STEPS_PER_TURN)
        for _ in range(20 * MAX_STEPS_PER_TURN):
            await pair.server.receive_some(1)
        assert turns.light == [True, False, True], "one read is one turn"


async def test_stream_that_was_closed_while_it_waited_for_its_turn_says_so(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        pair.server.turns = FewTurns()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_closed, pair.server)
            pair.server.abort()


async def _expect_closed(stream: TlsStream) -> None:
    with pytest.raises(TransportClosed):
        await stream.receive_some()


async def test_send_now_keeps_what_the_kernel_does_not_take(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    data = random.Random(1).randbytes(3_000_000)
    with trio.fail_after(FOREVER_S):
        async with connected(
            client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES
        ) as pair:
            assert not pair.server.send_now(data)
            unsent = pair.server.unsent_bytes
            assert 0 < unsent < len(data) + 10_000
            with pytest.raises(TransportBusy):
                pair.server.send_now(b"more")
            assert pair.server.unsent_bytes == unsent
            with trio.move_on_after(0.05) as patience:
                await pair.server.flush()
            assert patience.cancelled_caught
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pair.server.flush)
                assert await receive_exactly(pair.client, len(data)) == data
            assert pair.server.unsent_bytes == 0
            assert pair.server.send_now(b"more")
            assert await pair.client.receive_some() == b"more"


async def test_send_all_of_several_tasks_is_not_interleaved(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    size = 3 * SEND_CHUNK_BYTES // 2
    with trio.fail_after(FOREVER_S):
        async with (
            connected(client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES) as pair,
            trio.open_nursery() as nursery,
        ):
            for letter in b"abc":
                nursery.start_soon(pair.client.send_all, bytes([letter]) * size)
            await trio.testing.wait_all_tasks_blocked(0.02)
            with pytest.raises(TransportBusy):
                pair.client.send_now(b"between")
            got = await receive_exactly(pair.server, 3 * size)
    assert sorted(got[i * size : (i + 1) * size] for i in range(3)) == [
        bytes([c]) * size for c in b"abc"
    ]


async def test_send_all_survives_a_cancelled_short_send(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    with trio.fail_after(FOREVER_S):
        async with connected(
            client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES
        ) as pair:
            first = bytes(SEND_CHUNK_BYTES)
            sent = [first]
            with trio.move_on_after(0.1):
                while True:
                    sent.append(first)
                    await pair.client.send_all(first)
            expected = len(first) * (len(sent) - 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.client.send_all, b"!")
                got = await receive_exactly(pair.server, expected + 1)
            assert got == bytes(expected) + b"!"


async def test_wait_send_all_might_not_block_waits_for_the_tail(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    with trio.fail_after(FOREVER_S):
        async with connected(
            client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES
        ) as pair:
            data = bytes(2_000_000)
            assert not pair.client.send_now(data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.client.wait_send_all_might_not_block)
                await receive_exactly(pair.server, len(data))
            assert pair.client.unsent_bytes == 0


async def test_aclose_delivers_everything_and_says_goodbye(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        assert pair.client.send_now(b"unread by the server")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert pair.server.send_now(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.server.aclose)
            assert await pair.client.receive_some() == b"last words"
            assert await pair.client.receive_some() == b""
            assert not pair.client.truncated
            await pair.client.aclose()
        await pair.server.aclose()  # again, without harm


async def test_aclose_is_bounded_when_the_peer_does_not_read(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES) as pair:
        assert not pair.server.send_now(bytes(5_000_000))
        with trio.fail_after(2):
            await pair.server.aclose()
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.client.aclose()
        with pytest.raises(TransportClosed):
            await pair.client.receive_some()


async def test_tcp_end_without_close_notify_is_an_end_that_says_so(
    pki: TestPki, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        pair.client.abort()
        assert await pair.server.receive_some() == b""
        assert pair.server.truncated


async def test_half_closed_stream_still_sends(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.aclose)
        assert await pair.server.receive_some() == b""
        assert pair.server.send_now(b"answer")


@pytest.mark.parametrize("ending", ["abort", "aclose"])
async def test_ending_wakes_reader_and_flusher(
    ending: str, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    woken: list[str] = []

    async def reader(stream: TlsStream) -> None:
        with pytest.raises(TransportClosed):
            await stream.receive_some()
        woken.append("reader")

    async def flusher(stream: TlsStream) -> None:
        with pytest.raises(TransportClosed):
            await stream.flush()
        woken.append("flusher")

    async with connected(client_context, server_context, buffer_bytes=SMALL_BUFFER_BYTES) as pair:
        assert not pair.server.send_now(bytes(5_000_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, pair.server)
            nursery.start_soon(flusher, pair.server)
            nursery.start_soon(flusher, pair.server)
            await trio.testing.wait_all_tasks_blocked(0.02)
            if ending == "abort":
                pair.server.abort()
                pair.server.abort()
            else:
                await pair.server.aclose()
        assert sorted(woken) == ["flusher", "flusher", "reader"]
        with pytest.raises(TransportClosed):
            pair.server.send_now(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await pair.server.send_all(b"x")


async def test_abort_hands_out_nothing_that_was_already_here(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        assert pair.client.send_now(b"abcdef")
        assert await pair.server.receive_some(1) == b"a"
        pair.server.abort()
        with pytest.raises(TransportClosed):
            await pair.server.receive_some(1)


async def test_reset_by_the_peer_is_broken(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with connected(client_context, server_context) as pair:
        assert pair.server.send_now(b"the client will not read this")
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.client.abort()  # unread bytes: the kernel resets
        with pytest.raises(trio.BrokenResourceError, match="connection reset by peer"):
            await pair.server.receive_some()
        with pytest.raises(TransportBroken):
            pair.server.send_now(b"x")
        await pair.server.aclose()


async def test_bad_record_is_broken_after_the_good_bytes_before_it(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    client, server = tcp_pair()
    stream = TlsStream(Wire(server), server_context, server_side=True, peer_address="client")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, stream)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(await trio.to_thread.run_sync(client.recv, 65536))
        client.sendall(outgoing.read())
    tls.write(b"good")
    client.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
    assert await stream.receive_some() == b"good"
    with pytest.raises(TransportBroken, match="bad record mac"):
        await stream.receive_some()
    with pytest.raises(TransportBroken, match="bad record mac"):
        await stream.receive_some()
    assert "bad record mac" in repr(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.aclose)
        incoming.write(await trio.to_thread.run_sync(client.recv, 65536))
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            tls.read(1)
        client.close()


async def fail_handshake(pair: Pair) -> HandshakeFailed:
    """Let the server's handshake fail, and say goodbye, while the client goes through its own."""
    failures: list[HandshakeFailed] = []

    async def serve() -> None:
        with pytest.raises(HandshakeFailed) as failure:
            await shake(pair.server)
        failures.append(failure.value)
        await pair.server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await shake(pair.client)
        with pytest.raises(RemoteAlert) as alert:
            await pair.client.receive_some()
        assert alert.value.alert in str(alert.value)
        failures[0].add_note(alert.value.alert)
        await pair.client.aclose()
    return failures[0]


async def test_client_learns_why_its_certificate_is_refused(
    pki: TestPki, server_context: ssl.SSLContext
) -> None:
    none = await fail_handshake(raw_pair(pki.context_without_certificate(), server_context))
    assert (none.result, none.__notes__) == ("no_certificate", ["certificate required"])
    leaf = pki.expired("old")
    expired = await fail_handshake(raw_pair(pki.client_context(leaf), server_context))
    assert (expired.result, expired.__notes__) == ("expired", ["certificate expired"])
    assert "expired" in expired.reason


async def test_client_refuses_a_server_it_does_not_trust(
    pki: TestPki, client_context: ssl.SSLContext
) -> None:
    leaf = pki.leaf(
        "old",
        "broker",
        starts_s=-9000,
        ends_s=-60,
        purposes=(SERVER_AUTH,),
        dns_names=("localhost",),
    )
    pair = raw_pair(client_context, pki.server_context(leaf))

    async def serve() -> None:
        with pytest.raises(
            HandshakeFailed, match="the client refused our certificate: certificate expired"
        ):
            await shake(pair.server)
        await pair.server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ServerUntrusted, match="certificate has expired"):
            await shake(pair.client)
        await pair.client.aclose()


async def test_handshake_is_bounded_in_bytes(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    pair = raw_pair(client_context, server_context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, pair.client)
        with pytest.raises(HandshakeFailed) as failure:
            await pair.server.handshake(max_bytes=700)
        assert failure.value.result == "too_large"
        nursery.cancel_scope.cancel()
    pair.client.abort()
    await pair.server.aclose()


async def test_handshake_tells_a_closed_from_a_reset_connection(
    server_context: ssl.SSLContext,
) -> None:
    for linger, result in ((None, "closed"), (b"\x01\0\0\0\0\0\0\0", "reset")):
        client, server = tcp_pair()
        if linger is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        stream = TlsStream(Wire(server), server_context, server_side=True, peer_address="client")
        with pytest.raises(HandshakeFailed) as failure:
            await shake(stream)
        assert failure.value.result == result
        await stream.aclose()


async def test_handshake_runs_in_worker_threads(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    pair = raw_pair(client_context, server_context)
    limiter = trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        for stream in (pair.client, pair.server):
            nursery.start_soon(lambda s: s.handshake(max_bytes=16384, limiter=limiter), stream)
    assert pair.client.send_now(b"x")
    assert await pair.server.receive_some() == b"x"
    pair.client.abort()
    pair.server.abort()
