"""The client's side: connect, shake hands, know the server, and say plainly why not.

With TLS 1.3 a client learns only at its first read that the server refused its certificate: `connect_tls` succeeds, and
`receive_some` raises `RemoteAlert` with the server's reason. So a client counts as connected when its protocol's first
answer is here, not before.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Final

import trio

from certs.errors import CertsError
from certs.identity import PeerIdentity, read_identity
from transport.addresses import MAX_PORT, join_address
from transport.errors import HandshakeFailed, ServerUnreachable, ServerUntrusted, first_leaf
from transport.tls import TlsStream
from transport.wire import Wire

MAX_SERVER_HANDSHAKE_BYTES: Final = 65536  # a server we chose ourselves, whose chain may be long
CONNECT_DEADLINE_S: Final = 10.0


async def connect_tls(
    host: str,
    port: int,
    *,
    context: ssl.SSLContext,
    server_name: str | None = None,
    alpn: Sequence[str] = (),
    deadline_s: float = CONNECT_DEADLINE_S,
) -> TlsStream:
    """Connect to a server and verify it.

    *Resource handling.* The caller closes the stream. On failure, and when cancelled, nothing stays open.

    Args:
        host: name or address.
        port: TCP port.
        context: must demand and verify the server's certificate; carries ours, and our application protocols.
        server_name: the name its certificate must carry; default `host`.
        alpn: when given, the server must choose one of these.
        deadline_s: seconds for everything.

    Raises:
        ServerUnreachable: no TCP connection.
        ServerUntrusted: its certificate is not acceptable for `server_name`.
        HandshakeFailed: anything else that kept TLS from coming about.
        ValueError: the context would accept any server: a mistake of the caller.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED:
        raise ValueError("the context must demand the server's certificate")
    address = join_address(host, port)
    if not 0 < port <= MAX_PORT:
        raise ServerUnreachable(
            f"cannot connect to `{address}`: a port is a number from 1 to {MAX_PORT}"
        )
    wire: Wire | None = None
    try:
        with trio.fail_after(deadline_s):
            wire = await _connect(host, port, address)
            stream = TlsStream(
                wire,
                context,
                server_side=False,
                server_name=server_name or host,
                peer_address=address,
            )
            await _shake_hands(stream, alpn)
    except trio.TooSlowError as error:
        if wire is None:
            raise ServerUnreachable(
                f"cannot connect to `{address}`: no answer within {deadline_s:g} s"
            ) from error
        wire.close()
        raise HandshakeFailed(
            "timeout", f"`{address}` did not finish TLS within {deadline_s:g} s"
        ) from error
    except BaseException:
        if wire is not None:
            wire.close()
        raise
    return stream


async def _connect(host: str, port: int, address: str) -> Wire:
    try:
        tcp = await trio.open_tcp_stream(host, port)
    except (OSError, UnicodeError) as error:
        raise ServerUnreachable(f"cannot connect to `{address}`: {_why(error)}") from error
    sock = socket.socket(fileno=tcp.socket.detach())
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(sock)


async def _shake_hands(stream: TlsStream, alpn: Sequence[str]) -> None:
    try:
        await stream.handshake(max_bytes=MAX_SERVER_HANDSHAKE_BYTES)
        _verify_protocol(stream, alpn)
        stream.identity = _read_server(stream)
    except HandshakeFailed:
        await stream.aclose()
        raise


def _verify_protocol(stream: TlsStream, alpn: Sequence[str]) -> None:
    if alpn and stream.alpn not in alpn:
        wanted = " or ".join(f"`{protocol}`" for protocol in alpn)
        raise HandshakeFailed("alpn", f"the server does not speak {wanted}")


def _read_server(stream: TlsStream) -> PeerIdentity:
    certificate = stream.peer_certificate()
    if certificate is None:
        raise ServerUntrusted("no_certificate", "the server sent no certificate")
    try:
        return read_identity(certificate)
    except CertsError as error:
        raise ServerUntrusted("bad_certificate", str(error)) from error


def _why(error: Exception) -> str:
    """Say in words why a connection failed; Trio puts several attempts under one error."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = first_leaf(cause)
    if isinstance(cause, socket.gaierror | UnicodeError):
        return "the name is unknown; check the address"
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there; is the server running?"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause)
