"""`$SYS`: what the broker tells about itself by MQTT, under the topic names mosquitto made common.

*Rules of this file*: nobody but the broker publishes there, and reading needs a rule like any topic (a filter that
begins with a wildcard does not match it, 4.7.2-1). The last values are retained in memory only. What is shown is
computed from counters; nothing is invented for a value this broker does not have.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from broker.outlet import flush_all
from mqtt.packets import Publish, Version
from mqtt.runs import run_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.model import Principal
    from broker.messages import Messages
    from broker.outlet import Outlet
    from broker.retained import Retained
    from broker.router import Router

SYS_PREFIX = b"$SYS/"
LOAD_WINDOWS_S = {"1min": 60, "5min": 300, "15min": 900}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the broker counted since its start, and what it holds now.

    Attributes:
        clients_connected: clients connected now.
        clients_disconnected: sessions without a connection.
        clients_maximum: most clients connected at the same time.
        clients_expired: sessions that ended because their client did not come back.
        messages_received: PUBLISH packets taken.
        messages_sent: PUBLISH packets handed to sessions.
        messages_dropped: PUBLISH packets dropped for a subscriber.
        bytes_received: of clients' packets.
        bytes_sent: to clients.
        stored: messages in the store.
        stored_bytes: their size.
        retained: retained messages.
        subscriptions: topic filters.
        shared_subscriptions: groups.
        inflight: QoS 1 and 2 messages sent and not finished.
    """

    clients_connected: int
    clients_disconnected: int
    clients_maximum: int
    clients_expired: int
    messages_received: int
    messages_sent: int
    messages_dropped: int
    bytes_received: int
    bytes_sent: int
    stored: int
    stored_bytes: int
    retained: int
    subscriptions: int
    shared_subscriptions: int
    inflight: int


class Counted(Protocol):
    """Who knows the totals."""

    def totals(self) -> Totals:
        """Return them as of now."""
        ...


class SysTopics:
    """Publishes the `$SYS` tree."""

    def __init__(
        self,
        source: Counted,
        *,
        router: Router,
        messages: Messages,
        retained: Retained,
        broker: Principal,
        version: str,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Connect the parts.

        Args:
            source: the totals.
            router: who gets them.
            messages: makes messages.
            retained: keeps the last values.
            broker: the principal they are published as.
            version: of this software.
            interval_s: seconds between two publications.
            clock: monotonic seconds.
        """
        self._source = source
        self._router = router
        self._messages = messages
        self._retained = retained
        self._broker = broker
        self._version = version
        self._interval_s = interval_s
        self._clock = clock
        self._started = clock()
        self._history: deque[tuple[float, Totals]] = deque(
            maxlen=int(max(LOAD_WINDOWS_S.values()) / interval_s) + 2 if interval_s else 1
        )

    async def run(self) -> None:
        """Publish every `interval_s`, for as long as the broker lives; not at all if that is 0."""
        while self._interval_s:
            await self.publish()
            await trio.sleep(self._interval_s)

    async def publish(self) -> None:
        """Publish every value once."""
        touched: list[Outlet] = []
        for name, value in self.values().items():
            publish = Publish(topic=f"$SYS/broker/{name}", payload=value.encode(), retain=True)
            message = self._messages.take(run_of(publish, Version.V5), self._broker)
            self._retained.put(message)
            route = await self._router.route(message.run.topic)
            self._router.deliver(route, message, None, touched)
            flush_all(touched)
            await trio.lowlevel.checkpoint()  # there may be thousands who listen

    def values(self) -> dict[str, str]:
        """Every topic below `$SYS/broker/`, with its value of now."""
        now, totals = self._clock(), self._source.totals()
        self._history.append((now, totals))
        values: dict[str, object] = {
            "version": f"stockade {self._version}",
            "uptime": f"{int(now - self._started)} seconds",
            "clients/total": totals.clients_connected + totals.clients_disconnected,
            "clients/connected": totals.clients_connected,
            "clients/disconnected": totals.clients_disconnected,
            "clients/active": totals.clients_connected,
            "clients/inactive": totals.clients_disconnected,
            "clients/maximum": totals.clients_maximum,
            "clients/expired": totals.clients_expired,
            "messages/received": totals.messages_received,
            "messages/sent": totals.messages_sent,
            "messages/stored": totals.stored,
            "messages/inflight": totals.inflight,
            "store/messages/count": totals.stored,
            "store/messages/bytes": totals.stored_bytes,
            "publish/messages/received": totals.messages_received,
            "publish/messages/sent": totals.messages_sent,
            "publish/messages/dropped": totals.messages_dropped,
            "bytes/received": totals.bytes_received,
            "bytes/sent": totals.bytes_sent,
            "retained messages/count": totals.retained,
            "subscriptions/count": totals.subscriptions,
            "shared_subscriptions/count": totals.shared_subscriptions,
        }
        for window, seconds in LOAD_WINDOWS_S.items():
            values |= self._loads(window, seconds, now, totals)
        return {name: str(value) for name, value in values.items()}

    def _loads(self, window: str, seconds: int, now: float, totals: Totals) -> dict[str, object]:
        """Counts a minute, over the window or as far back as is known."""
        then, before = next(entry for entry in self._history if now - entry[0] <= seconds)
        minutes = (now - then) / 60

        def rate(later: int, earlier: int) -> str:
            return f"{(later - earlier) / minutes:.2f}" if minutes else "0.00"

        return {
            f"load/messages/received/{window}": rate(
                totals.messages_received, before.messages_received
            ),
            f"load/messages/sent/{window}": rate(totals.messages_sent, before.messages_sent),
            f"load/bytes/received/{window}": rate(totals.bytes_received, before.bytes_received),
            f"load/bytes/sent/{window}": rate(totals.bytes_sent, before.bytes_sent),
        }
