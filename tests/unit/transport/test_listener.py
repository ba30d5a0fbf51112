"""The listener among strangers: everyone is one event, and nobody disturbs anybody."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest
import trio
import trio.testing
from typing_extensions import override

from certs.identity import PeerIdentity
from tests.pki import TestPki
from tests.unit.transport.serving import HOST, Served, echo, serving, verify_client
from transport.errors import ServerUnreachable, TransportClosed
from transport.listener import HandshakeLimits, bind_tcp, connect_tls, serve_tls
from transport.tls import TlsStream


async def connect(served: Served, context: ssl.SSLContext) -> TlsStream:
    return await connect_tls(HOST, served.port, context=context, alpn=("mqtt",))


async def ping(stream: TlsStream) -> None:
    with trio.fail_after(10):
        await stream.send_all(b"ping")
        assert await stream.receive_some() == b"ping"


async def say(served: Served, data: bytes) -> trio.SocketStream:
    raw = await trio.open_tcp_stream(HOST, served.port)
    await raw.send_all(data)
    return raw


async def end_of(raw: trio.SocketStream) -> bytes:
    """Everything the server still says; a reset counts as nothing."""
    said = b""
    with trio.fail_after(10):
        try:
            async for data in raw:
                said += data
        except trio.BrokenResourceError:
            pass
    await raw.aclose()
    return said


async def test_peer_with_a_good_certificate_is_served(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    seen: list[TlsStream] = []

    async def handler(stream: TlsStream) -> None:
        seen.append(stream)
        await echo(stream)

    async with serving(server_context, handler=handler) as served:
        stream = await connect(served, client_context)
        await ping(stream)
        event = await served.event("ok")
        assert event.peer == seen[0].peer_address
        assert event.reason == ""
        assert 0 < event.seconds < 10
        assert seen[0].alpn == stream.alpn == "mqtt"
        assert seen[0].identity is not None
        assert seen[0].identity.uris == ("spiffe://stockade.local/client/sensor",)
        assert stream.identity is not None
        assert "server" in stream.identity.purposes
        await stream.aclose()


async def test_own_refusal_is_an_event_and_a_goodbye(
    pki: TestPki, server_context: ssl.SSLContext
) -> None:
    async with serving(server_context) as served:
        for number, leaf in enumerate(
            [pki.without_eku("x"), pki.any_eku("x"), pki.two_uris("x")], 1
        ):
            stream = await connect(served, pki.client_context(leaf))
            assert await stream.receive_some() == b""
            assert not stream.truncated
            await stream.aclose()
            event = await served.event("refused", number=number)
            assert "certificate" in event.reason
        assert served.results == ["refused"] * 3


async def test_verify_that_fails_refuses(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    def verify(stream: TlsStream, identity: PeerIdentity) -> None:
        raise KeyError

    async with serving(server_context, verify=verify) as served:
        stream = await connect(served, client_context)
        assert await stream.receive_some() == b""
        assert (await served.event("refused")).reason == "KeyError"
        await stream.aclose()


async def test_context_that_demands_no_certificate_lets_nobody_in(pki: TestPki) -> None:
    context = pki.server_context(pki.broker("lax"))
    context.verify_mode = ssl.CERT_NONE
    async with serving(context) as served:
        stream = await connect(served, pki.context_without_certificate())
        assert await stream.receive_some() == b""
        await served.event("no_certificate")
        await stream.aclose()


async def test_context_that_cannot_be_made_is_an_event(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    contexts = [server_context]

    def context() -> ssl.SSLContext:
        return contexts.pop()

    async with serving(context) as served:
        stream = await connect(served, client_context)
        raw = await trio.open_tcp_stream(HOST, served.port)
        with pytest.raises(trio.BrokenResourceError):
            await connect(served, client_context)
        assert "IndexError" in (await served.event("context_failed")).reason
        await raw.aclose()
        await ping(stream)
        await stream.aclose()


async def test_handler_that_raises_is_contained(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def handler(stream: TlsStream) -> None:
        if await stream.receive_some() == b"die":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ZeroDivisionError("the bug")
        await stream.send_all(b"pong")
        await echo(stream)

    async with serving(server_context, handler=handler) as served:
        good, bad = await connect(served, client_context), await connect(served, client_context)
        await bad.send_all(b"die")
        assert await bad.receive_some() == b""
        assert not bad.truncated
        assert (await served.event("handler_error")).reason == "ZeroDivisionError: the bug"
        await good.send_all(b"live")
        assert await good.receive_some() == b"pong"
        for stream in (good, bad):
            await stream.aclose()


async def test_connection_lost_is_no_handler_error(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ended = trio.Event()

    async def handler(stream: TlsStream) -> None:
        try:
            while True:
                await stream.send_all(bytes(100_000))
        finally:
            ended.set()

    async with serving(server_context, handler=handler) as served:
        stream = await connect(served, client_context)
        assert await stream.receive_some()
        stream.abort()
        with trio.fail_after(10):
            await ended.wait()
        await ping_new(served, client_context)
        assert served.results == ["ok", "ok"]


async def ping_new(served: Served, context: ssl.SSLContext) -> None:
    stream = await connect(served, context)
    assert await stream.receive_some()
    stream.abort()


async def test_event_handler_that_raises_is_contained(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    listeners = bind_tcp(HOST, 0)
    served = Served(listeners[0].getsockname()[1])

    def fail(event: object) -> None:
        raise RuntimeError(str(event))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: serve_tls(
                listeners,
                context=lambda: server_context,
                alpn=("mqtt",),
                handler=echo,
                verify=verify_client,
                on_event=fail,
            )
        )
        stream = await connect(served, client_context)
        await ping(stream)
        await stream.aclose()
        nursery.cancel_scope.cancel()
    assert listeners[0].fileno() < 0


async def test_cancelling_closes_listeners_and_connections(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with serving(server_context) as served:
        streams = [await connect(served, client_context) for _ in range(3)]
        for stream in streams:
            await ping(stream)
        silent = await trio.open_tcp_stream(HOST, served.port)
        await trio.testing.wait_all_tasks_blocked(0.02)
    for stream in streams:
        assert await stream.receive_some() == b""
        assert not stream.truncated  # close-notify was sent although we were cancelled
        await stream.aclose()
    assert await end_of(silent) == b""
    with pytest.raises(ServerUnreachable, match="nothing listens there"):
        await connect(served, client_context)


async def test_silence_ends_at_the_deadline(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    limits = HandshakeLimits(deadline_s=0.3)
    async with serving(server_context, limits=limits) as served:
        raw = await trio.open_tcp_stream(HOST, served.port)
        assert await end_of(raw) == b""
        event = await served.event("timeout")
        assert 0.2 < event.seconds < 2


async def test_drip_feeding_does_not_extend_the_deadline(server_context: ssl.SSLContext) -> None:
    limits = HandshakeLimits(deadline_s=0.5)
    async with serving(server_context, limits=limits) as served:
        raw = await say(served, b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc")
        with trio.fail_after(5):
            try:
                while True:
                    await raw.send_all(b"\x00")
                    await trio.sleep(0.02)
            except trio.BrokenResourceError:
                pass
        assert served.results == ["timeout"]
        await raw.aclose()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
        os.urandom(3) + bytes(500),
    ],
)
async def test_garbage_is_closed_without_an_answer(
    garbage: bytes, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with serving(server_context) as served:
        stream = await connect(served, client_context)
        raw = await say(served, garbage)
        assert await end_of(raw) == b""
        await served.event("not_tls")
        await ping(stream)
        await stream.aclose()


async def test_oversize_handshake_is_refused_before_it_is_read(
    server_context: ssl.SSLContext,
) -> None:
    async with serving(server_context) as served:
        raw = await say(served, b"\x16\x03\x01\x40\x00\x01\x00\xff\xff")
        await end_of(raw)
        assert "65539 bytes" in (await served.event("too_large")).reason


async def test_connection_closed_before_or_inside_the_handshake_is_told_apart(
    server_context: ssl.SSLContext,
) -> None:
    async with serving(server_context) as served:
        raw = await trio.open_tcp_stream(HOST, served.port)
        await raw.aclose()
        assert "before it said anything" in (await served.event("closed")).reason
        raw = await trio.open_tcp_stream(HOST, served.port)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await raw.aclose()
        await served.event("reset")


async def test_one_address_cannot_take_all_places(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    limits = HandshakeLimits(max_per_address=2)
    async with serving(server_context, limits=limits) as served:
        silent = [await trio.open_tcp_stream(HOST, served.port) for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked(0.02)
        third = await trio.open_tcp_stream(HOST, served.port)
        assert await end_of(third) == b""
        assert "`127.0.0.1`" in (await served.event("overload")).reason
        for raw in silent:
            await raw.aclose()
        await served.event("closed", number=2)
        stream = await connect(served, client_context)
        await ping(stream)
        await stream.aclose()


async def test_silent_peers_make_room_for_those_who_speak(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    limits = HandshakeLimits(max_concurrent=3, max_per_address=3)
    async with serving(server_context, limits=limits) as served:
        silent = [await trio.open_tcp_stream(HOST, served.port) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.fail_after(5):
            stream = await connect(served, client_context)
            await ping(stream)
        reasons = [event.reason for event in served.events if event.result == "overload"]
        assert "3 handshakes are unfinished: accepting pauses" in reasons
        assert "silent while others waited for a place" in reasons
        await stream.aclose()
        for raw in silent:
            await raw.aclose()


async def test_crowd_beyond_all_places_is_served_in_turn(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    limits = HandshakeLimits(max_concurrent=4, max_per_address=4)
    async with serving(server_context, limits=limits) as served:

        async def visit() -> None:
            stream = await connect(served, client_context)
            await ping(stream)
            await stream.aclose()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(visit)
        assert served.results.count("ok") == 30


class Exhausted(socket.socket):
    """A listening socket of a system without descriptors, for the first few times."""

    failures: list[int]

    @override
    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            raise OSError(self.failures.pop(), "Too many open files")
        return super().accept()


async def test_accepting_goes_on_when_the_system_was_exhausted(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    listener = Exhausted()
    listener.failures = [errno.ECONNABORTED, errno.EMFILE, errno.ENFILE]
    listener.bind((HOST, 0))
    listener.listen()
    listener.settimeout(0)
    served = Served(listener.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: serve_tls(
                [listener],
                context=lambda: server_context,
                alpn=("mqtt",),
                handler=echo,
                verify=verify_client,
                on_event=served.tell,
            )
        )
        stream = await connect(served, client_context)
        await ping(stream)
        await stream.aclose()
        assert "raise the limit of open files" in (await served.event("accept_failed")).reason
        assert served.results.count("accept_failed") == 2
        nursery.cancel_scope.cancel()


async def test_listener_closed_by_somebody_else_is_an_error(server_context: ssl.SSLContext) -> None:
    (listener,) = bind_tcp(HOST, 0)

    async def serve() -> None:
        with pytest.raises(ExceptionGroup) as group:
            await serve_tls(
                [listener],
                context=lambda: server_context,
                alpn=("mqtt",),
                handler=echo,
                verify=verify_client,
                on_event=print,
            )
        assert group.group_contains(TransportClosed, match="the listener was closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked(0.02)
        trio.lowlevel.notify_closing(listener)
        listener.close()
