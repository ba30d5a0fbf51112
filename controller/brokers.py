"""Who is connected, which epoch each broker decides by, and who lags behind.

A policy change has taken effect everywhere when every broker that may still decide has applied its epoch. A broker
whose connection was lost a moment ago may still decide by what it has, for as long as it said in its hello
(`trusts_for_s`), so it counts as lagging until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio
from typing_extensions import override

from controller.errors import OutboxFull, RemoteProtocolError
from controller.outbox import Outbox
from controller.wire import policy_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controller.state import PolicyChange

# A site has a handful of brokers; the bound also limits the label values of the metric.
MAX_BROKERS = 256

_encoder = msgspec.msgpack.Encoder()


class BrokerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A look at one broker.

    Attributes:
        epoch: the epoch it has said it decides by, -1 before it said so.
        connected: whether it is; a lost one is listed until it must have noticed.
        since_s: seconds since it came, or was lost.
    """

    broker_id: str
    epoch: int
    connected: bool
    since_s: float


class BrokerSession:
    """One connected broker."""

    def __init__(
        self, broker_id: str, peer: str, scope: trio.CancelScope, *, trusts_for_s: float
    ) -> None:
        """Begin with an empty outbox.

        Args:
            broker_id: from its certificate.
            peer: address, for the log.
            scope: cancelled to end the connection.
            trusts_for_s: how long it may go on without contact.
        """
        self.trusts_for_s = trusts_for_s
        self.broker_id = broker_id
        self.peer = peer
        self.outbox = Outbox()
        self.epoch = -1
        self.joined_at = 0.0
        self.ended = ""
        self._scope = scope

    def end(self, reason: str) -> None:
        """End the connection; the first reason is kept."""
        self.ended = self.ended or reason
        self._scope.cancel()

    def post(self, frame: bytes) -> None:
        """Queue a frame; a broker that does not read is disconnected."""
        try:
            self.outbox.put(frame)
        except OutboxFull as error:
            self.end(str(error))

    @override
    def __repr__(self) -> str:
        return f"<BrokerSession {self.broker_id} {self.peer} epoch={self.epoch} queued={len(self.outbox)}>"


class _Lost(NamedTuple):
    at: float
    until: float
    epoch: int


class BrokerTable:
    """The connected brokers, at most `MAX_BROKERS`."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._sessions: dict[str, BrokerSession] = {}
        self._lost: dict[str, _Lost] = {}
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def join(self, session: BrokerSession) -> None:
        """Add a broker; an older connection of the same broker is ended.

        Raises:
            RemoteProtocolError: there are too many.
        """
        older = self._sessions.get(session.broker_id)
        if older is None and len(self._sessions) >= MAX_BROKERS:
            raise RemoteProtocolError(f"{MAX_BROKERS} brokers are connected already")
        if older is not None:
            older.end("the same broker connected again")
        session.joined_at = self._clock()
        self._sessions[session.broker_id] = session
        self._lost.pop(session.broker_id, None)
        self._wake()

    def leave(self, session: BrokerSession) -> None:
        """Remove a broker, unless a newer connection has taken its place."""
        if self._sessions.get(session.broker_id) is session:
            del self._sessions[session.broker_id]
            now = self._clock()
            self._lost[session.broker_id] = _Lost(now, now + session.trusts_for_s, session.epoch)
            self._forget_stale()
            self._wake()

    def push(self, change: PolicyChange) -> None:
        """Queue a change of policy to every broker. Never waits, never raises."""
        for part in policy_frames(change.epoch, change.grants, reset=False):
            frame = _encoder.encode(part)
            for session in self._sessions.values():
                session.post(frame)

    def note_applied(self, session: BrokerSession, epoch: int) -> None:
        """Take note that a broker decides by `epoch` now."""
        session.epoch = max(session.epoch, epoch)
        self._wake()

    def laggards(self, epoch: int) -> tuple[str, ...]:
        """Return the brokers that may still decide by an epoch older than `epoch`, sorted."""
        self._forget_stale()
        behind = {key for key, session in self._sessions.items() if session.epoch < epoch}
        behind |= {key for key, lost in self._lost.items() if lost.epoch < epoch}
        return tuple(sorted(behind))

    async def wait_applied(self, epoch: int, *, deadline_s: float) -> tuple[str, ...]:
        """Wait until no broker lags behind `epoch`, at most `deadline_s` seconds.

        Returns:
            The brokers that still lag.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(deadline_s):
            while self.laggards(epoch):
                with trio.move_on_after(self._next_stale_s()):
                    await self._changed.wait()
        return self.laggards(epoch)

    def statuses(self) -> tuple[BrokerStatus, ...]:
        """Return a look at every broker, by id."""
        self._forget_stale()
        now = self._clock()
        here: Iterable[BrokerStatus] = (
            BrokerStatus(
                broker_id=key, epoch=session.epoch, connected=True, since_s=now - session.joined_at
            )
            for key, session in self._sessions.items()
        )
        gone = (
            BrokerStatus(broker_id=key, epoch=lost.epoch, connected=False, since_s=now - lost.at)
            for key, lost in self._lost.items()
        )
        return tuple(sorted((*here, *gone), key=lambda status: status.broker_id))

    def _forget_stale(self) -> None:
        """Forget lost brokers that deny everything by now; of too many, those that do so next."""
        now = self._clock()
        kept = sorted(
            ((key, lost) for key, lost in self._lost.items() if lost.until > now),
            key=lambda item: item[1].until,
        )
        self._lost = dict(kept[-MAX_BROKERS:])

    def _next_stale_s(self) -> float:
        """Seconds until the next lost broker must have noticed."""
        if not self._lost:
            return float("inf")
        return max(0.0, min(lost.until for lost in self._lost.values()) - self._clock()) + 0.001

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
