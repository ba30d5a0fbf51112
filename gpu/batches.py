"""Which rows lie in which slot and whom they belong to: the bookkeeping of one kernel's queue, without any I/O.

Theory of operation: a slot goes free -> filling -> closed -> running -> free. At most one is filling. It is closed
when it is full, or taken as it is when its first row has waited `max_delay_s` and the worker has nothing to do: while the
worker is busy a part of a batch stays here, where it can still grow.
A submit that does not fit into one slot is a ticket with several segments; its caller hears once, at the end.

INVARIANT: a slot is in exactly one of `free`, `filling`, `closed`, `running`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu.arena import Arena
from gpu.errors import KernelFault
from gpu.messages import Order

Payloads = npt.NDArray[np.uint8]
Done = Callable[[Payloads | KernelFault], None]


class Ticket:
    """One submit: whoever waits for its rows.

    Args:
        rows: how many were submitted.
        done: told once, unless the ticket is abandoned.
    """

    __slots__ = ("_done", "_left", "_result", "_rows")

    def __init__(self, rows: int, done: Done) -> None:
        self._rows = rows
        self._left = rows
        self._done: Done | None = done
        self._result: Payloads | None = None

    def abandon(self) -> None:
        """Forget the caller: the submit itself has failed."""
        self._done = None

    def deliver(self, row: int, outputs: Payloads) -> None:
        """Take the results of rows from `row` on; tell the caller when they are complete."""
        done = self._done
        if done is None:
            return
        if len(outputs) == self._rows:  # in one piece, as nearly always: no copy
            self._done = None
            done(outputs)
            return
        if self._result is None:
            self._result = np.empty((self._rows, outputs.shape[1]), np.uint8)
        self._result[row : row + len(outputs)] = outputs
        self._left -= len(outputs)
        if self._left == 0:
            self._done = None
            done(self._result)

    def fail(self, fault: KernelFault) -> None:
        """Tell the caller that there will be no result, unless it knows already."""
        done, self._done = self._done, None
        if done is not None:
            done(fault)


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` rows of `ticket` from its `row` on, that lie in a slot from `at` on."""

    ticket: Ticket
    row: int
    at: int
    count: int


@dataclass(slots=True, kw_only=True)
class Slot:
    """A batch's place in shared memory.

    Args:
        index: its number in the arena.
        inputs: (max_batch, in_bytes), shared.
        outputs: (max_batch, out_bytes), shared.
    """

    index: int
    inputs: Payloads
    outputs: Payloads
    segments: list[Segment] = field(default_factory=list[Segment])
    rows: int = 0
    opened_at: float = 0.0
    started_at: float = 0.0
    batch: int = 0

    def order(self) -> Order:
        """Return what the worker is told."""
        return Order(self.index, self.rows, self.batch)

    def tickets(self) -> list[Ticket]:
        """Return whose rows these are, each once."""
        return list(dict.fromkeys(segment.ticket for segment in self.segments))


class Batches:
    """The slots of one kernel and what is in them.

    Args:
        arena: shared memory.
        max_delay_s: seconds the first row of a batch waits for company.
    """

    def __init__(self, arena: Arena, *, max_delay_s: float) -> None:
        layout = arena.layout
        self._max_batch = layout.max_batch
        self._max_delay_s = max_delay_s
        self._free = deque(
            Slot(
                index=index,
                inputs=_rows(arena.inputs(index), layout.in_bytes),
                outputs=_rows(arena.outputs(index), layout.out_bytes),
            )
            for index in range(layout.slots)
        )
        self._filling: Slot | None = None
        self._closed: deque[Slot] = deque()
        self._running: deque[Slot] = deque()
        self._batches = 0

    @property
    def room(self) -> int:
        """Rows that can be taken now."""
        filling = self._max_batch - self._filling.rows if self._filling else 0
        return filling + len(self._free) * self._max_batch

    @property
    def queued(self) -> int:
        """Rows that have no result yet."""
        filling = self._filling.rows if self._filling else 0
        return filling + sum(slot.rows for slot in (*self._closed, *self._running))

    @property
    def running(self) -> int:
        """Batches the worker has."""
        return len(self._running)

    @property
    def head(self) -> Slot | None:
        """The batch the worker runs, or runs first."""
        return self._running[0] if self._running else None

    @property
    def close_at(self) -> float:
        """When the next batch may be taken: now (-inf) if one is full, not before a report (inf) if none is due."""
        if self._closed:
            return -math.inf
        if self._filling is None or self._running:
            return math.inf
        return self._filling.opened_at + self._max_delay_s

    def put(self, ticket: Ticket, payloads: Payloads, start: int, now: float) -> int:
        """Copy rows of `payloads` from `start` on, as many as there is room for; return how many."""
        taken = 0
        while start + taken < len(payloads):
            slot = self._filling
            if slot is None:
                if not self._free:
                    break
                slot = self._filling = self._free.popleft()
                slot.opened_at = now
            row = start + taken
            count = min(len(payloads) - row, self._max_batch - slot.rows)
            slot.inputs[slot.rows : slot.rows + count] = payloads[row : row + count]
            slot.segments.append(Segment(ticket, row, slot.rows, count))
            slot.rows += count
            taken += count
            if slot.rows == self._max_batch:
                self._closed.append(slot)
                self._filling = None
        return taken

    def take(self, now: float) -> Slot | None:
        """Return the next batch for the worker, now running, or None when none is due."""
        if now < self.close_at:
            return None
        if self._closed:
            slot = self._closed.popleft()
        elif self._filling is not None:
            slot, self._filling = self._filling, None
        else:
            return None
        self._batches += 1
        slot.batch = self._batches
        slot.started_at = now
        self._running.append(slot)
        return slot

    def finish(self, now: float) -> list[Segment]:
        """Return the segments of the batch at the head, which is done; `release` must follow."""
        slot = self._running[0]
        if len(self._running) > 1:
            self._running[1].started_at = now  # only now does it have the device
        return slot.segments

    def release(self) -> None:
        """Free the slot at the head."""
        self._clear(self._running.popleft())

    def give_back(self) -> None:
        """Return all running batches to the queue, in order: the worker is gone and they have no result."""
        while self._running:
            self._closed.appendleft(self._running.pop())

    def fail_head(self) -> list[Ticket]:
        """Free the slot at the head, if there is one, and return whose rows were in it."""
        return self._discard(self._running.popleft()) if self._running else []

    def drain(self) -> list[Ticket]:
        """Free every slot and return whose rows were in them."""
        self.give_back()
        slots = [*self._closed, *([self._filling] if self._filling else [])]
        self._closed.clear()
        self._filling = None
        return list(dict.fromkeys(ticket for slot in slots for ticket in self._discard(slot)))

    def _discard(self, slot: Slot) -> list[Ticket]:
        tickets = slot.tickets()
        # No worker did it, and the next batch belongs to somebody else.
        slot.inputs[: slot.rows] = 0
        self._clear(slot)
        return tickets

    def _clear(self, slot: Slot) -> None:
        slot.segments = []
        slot.rows = 0
        self._free.append(slot)


def _rows(memory: memoryview, record: int) -> Payloads:
    return np.frombuffer(memory, np.uint8).reshape(-1, record)
