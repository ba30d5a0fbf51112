"""The one way out: packets of several tasks leave whole, in order, and with back-pressure.

*Rules of this file.* Whoever sends holds the lock until the kernel has all of it, so only one task at a
time waits for the socket. The receiving task must never wait for the socket (two ends that both only
write would wait for each other for ever): it `post`s its acknowledgements, which leave at once, or
behind what is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from client.errors import ConnectionLost

MAX_CHUNK_BYTES = 256 * 1024
"""Most that is encrypted before the kernel is asked to take it: a packet may have 256 MB."""

MAX_POSTED_BYTES = 64 * 1024
"""Most acknowledgements kept back: far more than the Receive Maximum we announce can cost."""

STALL_S = 60.0
"""How long the broker may take none of our bytes: it may pause a publisher, but not for ever."""


class Sink(Protocol):
    """What is needed of a TLS stream."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""
        ...

    def send_now(self, data: bytes | bytearray | memoryview) -> bool:
        """Take `data`; False if `flush` must follow."""
        ...

    async def flush(self) -> None:
        """Wait until the kernel has everything."""
        ...


class Writer:
    """Sends packets over one stream for many tasks."""

    def __init__(self, stream: Sink) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._posted = bytearray()
        self._wake = trio.Event()
        self.sends = 0
        """How often something was sent: tells the keep-alive whether the line was idle."""

    async def send(self, data: bytes, *, taken: Callable[[], None] | None = None) -> None:
        """Send `data`, one or more whole packets; always a checkpoint.

        *Cancellation*: `data` leaves whole, or not at all if `taken` was not called yet.

        Args:
            data: the wire bytes.
            taken: called when it is our turn.

        Raises:
            ConnectionLost: the broker takes nothing any more.
            TransportError: the connection broke.
        """
        if self._lock.locked():
            await self._lock.acquire()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._lock.acquire_nowait()
        try:
            await self._settle()
            self._send_posted()
            await self._settle()
            self.sends += 1
            if taken is not None:
                taken()
            await self._send_chunks(data)
        finally:
            if self._stream.unsent_bytes or self._posted:
                self._wake.set()
            self._lock.release()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def post(self, data: bytes) -> None:
        """Send a small packet without ever waiting.

        Raises:
            ConnectionLost: the broker makes us owe more answers than we agreed to.
            TransportError: the connection broke.
        """
        self.sends += 1
        if self._lock.locked() or self._stream.unsent_bytes or self._posted:
            if len(self._posted) + len(data) > MAX_POSTED_BYTES:
                raise ConnectionLost("the broker sends but takes no acknowledgements")
            self._posted += data
            self._wake.set()
        elif not self._stream.send_now(data):
            self._wake.set()

    async def run(self) -> None:
        """Finish, for ever, what `post` and cancelled sends left behind."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            async with self._lock:
                await self._settle()
                self._send_posted()
                await self._settle()

    async def _send_chunks(self, data: bytes) -> None:
        if len(data) <= MAX_CHUNK_BYTES:
            self._stream.send_now(data)
            await self._settle()
            return
        with (
            trio.CancelScope(shield=True),
            memoryview(data) as view,
        ):  # half a packet ends everything
            for start in range(0, len(data), MAX_CHUNK_BYTES):
                self._stream.send_now(view[start : start + MAX_CHUNK_BYTES])
                await self._settle()

    def _send_posted(self) -> None:
        if self._posted:
            posted, self._posted = self._posted, bytearray()
            self._stream.send_now(posted)

    async def _settle(self) -> None:
        while self._stream.unsent_bytes:
            with trio.move_on_after(STALL_S) as scope:
                await self._stream.flush()
            if scope.cancelled_caught:
                raise ConnectionLost(f"the broker took no bytes for {STALL_S:.0f} s")
