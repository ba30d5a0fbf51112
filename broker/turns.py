"""Turns of the event loop, shared out so that many busy clients together hold nobody up.

*Theory of operation.* Trio lets every task that can run do so before it looks at sockets and clocks again. One client
that floods us ends its turn soon, but fifty of them, each with a short turn, still keep everybody else waiting for
fifty turns. So a round of the loop has a budget: `ends` is when it is used up. Whoever has more to do then parks in
`wait`, and in each round as many are woken as the rounds before had room for. Clients that said little go first, those
that have much to say always get at least one place.

*Rules of this file.* Nothing here knows what a turn is spent on. While `run` does not run there are no rounds, and
`ends` never comes.
"""

from __future__ import annotations

from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET_S: Final = 0.001
"""What a round may take before those with more to do wait for the next; the last turn of a round goes beyond it."""
MOST_WOKEN: Final = 1_024
SHORTEST_S: Final = 1e-6  # taken for a round in which nothing was measured
GROWTH: Final = 2  # how much faster the number woken may rise from one round to the next


class Turns(trio.abc.Instrument):
    """The budget of each round, and who waits for the next.

    *Resource handling*: `run` must be running, once.

    Attributes:
        clock: seconds, monotonic.
        ends: when the budget of this round is used up, by `clock`; read in hot loops, hence no property.
    """

    def __init__(self, *, clock: Callable[[], float] = perf_counter) -> None:
        """Start without rounds.

        Args:
            clock: seconds, monotonic.
        """
        self.clock = clock
        self.ends = inf
        self._began = clock()
        self._round_s = 0.0  # what the last whole round took
        self._light = trio.lowlevel.ParkingLot()
        self._heavy = trio.lowlevel.ParkingLot()
        self._asked = trio.Event()
        self._woken = 1
        self._running = False

    @override
    def __repr__(self) -> str:
        return f"<Turns {self.waiting} wait, {self._woken} a round>"

    @property
    def over(self) -> bool:
        """Whether this round's budget is used up: whoever can wait should."""
        return self.clock() > self.ends

    @property
    def waiting(self) -> int:
        """How many tasks wait for their next turn."""
        return len(self._light) + len(self._heavy)

    @override
    def after_io_wait(self, timeout: float) -> None:
        """A round begins: called by Trio."""
        now = self.clock()
        self._round_s = now - self._began
        self._began = now
        self.ends = now + BUDGET_S

    async def wait(self, *, light: bool = False) -> None:
        """Let others have their turn; return when this task may have its next.

        *Cancellation*: at any time.

        Args:
            light: there is little to do, so this turn costs the others next to nothing.
        """
        if not self._running:
            await trio.lowlevel.checkpoint()
            return
        self._asked.set()
        await (self._light if light else self._heavy).park()

    async def pause(self) -> None:
        """Let others go on; where this round's budget is used up, until it is this task's turn again."""
        if self.over:
            await self.wait()
        else:
            await trio.lowlevel.checkpoint()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Begin rounds, and wake those that wait, for as long as the broker lives."""
        trio.lowlevel.add_instrument(self)
        self._running = True
        task_status.started()
        try:
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                await self._share_out()
        finally:
            self._running = False
            self._light.unpark_all()
            self._heavy.unpark_all()
            self.ends = inf
            trio.lowlevel.remove_instrument(self)

    async def _share_out(self) -> None:
        """Wake as many in each round as fit into its budget, until nobody waits."""
        earlier = 0  # woken for the round that was just measured
        while self._light or self._heavy:
            heavy = max(1, self._woken - len(self._light))
            woken = len(self._light.unpark(count=self._woken))
            woken += len(self._heavy.unpark(count=heavy))
            await trio.lowlevel.checkpoint()
            if earlier:
                room = int(earlier * BUDGET_S / max(self._round_s, SHORTEST_S))
                self._woken = max(1, min(room, earlier * GROWTH, MOST_WOKEN))
            earlier = woken
