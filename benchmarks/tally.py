"""Counts what arrives: the one check a receiver makes for a read, and none for a message."""

from __future__ import annotations

from benchmarks.blocks import Block, Protocol
from benchmarks.nats_session import PING


class Tally:
    """Counts the bytes of equally long messages on one connection, and checks that they are.

    *Theory of operation.* A NATS server sends one `PING` some two seconds after CONNECT, in the midst of
    messages. Looking for it would cost a search of every byte. But it shifts everything behind it, and one
    byte a read shows whether a message begins where it should.

    Attributes:
        received: bytes of messages so far.
    """

    def __init__(self, block: Block, protocol: Protocol) -> None:
        """Start at the beginning of a message."""
        self.received = 0
        self._stride = block.stride
        self._first_byte = block.arriving[0]
        self._may_ping = protocol == "nats"
        self._tail = b""
        self._keep = self._stride + len(PING)

    @property
    def tail(self) -> bytes:
        """The last message, once all of it is there."""
        return self._tail.replace(PING, b"")[-self._stride :]

    def add(self, data: memoryview) -> None:
        """Count what one read gave.

        Raises:
            ValueError: a message does not begin where it should.
        """
        self.received += len(data)
        keep = self._keep
        if len(data) >= keep:
            self._tail = bytes(data[-keep:])
        else:
            self._tail = (self._tail + bytes(data))[-keep:]
        since = self.received % self._stride or self._stride
        if len(self._tail) >= since and self._tail[-since] != self._first_byte:
            self._shifted(since)

    def _shifted(self, since: int) -> None:
        if self._may_ping and since < len(PING) and self._tail.endswith(PING[:since]):
            return  # the rest of it comes with the next read
        if not self._may_ping:
            raise ValueError("a message does not begin where it should")
        self._may_ping = False  # the next one is due in an hour
        self.received -= len(PING)
