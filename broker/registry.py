"""The sessions of a broker: made, resumed, taken over, ended, expired; and who is connected.

*Rules of this file*: a session belongs to its principal; another principal with the same client identifier has another
session, so nobody can end or read somebody else's. Sessions are bounded in all and for each principal. One sweeper
looks at all of them once a second instead of a timer each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from broker.groups import SHARED_PREFIX
from broker.session import NEVER_EXPIRES_S, Serving, Session
from mqtt.errors import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from acl.model import Principal
    from broker.admission import Terms
    from broker.faults import Faults
    from broker.records import WillRecord
    from broker.router import Router
    from broker.session import Rooms
    from mqtt.packets import Connect

SWEEP_S = 1.0  # seconds between two looks at keep alives, certificates, wills and expiry
SWEPT_PER_TURN = 1_000  # sessions looked at in a row: half a millisecond


class Connected(Serving, Protocol):
    """What the registry needs of a connection."""

    @property
    def principal(self) -> Principal:
        """Who it is."""
        ...

    @property
    def quiet_until(self) -> float:
        """Monotonic second at which silence becomes a keep alive timeout; inf: never."""
        ...

    @property
    def certificate_ends(self) -> float:
        """Second since the epoch at which the client's certificate expires."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLimits:
    """Bounds.

    Attributes:
        max_connections: clients connected at the same time.
        max_sessions: sessions, connected or not.
        max_sessions_per_principal: of them of one principal.
    """

    max_connections: int
    max_sessions: int
    max_sessions_per_principal: int


