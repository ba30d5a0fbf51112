"""What waits to be sent over one RPC connection, bounded.

A peer that does not read must not make us keep its mail for ever: a full outbox is an error, and the connection is
dropped. A broker that comes back gets the whole policy, so nothing is lost by it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from controller.errors import OutboxFull

if TYPE_CHECKING:
    from collections.abc import Iterator

# The largest answer is 3 MB and a broker has a few asks in flight; a delta is 100 bytes. Chosen, not measured.
MAX_OUTBOX_BYTES = 16 << 20
MAX_OUTBOX_FRAMES = 8192


class Outbox:
    """A bounded queue of encoded frames; a stream of frames counts as one and is encoded while it is sent."""

    def __init__(self) -> None:
        self._items: deque[bytes | Iterator[bytes]] = deque()
        self._bytes = 0
        self._filled = trio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, frame: bytes) -> None:
        """Queue one frame.

        Raises:
            OutboxFull: the peer does not read; end the connection.
        """
        if self._bytes + len(frame) > MAX_OUTBOX_BYTES or len(self._items) >= MAX_OUTBOX_FRAMES:
            raise OutboxFull(
                f"the peer does not read: {len(self._items)} frames, {self._bytes} bytes are waiting"
            )
        self._bytes += len(frame)
        self._items.append(frame)
        self._filled.set()

    def put_stream(self, frames: Iterator[bytes]) -> None:
        """Queue a series of frames that are made when they are sent."""
        self._items.append(frames)
        self._filled.set()

    async def take(self) -> bytes:
        """Return the next frame; waits for one.

        Cancellation: nothing is taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            while self._items:
                head = self._items[0]
                if isinstance(head, bytes):
                    self._items.popleft()
                    self._bytes -= len(head)
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return head
                frame = next(head, None)
                if frame is not None:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return frame
                self._items.popleft()
            self._filled = trio.Event()
            await self._filled.wait()
