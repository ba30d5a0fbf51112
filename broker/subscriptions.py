"""SUBSCRIBE and UNSUBSCRIBE of one session: each filter weighed, bounded, answered in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.router import Subscribed
from mqtt.encode import encode
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Suback, Unsuback
from mqtt.properties import EMPTY, Properties
from mqtt.topics import verify_topic_filter

if TYPE_CHECKING:
    from broker.guard import Guard
    from broker.router import Router, Subscriber
    from mqtt.packets import Subscribe, Subscription, Unsubscribe

SHARED_PREFIX = "$share/"
GRANTED_QOS = 1  # the highest QoS this broker grants, see `broker.admission`
# Memory of one session's filters: a thousand of five levels take 2 MB, a thousand of 128 levels 50 MB.
MAX_FILTERS_BYTES = 4 << 20
LEVEL_BYTES = 400  # of one level in the tree of filters: a node and its place, measured as 370
SUBACK_OVERHEAD_BYTES = 16  # of a SUBACK beside its codes and its reason string, at most


class Subscriptions:
    """The topic filters of one session."""

    def __init__(
        self, owner: Subscriber, *, guard: Guard, router: Router, max_subscriptions: int
    ) -> None:
        """Start with none.

        Args:
            owner: the session.
            guard: weighs each filter.
            router: where granted filters take effect.
            max_subscriptions: filters the session may hold.
        """
        self._owner = owner
        self._guard = guard
        self._router = router
        self._max = max_subscriptions
        self._filters: set[str] = set()
        self._filters_bytes = 0

    async def subscribe(self, packet: Subscribe, *, explain: bool) -> None:
        """Weigh every filter, make the granted ones effective, answer with one SUBACK.

        Raises:
            RemoteProtocolError: subscription identifiers were told to be unavailable.
        """
        if packet.properties.subscription_identifiers:
            raise RemoteProtocolError(
                "subscription identifiers are not available",
                ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
            )
        reasons: list[ReasonCode] = []
        explained = ""
        for subscription in packet.filters:
            reason, text = await self._grant(subscription)
            reasons.append(reason)
            explained = explained or text
        version = self._owner.outlet.version
        suback = Suback(
            packet_id=packet.packet_id,
            reasons=tuple(reasons),
            properties=self._explanation(explained, len(reasons)) if explain else EMPTY,
        )
        self._owner.outlet.send_control(encode(suback, version))

    def _explanation(self, text: str, codes: int) -> Properties:
        """The reason string, if the client takes a packet of that size (3.9.2-2)."""
        size = len(text.encode()) + codes + SUBACK_OVERHEAD_BYTES
        if not text or size > self._owner.outlet.max_packet_bytes:
            return EMPTY
        return Properties(reason_string=text)

    async def _grant(self, subscription: Subscription) -> tuple[ReasonCode, str]:
        """The SUBACK code of one filter, and what the client may be told about a refusal."""
        filter_ = subscription.filter
        if filter_.startswith(SHARED_PREFIX):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "shared subscriptions: not yet"
        new_bytes = 0 if filter_ in self._filters else _memory(filter_)
        if new_bytes and len(self._filters) >= self._max:
            return ReasonCode.QUOTA_EXCEEDED, f"at most {self._max} subscriptions"
        if self._filters_bytes + new_bytes > MAX_FILTERS_BYTES:
            return ReasonCode.QUOTA_EXCEEDED, "the subscriptions are too long together"
        try:
            verify_topic_filter(filter_)
            decision = await self._guard.may_subscribe(self._owner, filter_)
        except RemoteProtocolError as error:
            return error.reason, error.message
        if not decision.allowed:
            return ReasonCode.NOT_AUTHORIZED, f"not authorized, decision {decision.id}"
        qos = min(subscription.qos, GRANTED_QOS)
        self._filters.add(filter_)
        self._filters_bytes += new_bytes
        self._router.subscribe(
            Subscribed(
                subscriber=self._owner,
                filter=filter_,
                qos=qos,
                no_local=subscription.no_local,
                retain_as_published=subscription.retain_as_published,
            )
        )
        return ReasonCode(qos), ""

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Remove the filters that exist, answer with one UNSUBACK."""
        reasons: list[ReasonCode] = []
        for filter_ in packet.filters:
            if filter_ in self._filters:
                self._filters.discard(filter_)
                self._filters_bytes -= _memory(filter_)
                self._router.unsubscribe(self._owner, filter_)
                reasons.append(ReasonCode.SUCCESS)
            else:
                reasons.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
        unsuback = Unsuback(packet_id=packet.packet_id, reasons=tuple(reasons), properties=EMPTY)
        self._owner.outlet.send_control(encode(unsuback, self._owner.outlet.version))

    def close(self) -> None:
        """Remove every filter: the session has ended."""
        for filter_ in self._filters:
            self._router.unsubscribe(self._owner, filter_)
        self._filters.clear()
        self._filters_bytes = 0


def _memory(filter_: str) -> int:
    """What a filter costs, in bytes: its text here and its levels in the tree."""
    return 2 * len(filter_) + LEVEL_BYTES * (filter_.count("/") + 1)
