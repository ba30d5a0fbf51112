"""MQTT over secure WebSocket: one door to trio-websocket, which runs on our own TLS stream.

*Rules of this file*: the path is `/mqtt`, the client offers the subprotocol `mqtt` (6.0.0-3), a text
frame ends the connection (6.0.0-1), packets may span frames and frames may hold many (6.0.0-2).
The link has the same face as a TLS stream, so a session does not know the difference: `send_now`
keeps everything and the outlet's writer task sends it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PATH = "/mqtt"
SUBPROTOCOL = "mqtt"
UPGRADE_S = 10.0  # seconds from the TLS handshake to a complete upgrade request
CLOSE_S = 1.0  # seconds a close handshake may take
QUEUED_MESSAGES = 1  # read ahead of the session, beside the one that is being read; each at most `max_message_bytes`
UNSUPPORTED_DATA = 1003  # RFC 6455 section 7.4.1


class WebSocketLink:
    """A WebSocket as a stream of MQTT bytes."""

    __slots__ = ("_connection", "_kept", "_left", "_sending")

    def __init__(self, connection: WebSocketConnection) -> None:
        """Wrap an accepted connection."""
        self._connection = connection
        self._left = b""
        self._kept: list[bytes] = []
        self._sending = trio.Lock()

    async def receive_some(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes of the client; b"" when it closed or sent a text frame."""
        while not self._left:
            try:
                message = await self._connection.get_message()
            except ConnectionClosed:
                return b""
            if isinstance(message, str):
                await self._close(UNSUPPORTED_DATA, "MQTT needs binary frames")
                return b""
            self._left = bytes(message)
        data, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return data

    def send_now(self, data: bytes) -> bool:
        """Keep the bytes for `flush`: a WebSocket cannot be written without waiting."""
        self._kept.append(bytes(data))
        return False

    async def flush(self) -> None:
        """Send everything kept as one frame.

        Raises:
            trio.BrokenResourceError: the client is gone.
        """
        async with self._sending:
            while self._kept:
                data = b"".join(self._kept)
                self._kept.clear()
                try:
                    await self._connection.send_message(data)
                except ConnectionClosed as error:
                    message = "the websocket is closed"
                    raise trio.BrokenResourceError(message) from error

    async def aclose(self) -> None:
        """Close handshake, bounded by `CLOSE_S`."""
        await self._close(1000, "")

    async def _close(self, code: int, reason: str) -> None:
        with trio.move_on_after(CLOSE_S):
            await self._connection.aclose(code, reason)


@asynccontextmanager
async def accept_websocket(
    stream: trio.abc.Stream, *, max_message_bytes: int
) -> AsyncGenerator[WebSocketLink | None]:
    """Answer an upgrade request on a TLS stream.

    Args:
        stream: our TLS stream, after the handshake.
        max_message_bytes: largest frame or fragmented message taken.

    Yields:
        The link; None when the request was refused (and answered) or never came.

    Resource handling: the connection is closed, bounded in time, when the context ends.
    """
    async with trio.open_nursery() as nursery:
        link: WebSocketLink | None = None
        with trio.move_on_after(UPGRADE_S):
            link = await _upgrade(nursery, stream, max_message_bytes)
        try:
            yield link
        finally:
            if link is not None:
                with trio.CancelScope(shield=True):
                    await link.aclose()
            nursery.cancel_scope.cancel()


async def _upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, max_message_bytes: int
) -> WebSocketLink | None:
    try:
        request = await trio_websocket.wrap_server_stream(
            nursery,
            stream,
            max_message_size=max_message_bytes,
            message_queue_size=QUEUED_MESSAGES,
        )
        if request.path.partition("?")[0] != PATH:
            await request.reject(404, body=b"MQTT is at /mqtt\n")
            return None
        if SUBPROTOCOL not in request.proposed_subprotocols:
            await request.reject(400, body=b"offer the subprotocol mqtt\n")
            return None
        return WebSocketLink(await request.accept(subprotocol=SUBPROTOCOL))
    except (trio_websocket.HandshakeError, ConnectionClosed, trio.BrokenResourceError):
        return None
