"""The policy and what waits in queues: messages that were queued under an older policy are weighed again.

*Rules of this file.* Only a denial by the policy drops a message that was acknowledged to its publisher; while nobody can
decide, it waits. One question a session is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from acl.model import Operation

if TYPE_CHECKING:
    from acl.decide import Decision
    from broker.faults import Faults
    from broker.guard import Guard
    from broker.session import Session

RETRY_S = 1.0  # seconds until a question without an answer is asked again


class QueuePolicy:
    """Weighs queued messages for sessions.

    *Resource handling*: `run` must be running for questions to be asked.
    """

    def __init__(self, guard: Guard, faults: Faults) -> None:
        """Start with nobody waiting."""
        self._guard = guard
        self._faults = faults
        self._nursery: trio.Nursery | None = None
        self._asking: set[Session] = set()
        self._blocked: set[Session] = set()
        self._answer: tuple[Session, bytes, Decision] | None = None

    @property
    def changes(self) -> int:
        """How often the policy changed."""
        return self._guard.policy_changes

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask for as long as the broker lives."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def known(self, session: Session, topic: bytes) -> Decision | None:
        """Whether the session may read a topic, None when that is not known here; a denial is audited."""
        if self._answer is not None and self._answer[:2] == (session, topic):
            decision: Decision | None = self._answer[2]
            self._answer = None
        elif self._guard.refusal:
            return None
        else:
            decision = self._guard.authorizer.check(session.cache, Operation.READ, topic)
            if decision is not None and not decision.answered:
                return None
        if decision is not None and not decision.allowed:
            self._guard.denied_topic(session, Operation.READ, topic, decision)
        return decision

    def find_out(self, session: Session, topic: bytes) -> None:
        """Ask, and have the session pump when it is known."""
        if self._guard.refusal:
            self._blocked.add(session)
        elif session not in self._asking and self._nursery is not None:
            self._asking.add(session)
            self._nursery.start_soon(self._ask, session, topic)

    def policy_changed(self) -> None:
        """Those who could not be answered may be now."""
        if self._guard.refusal or self._nursery is None:
            return
        blocked, self._blocked = self._blocked, set()
        for session in blocked:
            self._nursery.start_soon(self._pump, session)

    async def _pump(self, session: Session) -> None:
        await trio.lowlevel.checkpoint()
        with self._faults.contained("send what waited for a policy", session):
            session.delivery.pump_and_flush()

    async def _ask(self, session: Session, topic: bytes) -> None:
        """One question; ends when it is answered, or nobody wants to know any more."""
        try:
            while session.outlet is not None:
                changes = self.changes
                decision = await self._guard.authorizer.authorize(
                    session.cache, Operation.READ, topic
                )
                if decision.answered and changes == self.changes and not self._guard.refusal:
                    self._answer = (session, topic, decision)
                    break
                await trio.sleep(RETRY_S)
        finally:
            self._asking.discard(session)
        with self._faults.contained("send what was weighed again", session):
            session.delivery.pump_and_flush()
        self._answer = None
