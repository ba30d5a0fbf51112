"""A moment of looking before the event loop sleeps, where that has paid of late.

*Theory of operation.* A process that sleeps in the kernel is woken some 5 us after its bytes are there; on virtual
machines it may be 50. Two that talk to each other without a pause pay that twice for each round trip. So before a wait
for sockets the loop looks whether one is ready, again and again, for at most `longest_s`. Looking costs the time that
sleeping would give to others, so it must pay: after a look in vain some waits are not looked at, after several in
a row twice as many each time, up to `MOST_SKIPPED`. An idle broker looks once in a thousand waits; one whose peers
share its core as well, because they never answer while it looks.

*Rules of this file.* It only looks: what is ready is found and handled by Trio as ever. Trio does not tell which epoll
instance it waits on, so that is the one private attribute of Trio we read; without it there is no looking.
"""

from __future__ import annotations

import select
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Final

import structlog
import trio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("stockade.broker.busy_poll")

MOST_SKIPPED: Final = 1_023
_MOST_MISSES: Final = MOST_SKIPPED.bit_length()


class BusyPoll(trio.abc.Instrument):
    """Looks for ready sockets before the loop sleeps.

    *Resource handling*: `run` must be running, once.

    Attributes:
        looks: waits before which it looked.
        hits: those in which a socket became ready.
    """

    def __init__(
        self,
        longest_s: float,
        *,
        clock: Callable[[], float] = perf_counter,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        """Start without looking.

        Args:
            longest_s: seconds a look may last; 0: never look.
            clock: seconds, monotonic.
            ready: whether a socket is ready; `run` asks Trio's own epoll if None.
        """
        self._longest_s = longest_s
        self._clock = clock
        self._ready = ready
        self._misses = 0
        self._skip = 0
        self.looks = 0
        self.hits = 0

    @override
    def __repr__(self) -> str:
        return f"<BusyPoll {self.hits} of {self.looks} looks paid, {self._skip} to skip>"

    @override
    def before_io_wait(self, timeout: float) -> None:
        """The loop is about to wait: called by Trio."""
        ready, clock = self._ready, self._clock
        if timeout <= 0 or ready is None:
            return
        if self._skip:
            self._skip -= 1
            return
        ends = clock() + min(timeout, self._longest_s)
        self.looks += 1
        while not ready():
            if clock() >= ends:
                self._misses = min(self._misses + 1, _MOST_MISSES)
                self._skip = (1 << self._misses) - 1
                return
        self.hits += 1
        self._misses = max(self._misses - 1, 0)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for as long as the broker lives."""
        task_status.started()
        if self._longest_s <= 0:
            return
        self._ready = self._ready or poll_of_trio()
        if self._ready is None:
            log.warning("no busy polling: this version of Trio does not show its epoll")
            return
        trio.lowlevel.add_instrument(self)
        try:
            await trio.sleep_forever()
        finally:
            trio.lowlevel.remove_instrument(self)


def poll_of_trio() -> Callable[[], bool] | None:
    """What says whether a socket that Trio waits for is ready; None where Trio does not show it."""
    runner = getattr(import_module("trio._core._run"), "GLOBAL_RUN_CONTEXT", None)
    manager = getattr(getattr(runner, "runner", None), "io_manager", None)
    epoll = getattr(manager, "_epoll", None)
    if not isinstance(epoll, select.epoll):
        return None
    looking = select.poll()
    looking.register(epoll.fileno(), select.POLLIN)
    return lambda: bool(looking.poll(0))
