"""An MQTT session: what a client has with the broker, whether it is connected or not (4.1).

*Rules of this file.* A session belongs to one principal and one client identifier. While a connection serves it, that
connection's outlet and L1 are the session's; between connections it has an L1 of its own, so that what is queued
for it is weighed like everything else. A session whose expiry is above 0 is *kept*: its state is in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from broker.delivery import Delivery, Queued, QueueLimits, Verdict
from broker.records import SessionRecord
from mqtt.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.decide import Decision
    from acl.model import Principal
    from broker.delivery import Lost
    from broker.durability import Durability
    from broker.memory import MemoryBudget
    from broker.messages import Messages
    from broker.outlet import Outlet
    from broker.overflow import Overflow
    from broker.records import WillRecord
    from broker.routes import Subscribed
    from cache.connection import ConnectionCache
    from mqtt.errors import ReasonCode
    from mqtt.outgoing import Outgoing, Parcel

LEVEL_BYTES = 400  # of one level of a filter in the tree: a node and its place, measured as 370
NEVER_EXPIRES_S = 0xFFFFFFFF  # MQTT 3.1.2.11.2: a Session Expiry Interval of this value


class Serving(Protocol):
    """The connection that serves a session."""

    @property
    def cache(self) -> ConnectionCache:
        """Its L1."""
        ...

    @property
    def peer(self) -> str:
        """The client's address."""
        ...

    @property
    def outlet(self) -> Outlet:
        """The way out to the client."""
        ...

    def end(self, reason: ReasonCode, text: str, reference: str = "") -> None:
        """Disconnect the client with a reason, and maybe a reference to another server."""
        ...


class Policy(Protocol):
    """What a session asks of the policy for what waits in its queue."""

    @property
    def changes(self) -> int:
        """How often the policy changed."""
        ...

    def known(self, session: Session, topic: bytes) -> Decision | None:
        """Whether the session may read a topic, None when that is not known here; a denial is audited."""
        ...

    def find_out(self, session: Session, topic: bytes) -> None:
        """Ask, and have the session pump when it is known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What sessions need of the broker."""

    store: Durability
    messages: Messages
    policy: Policy
    limits: QueueLimits
    budget: MemoryBudget
    open_cache: Callable[[Principal], ConnectionCache]
    lost: Lost
    hand_over: Callable[[Parcel[Queued]], None]
    refill: Callable[[Delivery], bool]
    later: Callable[[Delivery], bool]


