"""A connected socket that never blocks the thread, keeps what the kernel did not take, and ends once.

*Rules of this file.* Whatever can wait has `async`; whatever has no `async` never waits. What the kernel did not take
is `tail`, and bytes leave in the order they were given. Why the connection ended is recorded once, in `ended`, so that
all tasks on one connection are told the same story (`verify_open`).
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

from transport.errors import TransportBroken, TransportClosed, TransportError

# Nearly four full TLS records; also what one turn of a fast peer may bring.
READ_BYTES: Final = 65536
FAREWELL_S: Final = 0.5  # how long `goodbye` may take in all
# How much of it we read on, so that the kernel does not turn our last words into a reset.
DRAIN_S: Final = 0.25
# A peer that keeps on sending is not listened to for longer than this; an upload that is too long by some megabytes
# still gets to read why.
MAX_DRAIN_BYTES: Final = 8 << 20


class Wire:
    """One connected stream socket, owned.

    *Resource handling.* `close` (at once) or `goodbye` ends it; both may be called again without harm.

    Attributes:
        tail: bytes given to `send` that the kernel has not taken, None when there are none.
        ended: None while the connection is good, then what makes the error to raise.
    """

    __slots__ = ("_broken", "_socket", "ended", "tail")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._socket = sock
        self._broken = False
        self.tail: memoryview | None = None
        self.ended: Callable[[], TransportError] | None = None

    @property
    def closed(self) -> bool:
        """Whether the socket is gone."""
        return self._socket.fileno() < 0

    def verify_open(self) -> None:
        """Raise what ended the connection, if anything did."""
        if self.ended is not None:
            raise self.ended()

    def end(self, make: Callable[[], TransportError]) -> TransportError:
        """Record why the connection ended, unless that is known already, and return the error to raise."""
        if self.ended is None:
            self.ended = make
        return self.ended()

    # -- receiving

    def receive_now(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Return bytes that are here, `b""` when the peer sends no more, None when it would have to wait."""
        try:
            return self._socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._break(error) from error

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        """Wait for bytes; `b""` when the peer sends no more."""
        while (data := self.receive_now(max_bytes)) is None:
            await self.wait_readable()
        return data

    async def wait_readable(self) -> None:
        """Wait until there is something to receive.

        HOT: once a message of an idle client, so without the call of `_wait`.
        """
        try:
            await wait_readable(self._socket)
        except trio.ClosedResourceError as error:
            raise self.end(partial(TransportClosed, "the stream is closed")) from error

    # -- sending

    def send(self, data: bytes) -> bool:
        """Hand `data` to the kernel; True when all of it is gone, False when a `tail` is left.

        INVARIANT: never called while there is a tail; `append` is for that.
        """
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._break(error) from error
        if sent == len(data):
            return True
        self.tail = memoryview(data)[sent:]
        return False

    def append(self, data: bytes) -> None:
        """Put `data` behind what is still unsent."""
        if data:
            self.tail = memoryview(data if self.tail is None else bytes(self.tail) + data)

    async def send_tail(self) -> None:
        """Wait until the kernel has taken everything.

        *Cancellation.* Nothing is lost: what was not taken stays in `tail`.
        """
        while self.tail is not None:
            try:
                sent = self._socket.send(self.tail)
            except BlockingIOError:
                await self.wait_writable()
                continue
            except OSError as error:
                raise self._break(error) from error
            self.tail = self.tail[sent:] if sent < len(self.tail) else None

    async def wait_writable(self) -> None:
        """Wait until the kernel takes bytes again."""
        await self._wait(wait_writable)

    # -- ending

    async def goodbye(self, last_words: bytes = b"") -> None:
        """Send what is unsent and `last_words`, then FIN, then read on for a moment, then close.

        *Cancellation.* Closes at once. Takes at most `FAREWELL_S` in any case.
        """
        self.ended = partial(TransportClosed, "the stream is closed")
        if self.closed:
            return
        notify_closing(
            self._socket
        )  # others who wait on it leave with TransportClosed, so that we may wait
        try:
            # A peer that is gone already is nobody to say goodbye to.
            with suppress(TransportError, OSError), trio.move_on_after(FAREWELL_S):
                if not self._broken:
                    self.append(last_words)
                    await self.send_tail()
                    self._socket.shutdown(socket.SHUT_WR)
                    await self._drain()
        finally:
            self.close()

    def close(self) -> None:
        """Close at once; others who wait on it leave with `TransportClosed`."""
        if self.closed:
            return
        self.ended = partial(TransportClosed, "the stream is closed")
        notify_closing(self._socket)
        self._socket.close()
        self.tail = None

    async def _drain(self) -> None:
        left = MAX_DRAIN_BYTES
        with trio.move_on_after(DRAIN_S):
            while left > 0 and (got := await self.receive()):
                left -= len(got)
                await trio.lowlevel.checkpoint()

    async def _wait(self, ready: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await ready(self._socket)
        except trio.ClosedResourceError as error:
            raise self.end(partial(TransportClosed, "the stream is closed")) from error

    def _break(self, error: OSError) -> TransportError:
        if self.closed:
            return self.end(partial(TransportClosed, "the stream is closed"))
        self._broken = True
        words = (error.strerror or str(error)).lower()
        return self.end(partial(TransportBroken, f"the connection broke: {words}"))
