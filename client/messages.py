"""The messages that arrive: a bounded channel that says why it ended."""

from __future__ import annotations

from collections.abc import Callable

import trio
from typing_extensions import override

from client.errors import ConnectionLost
from mqtt.packets import Publish


class Messages(trio.abc.ReceiveChannel[Publish]):
    """Receives what the subscriptions bring, in order; iterate it with `async for`.

    While it is full nothing more is read from the socket, and TCP slows the broker down. It also keeps
    acknowledgements and answers from being read: a client with subscriptions must read its messages.
    """

    def __init__(
        self,
        channel: trio.MemoryReceiveChannel[Publish],
        lost: Callable[[], ConnectionLost | None],
    ) -> None:
        self._channel = channel
        self._lost = lost

    @override
    async def receive(self) -> Publish:
        """Return the next message.

        Raises:
            ConnectionLost: the connection broke, and everything that came before is read.
            trio.EndOfChannel: we closed the connection ourselves.
        """
        try:
            return await self._channel.receive()
        except trio.EndOfChannel:
            self._raise_if_lost()
            raise

    def receive_nowait(self) -> Publish:
        """Return the next message if there is one.

        Raises:
            trio.WouldBlock: there is none now.
            ConnectionLost: as for `receive`.
            trio.EndOfChannel: as for `receive`.
        """
        try:
            return self._channel.receive_nowait()
        except trio.EndOfChannel:
            self._raise_if_lost()
            raise

    @override
    async def aclose(self) -> None:
        """Take no more messages; those that still come are dropped."""
        await self._channel.aclose()

    def _raise_if_lost(self) -> None:
        lost = self._lost()
        if lost is not None:
            raise lost
