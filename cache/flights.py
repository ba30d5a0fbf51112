"""Questions on their way to the authority: one flight per question, many questions per request.

Theory of operation: the first question is sent at once. While its request is under way others collect;
they are the next request. So a lone question waits for nobody, and under load the batches grow by
themselves with the time that a request takes; there is no timer. A question that is asked again while
it is waiting joins the flight that is there.

Rules of this file:
- Whoever waits gets an answer or a failure; never neither, whatever happens to the authority.
- A question that nobody waits for any more is not sent.
- What is waiting is bounded; one question too many fails at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from cache.errors import AuthorityUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acl.decide import Decision
    from acl.model import AccessRequest
    from cache.authority import Authority
    from cache.limits import CacheLimits
    from cache.stats import CacheStats


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer."""

    reason: str


@dataclass(slots=True, eq=False)
class _Flight:
    """One question that somebody waits for."""

    request: AccessRequest
    landed: trio.Event = field(default_factory=trio.Event)
    waiters: int = 0
    result: Decision | Failure | None = None

    def land(self, result: Decision | Failure) -> None:
        if self.result is None:
            self.result = result
            self.landed.set()


class Flights:
    """All questions without an answer, and the one task that asks them.

    Args:
        authority: who answers.
        limits: sizes of batches and queue, and the deadline of a request.
        stats: where to count.
        new_id: names a decision that came without an id.
    """

    def __init__(
        self,
        authority: Authority,
        limits: CacheLimits,
        stats: CacheStats,
        new_id: Callable[[], str],
    ) -> None:
        self._authority = authority
        self._limits = limits
        self._stats = stats
        self._new_id = new_id
        self._flights: dict[AccessRequest, _Flight] = {}
        self._pending: dict[AccessRequest, _Flight] = {}
        self._wake = trio.Event()
        self._stopped: str | None = None
        self._request_scope: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._flights)

    async def ask(self, request: AccessRequest) -> Decision | Failure:
        """Wait for the answer to one question.

        Returns:
            The authority's decision, of whatever epoch, or why there is none.

        *Cancellation*: leaves the flight to others that wait for it; the last one to leave ends it.
        """
        flight = self._board(request)
        if flight is None:
            await trio.lowlevel.checkpoint()
            return Failure(self._stopped or "too many questions are waiting for the controller")
        flight.waiters += 1
        try:
            await flight.landed.wait()
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                self._drop(flight)
        return flight.result or Failure("the question ended without an answer")

    def _board(self, request: AccessRequest) -> _Flight | None:
        """Return the flight of a question, a new one if there is room."""
        flight = self._flights.get(request)
        if flight is not None:
            self._stats.joined += 1
            return flight
        if self._stopped is not None:
            return None
        if len(self._flights) >= self._limits.max_waiting_questions:
            self._stats.overflows += 1
            return None
        flight = self._flights[request] = self._pending[request] = _Flight(request)
        self._wake.set()
        return flight

    def _drop(self, flight: _Flight) -> None:
        if self._flights.get(flight.request) is flight:
            del self._flights[flight.request]
            self._pending.pop(flight.request, None)

    def _land(self, flight: _Flight, result: Decision | Failure) -> None:
        self._drop(flight)
        flight.land(result)

    def fail_all(self, reason: str) -> None:
        """Give every waiting question a failure and abandon the request under way."""
        if self._request_scope is not None:
            self._request_scope.cancel()
        for flight in list(self._flights.values()):
            self._land(flight, Failure(reason))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask what is waiting, batch after batch, until cancelled.

        *Cancellation*: every waiting question gets a failure, and so does every later one.
        """
        self._stopped = None
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._pending:
                    await self._fly(self._take())
        finally:
            self._stopped = "no questions are asked any more: the authorizer was stopped"
            self.fail_all(self._stopped)

    def _take(self) -> list[_Flight]:
        batch = list(self._pending.values())[: self._limits.max_batch_questions]
        for flight in batch:
            del self._pending[flight.request]
        return batch

    async def _fly(self, batch: list[_Flight]) -> None:
        """Ask one batch; every flight of it lands, unless this is cancelled."""
        self._stats.count_batch(len(batch))
        try:
            results = await self._request([flight.request for flight in batch])
        except AuthorityUnavailable as error:
            self._stats.authority_failures += 1
            results = [Failure(f"the controller is unavailable: {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - a bug of the link must not leave anyone waiting
            self._stats.authority_failures += 1
            text = f"error while asking the controller: {type(error).__name__}: {error}"
            results = [Failure(text)] * len(batch)
        for flight, result in zip(batch, results, strict=True):
            self._land(flight, result)

    async def _request(self, requests: Sequence[AccessRequest]) -> Sequence[Decision | Failure]:
        with trio.move_on_after(self._limits.question_deadline_s) as scope:
            self._request_scope = scope
            answered = await self._authority.ask(requests)
            decisions, epoch = tuple(answered.decisions), answered.epoch
            if len(decisions) != len(requests):
                raise AuthorityUnavailable(
                    f"{len(requests)} questions got {len(decisions)} answers"
                )
            return [self._signed(decision, epoch) for decision in decisions]
        raise AuthorityUnavailable(f"no answer within {self._limits.question_deadline_s:g} seconds")

    def _signed(self, decision: Decision, epoch: int) -> Decision:
        """Return a decision with an id; one that claims another epoch than its batch counts as the older."""
        if decision.id and decision.epoch == epoch:
            return decision
        return replace(
            decision,
            id=decision.id or self._new_id(),
            epoch=min(decision.epoch, epoch),
        )
