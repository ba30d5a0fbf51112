"""Who is connected: sessions by principal and client id, take-over, keep alive, expiry of certificates.

*Rules of this file*: a client id belongs to its principal; another principal with the same client id
is another session, so nobody can end somebody else's. One sweeper looks at all sessions once a
second instead of a timer each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from mqtt.errors import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from acl.model import Principal
    from broker.outlet import Outlet

SWEEP_S = 1.0  # seconds between two looks at keep alives and certificate expiry


class Registered(Protocol):
    """What the registry needs of a session."""

    @property
    def principal(self) -> Principal:
        """Who it is."""
        ...

    @property
    def client_id(self) -> str:
        """The MQTT client identifier."""
        ...

    @property
    def quiet_until(self) -> float:
        """Monotonic second at which silence becomes a keep alive timeout; inf: never."""
        ...

    @property
    def certificate_ends(self) -> float:
        """Second since the epoch at which the client's certificate expires."""
        ...

    @property
    def outlet(self) -> Outlet:
        """The way out to the client; counts what was dropped for it."""
        ...

    @property
    def dropped_from_queue(self) -> int:
        """QoS 1 messages dropped for this client."""
        ...

    def end(self, reason: ReasonCode, text: str) -> None:
        """Disconnect the client with a reason."""
        ...


class Registry:
    """Every session of this broker.

    Attributes:
        taken_over: sessions ended because the same client connected again.
        timed_out: sessions ended by keep alive.
    """

    def __init__(self, *, max_connections: int, now: Callable[[], float]) -> None:
        """Start empty.

        Args:
            max_connections: sessions at the same time.
            now: wall clock, seconds since the epoch, compared with certificates.
        """
        self._max_connections = max_connections
        self._now = now
        self._sessions: dict[tuple[str, str], Registered] = {}
        self.taken_over = 0
        self.timed_out = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Registered]:
        return iter(tuple(self._sessions.values()))

    @property
    def full(self) -> bool:
        """True when one more client must be refused."""
        return len(self._sessions) >= self._max_connections

    def enter(self, session: Registered) -> None:
        """Add a session; an older one of the same principal and client id is ended (3.1.4-3)."""
        key = (session.principal.name, session.client_id)
        older = self._sessions.get(key)
        self._sessions[key] = session
        if older is not None:
            self.taken_over += 1
            older.end(ReasonCode.SESSION_TAKEN_OVER, "the same client connected again")

    def leave(self, session: Registered) -> None:
        """Remove a session; one that was taken over leaves its successor alone."""
        key = (session.principal.name, session.client_id)
        if self._sessions.get(key) is session:
            del self._sessions[key]

    async def sweep(self) -> None:
        """End silent clients and clients whose certificate expired. Runs for ever."""
        while True:
            await trio.sleep(SWEEP_S)
            moment, now = trio.current_time(), self._now()
            for session in self:
                if moment >= session.quiet_until:
                    self.timed_out += 1
                    session.end(ReasonCode.KEEP_ALIVE_TIMEOUT, "no packet within 1.5 keep alives")
                elif now >= session.certificate_ends:
                    session.end(ReasonCode.NOT_AUTHORIZED, "the client certificate has expired")
