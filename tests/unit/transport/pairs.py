"""Connected pairs of TLS streams over loopback TCP, for the tests of this room."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from transport.tls import TlsStream
from transport.wire import Wire

MAX_HANDSHAKE_BYTES = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both ends of one TLS connection, in one process."""

    client: TlsStream
    server: TlsStream


def tcp_pair(*, buffer_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets over loopback: (client, server)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        if buffer_bytes is not None:
            for sock in (listener, client):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server


def raw_pair(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    *,
    buffer_bytes: int | None = None,
) -> Pair:
    """Both ends before their handshakes."""
    client, server = tcp_pair(buffer_bytes=buffer_bytes)
    return Pair(
        client=TlsStream(
            Wire(client),
            client_context,
            server_side=False,
            server_name="localhost",
            peer_address="server",
        ),
        server=TlsStream(Wire(server), server_context, server_side=True, peer_address="client"),
    )


@asynccontextmanager
async def connected(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    *,
    buffer_bytes: int | None = None,
) -> AsyncIterator[Pair]:
    """Both ends after their handshakes; both are closed at the end."""
    pair = raw_pair(client_context, server_context, buffer_bytes=buffer_bytes)
    try:
        async with trio.open_nursery() as nursery:
            for stream in (pair.client, pair.server):
                nursery.start_soon(shake, stream)
        yield pair
    finally:
        pair.client.abort()
        pair.server.abort()


async def shake(stream: TlsStream) -> None:
    with trio.fail_after(10):
        await stream.handshake(max_bytes=MAX_HANDSHAKE_BYTES)
