"""Packet identifiers in use, and who waits for the acknowledgement of each.

*Rules of this file.* An identifier is free again when its acknowledgement has come, not when the caller
stops waiting (MQTT 5.0 section 2.2.1): a cancelled publish keeps its number until the broker answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from client.errors import ConnectionLost
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Puback, Suback, Unsuback

Acknowledgement = Puback | Suback | Unsuback

MAX_PUBLISHES = 1024
"""Unacknowledged QoS 1 messages we allow ourselves, whatever the broker's Receive Maximum."""

MAX_SUBSCRIPTION_CHANGES = 64
"""SUBSCRIBE and UNSUBSCRIBE packets awaiting their answer."""

MAX_PACKET_ID = 65_535  # section 2.2.1


@dataclass(slots=True, kw_only=True)
class Waiting:
    """One packet that awaits its acknowledgement."""

    packet_id: int
    expects: type[Acknowledgement]
    slots: trio.Semaphore
    done: trio.Event = field(default_factory=trio.Event)
    answer: Acknowledgement | None = None
    sent: bool = False

    def mark_sent(self) -> None:
        """From now on only the acknowledgement frees the identifier."""
        self.sent = True


class Inflight:
    """Gives out packet identifiers, bounded by what both sides allow."""

    def __init__(self, *, receive_maximum: int) -> None:
        """Start with none in use.

        Args:
            receive_maximum: unacknowledged publishes the broker accepts, from CONNACK.
        """
        self._publishes = trio.Semaphore(min(receive_maximum, MAX_PUBLISHES))
        self._changes = trio.Semaphore(MAX_SUBSCRIPTION_CHANGES)
        self._waiting: dict[int, Waiting] = {}
        self._last_id = 0
        self._lost: ConnectionLost | None = None

    def __len__(self) -> int:
        """How many acknowledgements are due."""
        return len(self._waiting)

    async def open(self, expects: type[Acknowledgement]) -> Waiting:
        """Reserve an identifier; waits while the bound is reached.

        *Cancellation*: nothing is reserved.

        Raises:
            ConnectionLost: there is no use in waiting.
        """
        slots = self._publishes if expects is Puback else self._changes
        await slots.acquire()
        if self._lost is not None:
            slots.release()  # to the next who waits in vain
            raise self._lost
        waiting = Waiting(packet_id=self._free_id(), expects=expects, slots=slots)
        self._waiting[waiting.packet_id] = waiting
        return waiting

    def settle(self, answer: Acknowledgement) -> None:
        """Give `answer` to whoever waits for it, and free its identifier.

        Raises:
            RemoteProtocolError: the broker acknowledges what we never sent.
        """
        waiting = self._waiting.get(answer.packet_id)
        if waiting is None or waiting.expects is not type(answer):
            name = type(answer).__name__.upper()
            raise RemoteProtocolError(
                f"{name} for packet {answer.packet_id}, which waits for none",
                ReasonCode.PROTOCOL_ERROR,
            )
        waiting.answer = answer
        self._free(waiting)

    def abandon(self, waiting: Waiting) -> None:
        """Free the identifier of a packet that was never sent."""
        if self._waiting.get(waiting.packet_id) is waiting:
            self._free(waiting)

    def fail(self, lost: ConnectionLost) -> None:
        """Tell everyone who waits, now and later, that the connection is gone."""
        self._lost = lost
        for waiting in list(self._waiting.values()):
            self._free(waiting)

    def _free(self, waiting: Waiting) -> None:
        del self._waiting[waiting.packet_id]
        waiting.slots.release()
        waiting.done.set()

    def _free_id(self) -> int:
        # Ends: the two semaphores admit far fewer than 65,535.
        while True:
            self._last_id = self._last_id % MAX_PACKET_ID + 1
            if self._last_id not in self._waiting:
                return self._last_id
