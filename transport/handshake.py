"""One server handshake from the first byte to a verified peer, within one deadline.

*Theory of operation.* Wait for the first byte, read the ClientHello with our own parser, and only then create TLS
objects: a silent peer costs a socket and nothing else. What we refuse ourselves before ServerHello (no common
application protocol) we say with a plaintext alert, what OpenSSL refuses with the alert it leaves behind. What we
refuse after the handshake (`verify`) has no alert that Python can send: the peer gets close-notify.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import trio

from certs.errors import CertsError
from certs.identity import PeerIdentity, read_identity
from transport.alerts import NO_APPLICATION_PROTOCOL
from transport.client_hello import ClientHello, HelloTooLong, NotTls, read_client_hello
from transport.errors import HandshakeFailed, TransportBroken
from transport.tls import TlsStream
from transport.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeLimits:
    """What strangers may cost us before they have a name.

    Attributes:
        deadline_s: seconds from accept to the end of the handshake, alert and goodbye included.
        max_bytes: bytes a peer may send before its handshake is over; OpenSSL would take a chain of 70 KB.
        max_concurrent: unfinished handshakes in all; accepting pauses while there are as many.
        max_per_address: unfinished handshakes of one IPv4 address or IPv6 /64; more are closed at once.
        threads: worker threads that compute handshakes; more than two gained nothing on two cores.
    """

    deadline_s: float = 10.0
    max_bytes: int = 16384
    max_concurrent: int = 256
    max_per_address: int = 64
    threads: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a listener demands of everyone.

    Attributes:
        context: makes or returns the TLS context of the moment; called once a connection.
        alpn: our application protocols; a client that offers others only is refused, one that offers none is not.
        verify: raises to refuse a peer whose certificate TLS has accepted.
        limits: bounds of one handshake and of all.
    """

    context: Callable[[], ssl.SSLContext]
    alpn: tuple[str, ...]
    verify: Callable[[TlsStream, PeerIdentity], None]
    limits: HandshakeLimits


async def accept_tls(
    wire: Wire,
    *,
    terms: Terms,
    peer_address: str,
    limiter: trio.CapacityLimiter,
    on_first_byte: Callable[[], None],
) -> TlsStream:
    """Do the server's side of the handshake and verify the peer.

    *Resource handling.* On any failure, and when cancelled, the wire is closed.

    Returns:
        The stream, with identity, protocol and server name.

    Raises:
        HandshakeFailed: with the word for the metric and the line for the log; the peer has been told.
    """
    try:
        with trio.fail_after(terms.limits.deadline_s):
            hello, first_bytes = await _read_hello(wire, terms.limits.max_bytes, on_first_byte)
            await _verify_protocols(wire, hello, terms.alpn)
            stream = TlsStream(
                wire,
                terms.context(),
                server_side=True,
                peer_address=peer_address,
                server_name=hello.server_name,
                first_bytes=first_bytes,
            )
            await _shake_hands(stream, terms, limiter)
    except trio.TooSlowError as error:
        wire.close()
        reason = f"the handshake was not over within {terms.limits.deadline_s:g} s"
        raise HandshakeFailed("timeout", reason) from error
    except BaseException:
        wire.close()
        raise
    return stream


async def _read_hello(
    wire: Wire, max_bytes: int, on_first_byte: Callable[[], None]
) -> tuple[ClientHello, bytes]:
    received = bytearray()
    try:
        while True:
            data = await wire.receive(max_bytes + 1 - len(received))
            if not data:
                raise HandshakeFailed(
                    "closed", "the client closed the connection before it said anything"
                )
            if not received:
                on_first_byte()
            received += data
            if (hello := read_client_hello(received, max_bytes=max_bytes)) is not None:
                return hello, bytes(received)
            if len(received) > max_bytes:
                raise HandshakeFailed(
                    "too_large", f"the client sent more than {max_bytes} bytes of ClientHello"
                )
    except NotTls as error:
        raise HandshakeFailed("not_tls", str(error)) from error
    except HelloTooLong as error:
        raise HandshakeFailed("too_large", str(error)) from error
    except TransportBroken as error:
        if isinstance(error, HandshakeFailed):
            raise
        raise HandshakeFailed("reset", str(error)) from error


async def _verify_protocols(wire: Wire, hello: ClientHello, alpn: tuple[str, ...]) -> None:
    if not hello.protocols or not alpn or not set(alpn).isdisjoint(hello.protocols):
        return
    await wire.goodbye(NO_APPLICATION_PROTOCOL)
    offered = ", ".join(f"`{_printable(protocol)}`" for protocol in hello.protocols[:8])
    raise HandshakeFailed("alpn", f"the client offers {offered} and no protocol of ours")


async def _shake_hands(stream: TlsStream, terms: Terms, limiter: trio.CapacityLimiter) -> None:
    try:
        await stream.handshake(max_bytes=terms.limits.max_bytes, limiter=limiter)
        stream.identity = _verify_peer(stream, terms)
    except HandshakeFailed:
        await stream.aclose()
        raise


def _verify_peer(stream: TlsStream, terms: Terms) -> PeerIdentity:
    certificate = stream.peer_certificate()
    if (
        certificate is None
    ):  # only with a context that demands no certificate: still nobody gets in without
        raise HandshakeFailed("no_certificate", "the client sent no certificate")
    try:
        identity = read_identity(certificate)
    except CertsError as error:
        raise HandshakeFailed("bad_certificate", str(error)) from error
    try:
        terms.verify(stream, identity)
    except Exception as error:
        raise HandshakeFailed("refused", str(error) or type(error).__name__) from error
    return identity


def _printable(protocol: str) -> str:
    return "".join(c if " " < c <= "~" else "?" for c in protocol[:32])
