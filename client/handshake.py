"""From an address to a broker's CONNACK, with every failure said in words.

A TLS 1.3 client is done with its handshake before the server has looked at its certificate, so a refused
certificate shows as an alert on the first read: only CONNACK means "connected".
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import trio
from typing_extensions import override

from client.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectRefused,
    LocalMisuse,
    ServerUntrusted,
)
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, RemoteProtocolError
from mqtt.packets import Connack, Connect, Role
from mqtt.reader import PacketReader
from transport import errors as transport_errors
from transport.connect import connect_tls
from transport.tls import TlsStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the broker is and how to prove both identities.

    Attributes:
        host: name or address.
        port: TCP port.
        context: client context with our certificate, key and the CA for the broker's.
        server_name: the name the broker's certificate must be valid for.
    """

    host: str
    port: int
    context: ssl.SSLContext
    server_name: str

    @override
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a successful opening leaves: the stream, the reader with maybe more bytes in it, the answer."""

    stream: TlsStream
    reader: PacketReader
    connack: Connack


async def open_connection(
    endpoint: Endpoint, packet: Connect, *, max_packet_bytes: int, deadline_s: float
) -> Opened:
    """Connect, send `packet`, wait for the CONNACK.

    *Resource handling*: the caller owns the stream; on any error it is closed.

    Raises:
        LocalMisuse: `packet` is not allowed by MQTT.
        CertificateRefused: the broker does not accept our certificate.
        ServerUntrusted: we do not accept the broker's.
        ConnectRefused: CONNACK with a failure.
        ConnectFailed: anything else, the time included.
    """
    try:
        request = encode(packet, packet.version)
    except LocalProtocolError as error:
        raise LocalMisuse(str(error)) from error
    reader = PacketReader(role=Role.CLIENT, max_packet_bytes=max_packet_bytes)
    reader.version = packet.version
    opened: Opened | None = None
    with trio.move_on_after(deadline_s):
        opened = await _open(endpoint, request, reader, deadline_s)
    if opened is None:
        raise ConnectFailed(f"{endpoint} did not answer CONNECT within {deadline_s:g} s")
    return opened


async def _open(
    endpoint: Endpoint, request: bytes, reader: PacketReader, deadline_s: float
) -> Opened:
    try:
        stream = await connect_tls(
            endpoint.host,
            endpoint.port,
            context=endpoint.context,
            # The context offers `mqtt`; many brokers choose nothing, and none can choose anything else.
            alpn=(),
            server_name=endpoint.server_name,
            deadline_s=deadline_s,
        )
    except transport_errors.TransportError as error:
        raise _in_words(error, endpoint) from error
    try:
        await stream.send_all(request)
        return Opened(stream=stream, reader=reader, connack=await _connack(stream, reader))
    except transport_errors.TransportError as error:
        stream.abort()
        raise _in_words(error, endpoint) from error
    except BaseException:
        stream.abort()
        raise


async def _connack(stream: TlsStream, reader: PacketReader) -> Connack:
    try:
        while (event := reader.next_event()) is None:
            data = await stream.receive_some()
            if not data:
                raise ConnectFailed("the broker closed the connection without an answer to CONNECT")
            reader.feed(data)
    except RemoteProtocolError as error:
        raise ConnectFailed(f"the answer to CONNECT is not MQTT: {error}") from error
    if not isinstance(event, Connack):
        raise ConnectFailed(f"the answer to CONNECT is {type(event).__name__.upper()}")
    if event.reason.failed:
        raise ConnectRefused(event.reason, event.properties.reason_string or "")
    return event


def _in_words(error: transport_errors.TransportError, endpoint: Endpoint) -> ConnectFailed:
    if isinstance(error, transport_errors.RemoteAlert):
        return CertificateRefused(f"the broker refused our certificate: {error}")
    if isinstance(error, transport_errors.ServerUntrusted):
        return ServerUntrusted(f"the certificate of {endpoint} is not trusted: {error}")
    return ConnectFailed(f"no connection to {endpoint}: {error}")
