"""SUBSCRIBE and UNSUBSCRIBE of one connection: each filter weighed, bounded, stored, answered in order.

*Rules of this file*: what cannot be stored is refused and does not stay effective. Retained messages are sent at the
client's pace, by one task a connection, which holds the topics of one filter at a time: a client that asks again and
again and takes nothing costs the names of its filters.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from broker.groups import SHARED_PREFIX, topics_of
from broker.outlet import flush_all
from broker.records import SubscriptionRecord
from broker.routes import Subscribed, target_of
from broker.session import filter_memory
from mqtt.encode import encode_bounded
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Suback, Unsuback
from mqtt.properties import EMPTY, Properties
from mqtt.topics import verify_topic_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.durability import Durability
    from broker.guard import Guard
    from broker.outlet import Outlet
    from broker.retained import Retained
    from broker.router import Router
    from broker.session import Session
    from broker.turns import Turns
    from mqtt.packets import Subscribe, Subscription, Unsubscribe

# Memory of one session's filters: a thousand of five levels take 2 MB, a thousand of 128 levels 50 MB.
MAX_FILTERS_BYTES = 4 << 20
REPLAY_PER_TURN = 64  # retained messages sent in a row
TOGETHER = 64  # filters of one packet that are asked about together
RETAIN_ALWAYS, RETAIN_IF_NEW = 0, 1  # MQTT 3.8.3.1: retain handling; 2 is never


@dataclass(frozen=True, slots=True)
class Granted:
    """What became of one filter of a SUBSCRIBE, and what it replaced."""

    reason: ReasonCode
    text: str = ""
    subscribed: Subscribed | None = None
    replaced: Subscribed | None = None
    replay: bool = False


class Subscriptions:
    """The topic filters of one session, as its connection changes them."""

    def __init__(
        self,
        session: Session,
        *,
        guard: Guard,
        router: Router,
        retained: Retained,
        store: Durability,
        turns: Turns,
        max_subscriptions: int,
    ) -> None:
        """Go on with what the session has.

        Args:
            session: whose.
            guard: weighs each filter.
            router: where granted filters take effect.
            retained: what is sent to a new subscription.
            store: where they are kept.
            turns: of the event loop.
            max_subscriptions: filters the session may hold.
        """
        self._session = session
        self._guard = guard
        self._router = router
        self._retained = retained
        self._store = store
        self._turns = turns
        self._max = max_subscriptions
        self._to_replay: dict[str, None] = {}  # filters whose turn has not come; of the session's
        self._replaying = False

    async def subscribe(
        self, packet: Subscribe, outlet: Outlet, nursery: trio.Nursery, *, explain: bool
    ) -> None:
        """Weigh every filter, make the granted ones effective, answer with one SUBACK, send what is retained.

        Args:
            packet: the request.
            outlet: the way to the client.
            nursery: the connection's, for retained messages it does not take at once.
            explain: whether the client wants reason strings.
        """
        identifiers = packet.properties.subscription_identifiers
        identifier = identifiers[0] if identifiers else None
        results: list[Granted] = []
        for first in range(0, len(packet.filters), TOGETHER):
            some = packet.filters[first : first + TOGETHER]
            await self._foresee(some)
            results += [await self._grant(each, identifier, outlet) for each in some]
        if not await self._stored():
            results = [await self._take_back(each) for each in reversed(results)][::-1]
        text = next((each.text for each in results if each.text), "")
        suback = Suback(
            packet_id=packet.packet_id,
            reasons=tuple(each.reason for each in results),
            properties=Properties(reason_string=text) if explain and text else EMPTY,
        )
        _send(suback, outlet)
        for each in results:
            if each.subscribed is not None:
                if each.subscribed.filter.startswith(SHARED_PREFIX):
                    self._router.gather(each.subscribed.filter)
                elif each.replay:
                    await self._replay(each.subscribed.filter, outlet, nursery)

    async def _foresee(self, subscriptions: Sequence[Subscription]) -> None:
        if len(subscriptions) > 1:
            matched = [topics_of(each.filter) for each in subscriptions if _valid(each.filter)]
            await self._guard.foresee(self._session, matched)

    async def _grant(
        self, subscription: Subscription, identifier: int | None, outlet: Outlet
    ) -> Granted:
        """Weigh one filter, and make it effective if it is granted."""
        session, filter_ = self._session, subscription.filter
        is_new = filter_ not in session.subscriptions
        new_bytes = filter_memory(filter_) if is_new else 0
        if excess := self._excess(is_new, new_bytes):
            return Granted(ReasonCode.QUOTA_EXCEEDED, excess)
        try:
            verify_topic_filter(filter_)
            decision = await self._guard.may_subscribe(session, topics_of(filter_))
        except RemoteProtocolError as error:
            return Granted(error.reason, error.message)
        if not decision.allowed:
            text = f"not authorized, decision {decision.id}"
            return Granted(ReasonCode.NOT_AUTHORIZED, text)
        handling = subscription.retain_handling
        subscribed = Subscribed(
            session=session,
            filter=filter_,
            qos=subscription.qos,
            no_local=subscription.no_local,
            retain_as_published=subscription.retain_as_published,
            identifier=identifier,
        )
        if session.outlet is not outlet:
            return Granted(ReasonCode.UNSPECIFIED_ERROR)  # taken over meanwhile
        if excess := self._excess(is_new, new_bytes):  # others took the room meanwhile
            return Granted(ReasonCode.QUOTA_EXCEEDED, excess)
        replaced = session.subscriptions.get(filter_)
        await self._put(subscribed)
        return Granted(
            ReasonCode(subscription.qos),
            subscribed=subscribed,
            replaced=replaced,
            replay=handling == RETAIN_ALWAYS or (handling == RETAIN_IF_NEW and is_new),
        )

    def _excess(self, is_new: bool, new_bytes: int) -> str:  # noqa: FBT001  a fact of the filter
        """Why there is no room for a filter; empty when there is."""
        session = self._session
        if is_new and len(session.subscriptions) >= self._max:
            return f"at most {self._max} subscriptions"
        if session.filters_bytes + new_bytes > MAX_FILTERS_BYTES:
            return "the subscriptions are too long together"
        if not session.share.has_room_for_filter(new_bytes):
            return "no room for more subscriptions"
        if session.kept and self._store.failing:
            return "the broker cannot store subscriptions now"
        return ""

    async def _put(self, subscribed: Subscribed) -> None:
        """Make a filter effective, in the place of what the session had under it."""
        self._session.hold(subscribed)
        self._router.subscribe(subscribed)
        if self._session.kept:
            self._store.put_subscription(
                SubscriptionRecord(
                    session_id=self._session.session_id,
                    filter=subscribed.filter,
                    qos=subscribed.qos,
                    no_local=subscribed.no_local,
                    retain_as_published=subscribed.retain_as_published,
                    identifier=subscribed.identifier,
                )
            )
        await self._settle(subscribed.filter)

    async def _settle(self, filter_: str) -> None:
        """Have a change of a filter take effect for topics that have a route."""
        steps = self._router.settle(filter_)
        try:
            for _ in steps:
                if self._turns.over:
                    await self._turns.wait()
        finally:  # also where the client goes in between: the session may be kept
            for _ in steps:
                pass

    async def _remove(self, filter_: str) -> None:
        """End a subscription that the session has."""
        self._session.drop(filter_)
        self._to_replay.pop(filter_, None)
        self._router.unsubscribe(self._session, filter_)
        if self._session.kept:
            self._store.drop_subscription(self._session.session_id, filter_)
        await self._settle(filter_)

    async def _take_back(self, granted: Granted) -> Granted:
        """Refuse what cannot be stored; what it replaced is as it was."""
        subscribed = granted.subscribed
        if (
            subscribed is not None
            and self._session.subscriptions.get(subscribed.filter) is subscribed
        ):
            if granted.replaced is None:
                await self._remove(subscribed.filter)
            else:
                await self._put(granted.replaced)
        return Granted(_worse(granted.reason), "the broker cannot store it")

    async def _stored(self) -> bool:
        """Wait until what was recorded is on disk; False when it cannot be written."""
        if not self._session.kept:
            return True
        done, outcome = trio.Event(), [True]

        def note(durable: bool) -> None:  # noqa: FBT001  a callback's one fact
            outcome[0] = durable
            done.set()

        self._store.when_durable(note)
        await done.wait()
        return outcome[0]

    async def unsubscribe(self, packet: Unsubscribe, outlet: Outlet) -> None:
        """Remove the filters that exist, answer with one UNSUBACK."""
        reasons: list[ReasonCode] = []
        for filter_ in packet.filters:
            if self._session.outlet is not outlet:
                return  # taken over meanwhile
            if filter_ in self._session.subscriptions:
                await self._remove(filter_)
                reasons.append(ReasonCode.SUCCESS)
            else:
                reasons.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
        if not await self._stored():  # after a crash they could be back
            reasons = [ReasonCode.UNSPECIFIED_ERROR for _ in reasons]
        unsuback = Unsuback(packet_id=packet.packet_id, reasons=tuple(reasons), properties=EMPTY)
        _send(unsuback, outlet)

    # ---- retained messages ---------------------------------------------------------------------

    async def _replay(self, filter_: str, outlet: Outlet, nursery: trio.Nursery) -> None:
        """Send the retained messages that a new subscription matches; the rest in a task, at the client's pace."""
        if self._replaying:
            self._to_replay[filter_] = None
            return
        topics = await self._topics(filter_)
        await self._replay_some(filter_, outlet, topics)
        if topics:
            self._replaying = True
            nursery.start_soon(self._replay_rest, filter_, outlet, topics)

    async def _replay_rest(self, filter_: str, outlet: Outlet, topics: deque[str]) -> None:
        """Send the rest for this filter, then for those that came meanwhile."""
        while True:
            while topics:
                await outlet.wait_until_ready()
                await self._replay_some(filter_, outlet, topics)
            await trio.lowlevel.checkpoint()
            if not self._to_replay:
                break
            filter_ = next(iter(self._to_replay))
            del self._to_replay[filter_]
            topics = await self._topics(filter_)
        self._replaying = False

    async def _topics(self, filter_: str) -> deque[str]:
        topics: deque[str] = deque()
        for some in self._retained.look(filter_):
            topics.extend(some)
            if self._turns.over:
                await self._turns.wait()
        return topics

    async def _replay_some(self, filter_: str, outlet: Outlet, topics: deque[str]) -> None:
        """Send what is retained now for the next of these topics: a newer message may have come meanwhile."""
        touched: list[Outlet] = []
        subscribed = self._session.subscriptions.get(filter_)
        if subscribed is None:  # it has ended
            topics.clear()
            return
        try:
            for _ in range(REPLAY_PER_TURN):
                if not topics or outlet.over_full:
                    break
                await self._replay_one(topics, subscribed, touched)
        finally:
            flush_all(touched)

    async def _replay_one(
        self, topics: deque[str], subscribed: Subscribed, touched: list[Outlet]
    ) -> None:
        topic, session = topics[0], self._session
        decision = self._guard.knows_reader(session, topic.encode())
        if decision is None:
            flush_all(touched)
            changes = self._guard.policy_changes
            decision = await self._guard.may_receive(session, topic.encode())
            if changes != self._guard.policy_changes:  # it may be of before: once more
                return
        topics.popleft()
        # Looked up behind the last wait, so that no newer message was delivered meanwhile.
        message = self._retained.get(topic)
        if message is not None and (decision.allowed or not decision.answered):
            target = target_of([subscribed], undecided=not decision.allowed)
            self._router.hand(target, message, touched, retain=True)


def _send(packet: Suback | Unsuback, outlet: Outlet) -> None:
    """Send an answer, unless it is longer than the client takes: then as if it was sent (3.1.2-25)."""
    data = encode_bounded(packet, outlet.version, outlet.max_packet_bytes)
    if data is not None:
        outlet.send_control(data)


def _valid(filter_: str) -> bool:
    try:
        verify_topic_filter(filter_)
    except RemoteProtocolError:
        return False
    return True


def _worse(reason: ReasonCode) -> ReasonCode:
    return reason if reason.failed else ReasonCode.QUOTA_EXCEEDED