class Session:
    """One session.

    Attributes:
        principal: whose it is.
        client_id: the MQTT client identifier.
        expiry_s: seconds it outlives its connection.
        ended_at: when its connection ended, seconds since the epoch; None while connected.
        will_at: when it is due, None while the client is connected.
        subscriptions: its topic filters, `$share/NAME/` included; changed by `hold` and `drop`.
        filters_bytes: memory of these.
        share: of its principal, in all that is held in memory.
        delivery: what it gets at QoS 1 and 2.
        incoming: what it sent at QoS 1 and 2.
        connection: who serves it now.
    """

    def __init__(
        self,
        principal: Principal,
        client_id: str,
        rooms: Rooms,
        *,
        session_id: int = 0,
        outgoing: Outgoing[Queued] | None = None,
        overflow: Overflow | None = None,
        incoming: Incoming | None = None,
    ) -> None:
        """Make a session without a connection.

        Args:
            principal: whose.
            client_id: the MQTT client identifier.
            rooms: what it needs.
            session_id: its key in the store, if it is there.
            outgoing: its queue of an earlier life.
            overflow: what of it is in the store only.
            incoming: what it had received.
        """
        self.principal = principal
        self.client_id = client_id
        self._rooms = rooms
        self.session_id = session_id
        self.expiry_s = 0
        self.ended_at: float | None = None
        self.share = rooms.budget.share(principal.name)
        self._will: WillRecord | None = None
        self.will_at: float | None = None
        self.subscriptions: dict[str, Subscribed] = {}
        self.filters_bytes = 0
        self.incoming = Incoming() if incoming is None else incoming
        self.delivery = Delivery(
            rooms.messages,
            rooms.store,
            limits=rooms.limits,
            budget=self.share,
            weigh=self._weigh,
            lost=rooms.lost,
            hand_over=rooms.hand_over,
            refill=rooms.refill,
            later=rooms.later,
            outgoing=outgoing,
            overflow=overflow,
        )
        self.connection: Serving | None = None
        self.outlet: Outlet | None = None
        self._own_cache: ConnectionCache | None = None
        self.ended = False

    @override
    def __repr__(self) -> str:
        state = "ended" if self.ended else "connected" if self.connection else "away"
        return (
            f"<Session {self.principal.name}/{self.client_id} {state}, {self.delivery.outgoing!r}>"
        )

    @property
    def key(self) -> tuple[str, str]:
        """What it is found by."""
        return self.principal.name, self.client_id

    @property
    def cache(self) -> ConnectionCache:
        """The L1 in which its deliveries are looked up."""
        if self.connection is not None:
            return self.connection.cache
        if self._own_cache is None:
            self._own_cache = self._rooms.open_cache(self.principal)
            if self.ended:
                self._own_cache.close()
        return self._own_cache

    @property
    def peer(self) -> str:
        """The client's address, for the audit log; empty while it is away."""
        return "" if self.connection is None else self.connection.peer

    @property
    def will(self) -> WillRecord | None:
        """Published when the connection ends, or later; see `broker.wills`. Its bytes wait like those of a queue."""
        return self._will

    @will.setter
    def will(self, will: WillRecord | None) -> None:
        before = 0 if self._will is None else len(self._will.packet)
        more = (0 if will is None else len(will.packet)) - before
        self._will = will
        self.share.used_bytes += more
        self.share.total.used_bytes += more

    @property
    def kept(self) -> bool:
        """Whether its state is in the store."""
        return self.delivery.session_id != 0

    # ---- connections ---------------------------------------------------------------------------

    def attach(self, connection: Serving, receive_maximum: int) -> None:
        """Be served by a connection from now on; the caller tells the router and pumps."""
        self._close_own_cache()
        self.connection = connection
        self.outlet = connection.outlet
        self.ended_at = None
        self.will_at = None
        self.incoming.begin()
        self.delivery.attach(connection.outlet, receive_maximum)

    def detach(self, now: float) -> None:
        """The connection is gone; the caller tells the router."""
        self.connection = None
        self.outlet = None
        self.ended_at = now
        self.delivery.detach()

    def close(self) -> None:
        """The session has ended: nothing is kept, queued or asked any more."""
        self.ended = True
        self.connection = None
        self.outlet = None
        self.delivery.close()
        self.subscriptions.clear()
        self._count_filters(-self.filters_bytes)
        self.will = None
        if self.session_id:
            self._rooms.store.drop_session(self.session_id)
            self.session_id = 0
        self._close_own_cache()

    def _close_own_cache(self) -> None:
        if self._own_cache is not None:
            self._own_cache.close()
            self._own_cache = None

    # ---- the store -----------------------------------------------------------------------------

    def keep(self) -> None:
        """Write the row of a session that was given a key; its queue is kept if it outlives its connection.

        A session is kept from its CONNECT on, or not at all: there is nothing in its queue then.
        """
        if self.expiry_s:
            self.delivery.session_id = self.session_id
        self.record()

    def record(self) -> None:
        """Write the session's row, if it has one."""
        if self.session_id:
            outgoing = self.delivery.outgoing
            self._rooms.store.put_session(
                SessionRecord(
                    session_id=self.session_id,
                    principal=self.principal.name,
                    principal_kind=self.principal.kind,
                    client_id=self.client_id,
                    expiry_s=self.expiry_s,
                    ended_at=self.ended_at,
                    settled_below=outgoing.low,
                    next_sequence=outgoing.sent_below,
                    will=self.will,
                )
            )

    # ---- topic filters -------------------------------------------------------------------------

    def hold(self, subscribed: Subscribed) -> None:
        """Have a filter, in the place of what it had under that name; the caller tells the router."""
        if subscribed.filter not in self.subscriptions:
            self._count_filters(filter_memory(subscribed.filter))
        self.subscriptions[subscribed.filter] = subscribed

    def drop(self, filter_: str) -> None:
        """Have one of its filters no more; the caller tells the router."""
        del self.subscriptions[filter_]
        self._count_filters(-filter_memory(filter_))

    def _count_filters(self, more_bytes: int) -> None:
        self.filters_bytes += more_bytes
        self.share.count_filters(more_bytes)

    # ---- deliveries ----------------------------------------------------------------------------

    def deliver(self, queued: Queued, *, qos: int, first: int, count: int) -> bool:
        """Queue QoS 1 or 2 messages to the client; True when its outlet needs a flush."""
        return self.delivery.deliver(queued, qos=qos, first=first, count=count)

    def _weigh(self, queued: Queued) -> Verdict:
        policy = self._rooms.policy
        if queued.weighed == policy.changes:
            return Verdict.SEND
        decision = policy.known(self, queued.message.run.topic)
        if decision is None:
            policy.find_out(self, queued.message.run.topic)
            return Verdict.WAIT
        if decision.allowed:  # else the next of its messages would pass for weighed
            queued.weighed = policy.changes
            return Verdict.SEND
        if not queued.group:
            return Verdict.DROP
        queued.tried = (*queued.tried, self)
        return Verdict.PASS_ON


def filter_memory(filter_: str) -> int:
    """What a topic filter costs, in bytes: its text here and its levels in the tree."""
    return 2 * len(filter_) + LEVEL_BYTES * (filter_.count("/") + 1)
