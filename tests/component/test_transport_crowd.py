"""Many at once: handshakes of which some fail, and big transfers both ways, on one listener."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio

from tests.pki import TestPki
from tests.unit.transport.serving import HOST, Served, serving
from transport.errors import RemoteAlert, TransportBroken
from transport.listener import HandshakeLimits, connect_tls
from transport.tls import TlsStream

CROWD = 100
DEADLINE_S = 50


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("crowd"))


async def test_hundred_handshakes_at_once_some_failing_disturb_nobody(pki: TestPki) -> None:
    good = pki.client_context(pki.client("sensor"))
    bad = {
        "expired": pki.client_context(pki.expired("old")),
        "unknown_ca": pki.client_context(pki.foreign("stranger")),
        "no_certificate": pki.context_without_certificate(),
    }
    rng = random.Random(7)

    async def visit(served: Served) -> None:
        stream = await connect_tls(HOST, served.port, context=good, deadline_s=DEADLINE_S)
        for size in (1, 30_000, 200_000):
            data = rng.randbytes(size)
            await send_and_expect(stream, data)
        await stream.aclose()

    async def intrude(served: Served, kind: str) -> None:
        stream = await connect_tls(HOST, served.port, context=bad[kind], deadline_s=DEADLINE_S)
        with pytest.raises(RemoteAlert):
            await stream.receive_some()
        await stream.aclose()

    async def disturb(served: Served, garbage: bytes) -> None:
        raw = await trio.open_tcp_stream(HOST, served.port)
        await raw.send_all(garbage)
        await raw.aclose()

    limits = HandshakeLimits(max_per_address=2 * CROWD, deadline_s=DEADLINE_S)
    with trio.fail_after(DEADLINE_S):
        async with serving(pki.server_context(pki.broker()), limits=limits) as served:
            steady = await connect_tls(HOST, served.port, context=good)
            async with trio.open_nursery() as nursery:
                for number in range(CROWD):
                    kind = ("good", "good", "expired", "unknown_ca", "no_certificate")[number % 5]
                    if kind == "good":
                        nursery.start_soon(visit, served)
                    else:
                        nursery.start_soon(intrude, served, kind)
                    nursery.start_soon(disturb, served, rng.randbytes(20))
                await send_and_expect(steady, b"in the middle of it")
            await send_and_expect(steady, b"still here")
            assert served.results.count("ok") == 2 * CROWD // 5 + 1
            for kind in bad:
                await served.event(kind, number=CROWD // 5)
            await steady.aclose()


async def send_and_expect(stream: TlsStream, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        got = bytearray()
        while len(got) < len(data):
            part = await stream.receive_some()
            assert part
            got += part
    assert got == data


async def test_big_transfers_go_both_ways_through_small_buffers(pki: TestPki) -> None:
    """Both sides send megabytes with `send_now` and `flush` while they read; every byte arrives."""
    rng = random.Random(11)
    ours, theirs = rng.randbytes(4_000_000), rng.randbytes(3_000_000)
    kept = 0

    async def send(stream: TlsStream, data: bytes) -> None:
        nonlocal kept
        for start in range(0, len(data), 50_000):
            if not stream.send_now(data[start : start + 50_000]):
                kept += 1
                await stream.flush()

    async def exchange(stream: TlsStream, outgoing: bytes, expected: bytes) -> None:
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, stream, outgoing)
            while len(got) < len(expected):
                part = await stream.receive_some()
                assert part
                got += part
        assert got == expected

    async def handler(stream: TlsStream) -> None:
        await exchange(stream, theirs, ours)
        assert await stream.receive_some() == b""

    context = pki.client_context(pki.client("mover"))
    with trio.fail_after(DEADLINE_S):
        async with serving(pki.server_context(pki.broker()), handler=handler) as served:
            stream = await connect_tls(HOST, served.port, context=context)
            await exchange(stream, ours, theirs)
            await stream.aclose()
            assert kept > 0
            assert served.results == ["ok"]


async def test_abort_on_one_side_ends_the_other_in_the_middle_of_a_transfer(pki: TestPki) -> None:
    ended = trio.Event()

    async def handler(stream: TlsStream) -> None:
        try:
            while True:
                await stream.send_all(bytes(500_000))
        except TransportBroken:
            ended.set()
            raise

    context = pki.client_context(pki.client("leaver"))
    with trio.fail_after(DEADLINE_S):
        async with serving(pki.server_context(pki.broker()), handler=handler) as served:
            stream = await connect_tls(HOST, served.port, context=context)
            assert await stream.receive_some()
            stream.abort()
            await ended.wait()
            assert served.results == ["ok"]


async def test_server_that_is_flooded_after_refusing_still_gets_rid_of_the_peer(
    pki: TestPki,
) -> None:
    def refuse(stream: TlsStream, identity: object) -> None:
        raise PermissionError("not this one")

    context = pki.client_context(pki.client("flood"))
    with trio.fail_after(DEADLINE_S):
        async with serving(pki.server_context(pki.broker()), verify=refuse) as served:
            stream = await connect_tls(HOST, served.port, context=context)
            with suppress(TransportBroken):
                while True:
                    await stream.send_all(bytes(200_000))
            event = await served.event("refused")
            assert event.reason == "not this one"
            stream.abort()
