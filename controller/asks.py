"""Questions in flight: who waits for which answer, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from controller.errors import ControllerUnavailable, RemoteProtocolError
from controller.wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

# Frames with questions whose answers are outstanding; the cache in front batches, so a few are usual.
MAX_ASKS_IN_FLIGHT = 256


class _Pending:
    __slots__ = ("count", "done", "outcome")

    def __init__(self, count: int, silence: str) -> None:
        self.count = count
        self.done = trio.Event()
        self.outcome: Answer | str = silence


class AskTable:
    """Numbers questions and hands each answer to whoever waits for it."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._pending)

    async def wait_answer(
        self, count: int, send: Callable[[int], None], *, deadline_s: float
    ) -> Answer:
        """Send `count` questions under a new number and wait for the answer.

        Cancellation: the answer, when it comes, is dropped.

        Raises:
            ControllerUnavailable: no answer in time, the connection broke, or too many are in flight.
        """
        if len(self._pending) >= MAX_ASKS_IN_FLIGHT:
            raise ControllerUnavailable(f"{MAX_ASKS_IN_FLIGHT} questions are in flight already")
        self._last += 1
        number = self._last
        pending = _Pending(count, f"the controller did not answer within {deadline_s:g} s")
        self._pending[number] = pending
        try:
            send(number)
            with trio.move_on_after(deadline_s):
                await pending.done.wait()
        finally:
            del self._pending[number]
        if isinstance(pending.outcome, str):
            raise ControllerUnavailable(pending.outcome)
        return pending.outcome

    def resolve(self, answer: Answer) -> None:
        """Hand an answer over; nobody may wait for it any more.

        Raises:
            RemoteProtocolError: it was never asked, or does not fit the question.
        """
        pending = self._pending.get(answer.number)
        if pending is None:
            if not 0 < answer.number <= self._last:
                raise RemoteProtocolError(f"an answer to question {answer.number}, never asked")
            return
        if len(answer.verdicts) != pending.count:
            raise RemoteProtocolError(
                f"{len(answer.verdicts)} answers to {pending.count} questions"
            )
        pending.outcome = answer
        pending.done.set()

    def fail_all(self, reason: str) -> None:
        """Tell everybody who waits that there will be no answer."""
        for pending in self._pending.values():
            if not pending.done.is_set():
                pending.outcome = reason
                pending.done.set()
