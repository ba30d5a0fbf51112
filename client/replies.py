"""Answers to requests: one topic for all of them, told apart by Correlation Data (MQTT 5.0 section 4.10)."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from client.errors import ConnectionLost, LocalMisuse
from mqtt.packets import Publish

MAX_REQUESTS = 4096
"""Requests awaiting their answer; more wait for a place."""

CORRELATION_BYTES = 8
"""Fixed, so that answers to equal requests have equal sizes and travel as one run."""


@dataclass(slots=True, kw_only=True)
class Request:
    """One request that awaits its answer."""

    correlation: bytes
    done: trio.Event = field(default_factory=trio.Event)
    answer: Publish | None = None


class Replies:
    """Pairs answers with requests."""

    def __init__(self, topic: str) -> None:
        """Start with none.

        Args:
            topic: where answers are sent: ours alone, so that it also tells this connection from others.
        """
        self.topic = topic
        self.strays = 0
        """Answers nobody waits for (any more)."""
        self._slots = trio.Semaphore(MAX_REQUESTS)
        self._requests: dict[bytes, Request] = {}
        self._number = 0
        self._lost: ConnectionLost | None = None

    def __len__(self) -> int:
        """How many answers are due."""
        return len(self._requests)

    async def open(self) -> Request:
        """Begin a request; waits while too many are open. Whoever opens must `close`.

        Raises:
            ConnectionLost: there is no use in waiting.
        """
        await self._slots.acquire()
        if self._lost is not None:
            self._slots.release()
            raise self._lost
        return self._add()

    def open_many(self, count: int) -> list[Request]:
        """Begin up to `count` requests, as many as there are places for; at once, maybe none.

        Raises:
            ConnectionLost: there is no use in it.
        """
        if self._lost is not None:
            raise self._lost
        if count > MAX_REQUESTS:
            raise LocalMisuse(f"at most {MAX_REQUESTS} requests can be open")
        opened: list[Request] = []
        for _ in range(min(count, self._slots.value)):
            self._slots.acquire_nowait()
            opened.append(self._add())
        return opened

    def settle(self, message: Publish) -> None:
        """Give an answer to its request; one that nobody waits for is counted and dropped."""
        request = self._requests.get(message.properties.correlation_data or b"")
        if request is None or request.answer is not None:
            self.strays += 1
            return
        request.answer = message
        request.done.set()

    def close(self, request: Request) -> None:
        """End a request, answered or not."""
        if self._requests.pop(request.correlation, None) is not None:
            self._slots.release()

    def fail(self, lost: ConnectionLost) -> None:
        """Tell everyone who waits, now and later, that the connection is gone."""
        self._lost = lost
        for request in list(self._requests.values()):
            request.done.set()

    def _add(self) -> Request:
        self._number += 1
        request = Request(correlation=self._number.to_bytes(CORRELATION_BYTES, "big"))
        self._requests[request.correlation] = request
        return request
