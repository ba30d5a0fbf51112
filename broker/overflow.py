"""Messages of a session that wait in the store only, because its queue in memory is full, and how they come back.

*Theory of operation.* A message that goes there is numbered and written like any other of its session, and its packets
leave memory with the commit; what stays is a `Spilled`. When half of the queue in memory is free, as many as fit are
read back, in order, by a worker thread, and join the end of the queue under the numbers they have. While anything waits
there every later message of the session goes there too, so that nobody overtakes.

*Rules of this file.* Messages of shared subscriptions do not wait here: they must be at hand to be handed on, so other
members get them. Only what is on disk is read back. One read a session is under way. What cannot be read stays where
it is and is tried again; a session that ended meanwhile gets nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
import trio
from typing_extensions import override

from broker.store_schema import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.durability import Durability
    from broker.faults import Faults
    from broker.records import MessageRecord, QueuedRecord

log = structlog.get_logger("stockade.broker.overflow")

SPILLED_BYTES = 256  # of memory that one takes; measured as 210 with its message's count
MOST_READ = 128  # entries read back in one go: to make messages of them takes some 20 us each
RETRY_S, MOST_RETRY_S = 1.0, 60.0  # after a read that failed; twice as long after each more


@dataclass(slots=True, frozen=True)
class Spilled:
    """Messages with consecutive numbers that are in the store only.

    Attributes:
        sequence: number of the first.
        count: how many.
        message_id: where their packets are.
        size_bytes: of these packets, together.
    """

    sequence: int
    count: int
    message_id: int
    size_bytes: int

    @property
    def end(self) -> int:
        """The number behind the last."""
        return self.sequence + self.count


class Overflow:
    """What of one session is in the store only.

    Attributes:
        messages: how many.
        bytes: of their packets.
        durable_below: messages with lower numbers are on disk.
        reading: some are being read back.
    """

    __slots__ = ("_entries", "bytes", "durable_below", "messages", "reading")

    def __init__(self, entries: Sequence[Spilled] = ()) -> None:
        """Start with what an earlier life left there, in order."""
        self._entries = deque(entries)
        self.messages = sum(each.count for each in entries)
        self.bytes = sum(each.size_bytes for each in entries)
        self.durable_below = entries[-1].end if entries else 0
        self.reading = False

    @override
    def __repr__(self) -> str:
        return f"<Overflow of {self.messages} messages, {self.bytes} bytes>"

    def __len__(self) -> int:
        """Entries."""
        return len(self._entries)

    def entries(self) -> list[Spilled]:
        """All of it, in order."""
        return list(self._entries)

    def add(self, spilled: Spilled) -> None:
        """Put messages at the end."""
        self._entries.append(spilled)
        self.messages += spilled.count
        self.bytes += spilled.size_bytes

    def next(self, messages: int, size_bytes: int) -> list[Spilled]:
        """The first of those that are on disk, as many as fit into the room there is; one at least, if it is on disk."""
        found: list[Spilled] = []
        for each in self._entries:
            messages -= each.count
            size_bytes -= each.size_bytes
            if each.end > self.durable_below or (found and (messages < 0 or size_bytes < 0)):
                break
            found.append(each)
            if len(found) == MOST_READ:
                break
        return found

    def take(self, spilled: Spilled) -> int | None:
        """Take out the first entry, which is this one.

        Returns:
            the number of the one that is first then, None if it was the last.
        """
        self._entries.popleft()
        self.messages -= spilled.count
        self.bytes -= spilled.size_bytes
        return self._entries[0].sequence if self._entries else None


class Refilled(Protocol):
    """A session's deliveries, as far as they are read back."""

    @property
    def session_id(self) -> int:
        """Its key in the store; 0 when it has ended."""
        ...

    def wanted(self) -> list[Spilled]:
        """What is to be read back now; nothing when there is no room, or nobody to send to."""
        ...

    def bring(
        self,
        wanted: Sequence[Spilled],
        rows: dict[int, QueuedRecord],
        messages: dict[int, MessageRecord],
    ) -> None:
        """Put what was read at the end of the queue, and send what may be sent."""
        ...

    def bring_nothing(self) -> None:
        """Note that nothing is being read any more."""
        ...

    def go_on(self) -> None:
        """Send what may be sent."""
        ...


class Refiller:
    """Reads messages back, and has long queues sent in turns.

    *Resource handling*: `run` must be running for anything to be read.

    Attributes:
        failures: reads that failed.
    """

    def __init__(self, store: Durability, faults: Faults) -> None:
        """Read from `store`."""
        self._store = store
        self._faults = faults
        self._nursery: trio.Nursery | None = None
        self.failures = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read for as long as the broker lives."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def refill(self, delivery: Refilled) -> bool:
        """Have messages read back for a session; False when nobody would do it."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(self._refill, delivery)
        return True

    def go_on_later(self, delivery: Refilled) -> bool:
        """Have a session send the rest when others had their turn; False when nobody would do it."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(self._go_on, delivery)
        return True

    async def _go_on(self, delivery: Refilled) -> None:
        await trio.lowlevel.checkpoint()
        with self._faults.contained("send what waited for its turn"):
            delivery.go_on()

    async def _refill(self, delivery: Refilled) -> None:
        finished = False
        with self._faults.contained("read a queue back"):
            await self._read_back(delivery)
            finished = True
        if not finished:
            delivery.bring_nothing()

    async def _read_back(self, delivery: Refilled) -> None:
        """One read; after a failure it is tried again for as long as the session wants it."""
        pause_s = RETRY_S
        while wanted := delivery.wanted():
            try:
                rows, messages = await self._store.fetch(
                    delivery.session_id,
                    [each.sequence for each in wanted],
                    {each.message_id for each in wanted},
                )
                delivery.bring(wanted, rows, messages)
            except StoreError as error:
                if not delivery.session_id:
                    break  # it ended while its rows were read, and they with it
                self.failures += 1
                log.warning("queue not read back", session=delivery.session_id, reason=str(error))
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, MOST_RETRY_S)
            else:
                return
        delivery.bring_nothing()