class Registry:
    """Every session of this broker.

    Attributes:
        taken_over: connections ended because the same client connected again.
        timed_out: connections ended by keep alive.
        expired: sessions ended because their client did not come back.
        resumed: sessions continued by a new connection.
        most_connected: most clients connected at the same time.
        stopping: no client is let in any more.
    """

    def __init__(
        self,
        *,
        limits: RegistryLimits,
        now: Callable[[], float],
        rooms: Rooms,
        router: Router,
        keeps: bool,
        publish_will: Callable[[Session, WillRecord], None],
        faults: Faults,
        next_session_id: int = 1,
    ) -> None:
        """Start empty.

        Args:
            limits: bounds.
            now: wall clock, seconds since the epoch.
            rooms: what sessions need.
            router: where their subscriptions are.
            keeps: whether there is a store, so that sessions can outlive their connection.
            publish_will: takes over the will of a session, to be published.
            faults: told of errors of ours.
            next_session_id: the key of the next session stored.
        """
        self._limits = limits
        self._now = now
        self._rooms = rooms
        self._router = router
        self._keeps = keeps
        self._publish_will = publish_will
        self._faults = faults
        self._next_id = next_session_id
        self._sessions: dict[tuple[str, str], Session] = {}
        self._of_principal: dict[str, int] = {}
        self._connections: dict[Serving, Connected] = {}
        self.taken_over = 0
        self.timed_out = 0
        self.expired = 0
        self.resumed = 0
        self.most_connected = 0
        self.stopping = False

    # ---- looking -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Clients connected."""
        return len(self._connections)

    def __iter__(self) -> Iterator[Connected]:
        """The connections."""
        return iter(tuple(self._connections.values()))

    @property
    def sessions(self) -> int:
        """Sessions, connected or not."""
        return len(self._sessions)

    def all_sessions(self) -> list[Session]:
        """The sessions, connected or not."""
        return list(self._sessions.values())

    @property
    def full(self) -> bool:
        """True when one more client must be refused."""
        return len(self._connections) >= self._limits.max_connections

    def refusal(self, principal: Principal, client_id: str) -> str:
        """Why one more session must be refused; empty when it need not."""
        if (principal.name, client_id) in self._sessions:
            return ""
        if len(self._sessions) >= self._limits.max_sessions:
            return "too many sessions"
        if self._of_principal.get(principal.name, 0) >= self._limits.max_sessions_per_principal:
            return "too many sessions of this principal"
        return ""

    def keeps(self, principal: Principal, client_id: str) -> bool:
        """Whether there is a session of this client in the store."""
        session = self._sessions.get((principal.name, client_id))
        return session is not None and session.kept

    # ---- connections ---------------------------------------------------------------------------

    def enter(self, connection: Connected, connect: Connect, terms: Terms) -> tuple[Session, bool]:
        """Give a connection its session: a new one, or the one its client had.

        An older connection of the same client is ended (3.1.4-3).

        Returns:
            the session, attached; and whether it was there before.
        """
        session, present = self._session_for(connection, connect, terms)
        session.expiry_s = terms.session_expiry_s
        session.will = terms.will
        session.attach(connection, terms.receive_maximum)
        self._connections[connection] = connection
        self.most_connected = max(self.most_connected, len(self._connections))
        self._keep(session)
        self._router.session_moved(session)
        return session, present

    def serve(self, session: Session) -> Iterator[None]:
        """Send what waits for a session whose CONNACK is on its way; in steps.

        Returns:
            an iterator to be gone through; others may have their turn between its steps.
        """
        session.delivery.pump_and_flush()
        for name in [name for name in session.subscriptions if name.startswith(SHARED_PREFIX)]:
            self._router.gather(name)
            yield
        session.delivery.pump_and_flush()

    def _session_for(
        self, connection: Connected, connect: Connect, terms: Terms
    ) -> tuple[Session, bool]:
        """Find or make the session; without waiting, so that two connections never share one."""
        session = self._sessions.get((connection.principal.name, terms.client_id))
        if session is not None:
            taken_over = self._take_over(session)
            if not connect.clean_start and session.expiry_s:
                self.resumed += 1
                # The older connection was closed without DISCONNECT; a delayed will is not due (3.1.3-9).
                if taken_over and session.will is not None and not session.will.delay_s:
                    self._publish_will(session, session.will)
                return session, True
            self._end(session)
        session = Session(connection.principal, terms.client_id, self._rooms)
        self._add(session)
        return session, False

    def _take_over(self, session: Session) -> bool:
        older = session.connection
        if older is None:
            return False
        self.taken_over += 1
        older.end(ReasonCode.SESSION_TAKEN_OVER, "the same client connected again")
        self._connections.pop(older, None)
        session.detach(self._now())
        return True

    def _add(self, session: Session) -> None:
        self._sessions[session.key] = session
        name = session.principal.name
        self._of_principal[name] = self._of_principal.get(name, 0) + 1

    def _keep(self, session: Session) -> None:
        """Have the store keep what outlives the connection: a session with an expiry, or with a will."""
        if not self._keeps:
            return
        if not session.session_id and (session.expiry_s or session.will is not None):
            session.session_id = self._next_id
            self._next_id += 1
        session.keep()

    def leave(self, connection: Connected, session: Session) -> None:
        """A connection has ended; one that was taken over leaves its session to its successor.

        Without waiting, so that nothing can keep a place or a will from being given back.
        """
        self._connections.pop(connection, None)
        if session.connection is not connection:
            return
        session.detach(self._now())
        self._router.session_moved(session)
        if session.expiry_s == 0 or not self._keeps:
            self._end(session)
            return
        self._hand_on(session)
        if session.will is not None:
            session.will_at = self._now() + min(session.will.delay_s, session.expiry_s)
            if not session.will.delay_s:
                self._give_will(session, session.will)
        session.record()

    def _give_will(self, session: Session, will: WillRecord) -> None:
        """Have a will published that is due; the caller records that the session has it no more."""
        session.will = session.will_at = None
        self._publish_will(session, will)

    def _hand_on(self, session: Session) -> None:
        """Give what a session had by shared subscriptions to members that are connected (4.8.2)."""
        for name in session.delivery.groups():
            if self._router.served(name):
                self._router.give_again(name, session.delivery.withdraw(name))

    def _end(self, session: Session) -> None:
        """End a session: its subscriptions and queue are gone, its will is due."""
        if session.ended:
            return
        del self._sessions[session.key]
        self._forget_one(session.principal.name)
        for filter_ in session.subscriptions:
            self._router.unsubscribe(session, filter_)
        self._router.session_moved(session)
        for name in session.delivery.groups():
            if self._router.group(name) is not None:
                self._router.give_again(name, session.delivery.withdraw(name))
        if session.will is not None:
            self._give_will(session, session.will)
        session.close()

    def _forget_one(self, name: str) -> None:
        left = self._of_principal[name] - 1
        if left:
            self._of_principal[name] = left
        else:
            del self._of_principal[name]

    # ---- time ----------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """End silent clients, clients whose certificate expired, and sessions whose time is over. Runs for ever."""
        while True:
            await trio.sleep(SWEEP_S)
            moment, now = trio.current_time(), self._now()
            for connection in self:
                self._look_at(connection, moment, now)
            for number, session in enumerate(self.all_sessions()):
                if number % SWEPT_PER_TURN == 0:
                    self._router.tidy()
                    await trio.lowlevel.checkpoint()
                if session.connection is None and session.ended_at is not None:
                    with self._faults.contained("look after a session", session):
                        if self._look_after(session, now):  # many may end in one second
                            await trio.lowlevel.checkpoint()

    def _look_at(self, connection: Connected, moment: float, now: float) -> None:
        if moment >= connection.quiet_until:
            self.timed_out += 1
            connection.end(ReasonCode.KEEP_ALIVE_TIMEOUT, "no packet within 1.5 keep alives")
        elif now >= connection.certificate_ends:
            connection.end(ReasonCode.NOT_AUTHORIZED, "the client certificate has expired")

    def _look_after(self, session: Session, now: float) -> bool:
        """A session without a connection: its will may be due, its time may be over; whether there was something to do."""
        ended_at = session.ended_at if session.ended_at is not None else now
        if session.expiry_s != NEVER_EXPIRES_S and now >= ended_at + session.expiry_s:
            self.expired += 1
            self._end(session)
            return True
        if session.will is not None and session.will_at is not None and now >= session.will_at:
            self._give_will(session, session.will)
            session.record()
            return True
        return False

    # ---- a start -------------------------------------------------------------------------------

    def restored(self, session: Session) -> None:
        """Take back a session of an earlier life, with its subscriptions."""
        self._add(session)
        for subscribed in session.subscriptions.values():
            self._router.subscribe(subscribed)
