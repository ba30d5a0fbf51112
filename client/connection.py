"""Opening a connection to a broker: the door of this room.

async with connect(host="localhost", port=8883, context=context) as client:
await client.subscribe("telemetry/#")
await client.publish("telemetry/cpu", b"42", qos=1)
async for message in client.messages:
...
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from client.handshake import Endpoint, open_connection
from client.session import Client
from mqtt.packets import EMPTY, Connect, Properties, Version, Will

__all__ = ["Client", "connect"]

RECEIVE_MAXIMUM = 256
"""QoS 1 messages the broker may have unacknowledged with us."""

MAX_PACKET_BYTES = 4 * 1024 * 1024
"""Largest packet we accept, unless the caller wants more: a kernel's batch, not a file."""


@asynccontextmanager
async def connect(
    *,
    host: str,
    port: int,
    context: ssl.SSLContext,
    server_name: str | None = None,
    client_id: str = "",
    clean_start: bool = True,
    keep_alive_s: int = 30,
    version: Version = Version.V5,
    will: Will | None = None,
    properties: Properties = EMPTY,
    reply_prefix: str | None = None,
    deadline_s: float = 10.0,
    max_packet_bytes: int = MAX_PACKET_BYTES,
) -> AsyncGenerator[Client]:
    """Connect over mutual TLS and wait for CONNACK; on leaving say DISCONNECT and close.

    An exception of the block comes out as it is, not wrapped in a group.

    Args:
        host: name or address of the broker.
        port: its TCP port.
        context: e.g. of `certs.contexts.client_context`, offering the protocol `mqtt`.
        server_name: the name the broker's certificate must be valid for; `host` if not given.
        client_id: empty lets the broker choose one (MQTT 5.0 section 3.1.3.1).
        clean_start: forget an earlier session.
        keep_alive_s: seconds; 0 for none. The broker may choose another.
        version: 5.0 or 3.1.1.
        will: published by the broker if we vanish.
        properties: of CONNECT; Receive Maximum and Maximum Packet Size are filled in.
        reply_prefix: topic below which answers to `request` shall come, e.g. `results/sensor`.
        deadline_s: for everything until CONNACK, seconds.
        max_packet_bytes: largest packet accepted.

    Raises:
        ConnectFailed: or one of its kinds: see `client.errors`.
        LocalMisuse: MQTT does not allow such a CONNECT.
    """
    packet = Connect(
        client_id=client_id,
        clean_start=clean_start,
        keep_alive=keep_alive_s,
        version=version,
        will=will,
        properties=_connect_properties(properties, version, max_packet_bytes),
    )
    endpoint = Endpoint(host=host, port=port, context=context, server_name=server_name or host)
    opened = await open_connection(
        endpoint, packet, max_packet_bytes=max_packet_bytes, deadline_s=deadline_s
    )
    client = Client(opened, client_id=client_id, reply_prefix=reply_prefix)
    agreed_s = opened.connack.properties.server_keep_alive
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            client.start(nursery, keep_alive_s if agreed_s is None else agreed_s)
            try:
                yield client
            finally:
                await client.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery wraps the block's exception; our own tasks raise nothing but Cancelled.
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it refers to this frame


def _connect_properties(
    properties: Properties, version: Version, max_packet_bytes: int
) -> Properties:
    if version is not Version.V5:
        return properties
    return replace(
        properties,
        receive_maximum=properties.receive_maximum or RECEIVE_MAXIMUM,
        maximum_packet_size=properties.maximum_packet_size or max_packet_bytes,
    )
