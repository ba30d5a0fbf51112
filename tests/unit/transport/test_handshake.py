"""One server handshake over a raw connection: protocols, time, endings."""

from __future__ import annotations

import ssl

import pytest
import trio

from certs.identity import PeerIdentity
from tests.unit.transport.pairs import tcp_pair
from transport.alerts import NO_APPLICATION_PROTOCOL
from transport.errors import HandshakeFailed
from transport.handshake import HandshakeLimits, Terms, accept_tls
from transport.tls import TlsStream
from transport.wire import Wire


def accept_all(stream: TlsStream, identity: PeerIdentity) -> None:
    pass


def terms(context: ssl.SSLContext, *alpn: str, limits: HandshakeLimits | None = None) -> Terms:
    return Terms(
        context=lambda: context, alpn=alpn, verify=accept_all, limits=limits or HandshakeLimits()
    )


class Ends:
    """A client's stream before its handshake, and the server's wire."""

    def __init__(self, context: ssl.SSLContext) -> None:
        client, server = tcp_pair()
        self.server = Wire(server)
        self.raw = Wire(client)
        self.client = TlsStream(
            self.raw, context, server_side=False, server_name="localhost", peer_address="server"
        )
        self.heard = 0

    async def accept(self, demand: Terms) -> TlsStream:
        def hear() -> None:
            self.heard += 1

        return await accept_tls(
            self.server,
            terms=demand,
            peer_address="client",
            limiter=trio.CapacityLimiter(1),
            on_first_byte=hear,
        )

    async def shake(self) -> None:
        await self.client.handshake(max_bytes=65536)


@pytest.mark.parametrize(
    ("ours", "agreed"), [(("mqtt",), "mqtt"), (("mqtt", "other"), "mqtt"), ((), "mqtt")]
)
async def test_protocol_in_common_is_agreed(
    ours: tuple[str, ...],
    agreed: str,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> None:
    ends = Ends(client_context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.shake)
        stream = await ends.accept(terms(server_context, *ours))
    assert (stream.alpn, ends.client.alpn, ends.heard) == (agreed, agreed, 1)
    assert stream.server_name == "localhost"
    stream.abort()
    ends.client.abort()


async def test_no_protocol_offered_is_accepted_as_none(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    pki_client_without_alpn: ssl.SSLContext,
) -> None:
    ends = Ends(pki_client_without_alpn)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.shake)
        stream = await ends.accept(terms(server_context, "mqtt"))
    assert stream.alpn is None
    stream.abort()
    ends.client.abort()


async def test_no_protocol_in_common_gets_the_alert(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = Ends(client_context)

    async def client() -> None:
        with pytest.raises(HandshakeFailed) as failed:
            await ends.shake()
        assert (
            failed.value.reason == "the server ended TLS with the alert `no application protocol`"
        )
        await ends.client.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        with pytest.raises(HandshakeFailed, match="the client offers `mqtt`") as failed:
            await ends.accept(terms(server_context, "stockade-ctl/1"))
        assert failed.value.result == "alpn"
    assert ends.server.closed
    assert len(NO_APPLICATION_PROTOCOL) == 7


async def test_deadline_holds_in_every_stage(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    demand = terms(server_context, "mqtt", limits=HandshakeLimits(deadline_s=0.1))
    for hello in (False, True):
        ends = Ends(client_context)
        async with trio.open_nursery() as nursery:
            if hello:
                assert ends.raw.send(first_flight(client_context))
            with pytest.raises(HandshakeFailed, match=r"not over within 0\.1 s") as failed:
                await ends.accept(demand)
            assert failed.value.result == "timeout"
            assert ends.heard == hello
            assert ends.server.closed
            ends.client.abort()
            nursery.cancel_scope.cancel()


async def test_cancelling_closes_the_connection(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = Ends(client_context)
    with trio.move_on_after(0.05):
        await ends.accept(terms(server_context))
    assert ends.server.closed
    ends.client.abort()


async def test_too_many_bytes_after_the_hello_are_refused(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = Ends(client_context)
    hello = first_flight(client_context)
    limits = HandshakeLimits(max_bytes=len(hello) + 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.shake)
        with pytest.raises(HandshakeFailed, match="too many bytes") as failed:
            await ends.accept(terms(server_context, limits=limits))
        assert failed.value.result == "too_large"
        nursery.cancel_scope.cancel()
    ends.client.abort()


async def test_damaged_hello_gets_an_alert(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = Ends(client_context)
    hello = bytearray(first_flight(client_context))
    hello[9:11] = b"\x00\x00"  # legacy version 0.0
    async with trio.open_nursery() as nursery:
        assert ends.raw.send(bytes(hello))

        async def client() -> None:
            said = b""
            while data := await ends.raw.receive():
                said += data
            assert said[0] == 21
            ends.raw.close()

        nursery.start_soon(client)
        with pytest.raises(HandshakeFailed, match="the client broke TLS"):
            await ends.accept(terms(server_context))


def first_flight(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
