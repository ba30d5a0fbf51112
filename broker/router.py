"""Who gets a message: subscriptions, routes, and delivery of runs and single messages.

*Theory of operation.* Subscriptions live in one `FilterTree`. The first message on a topic builds a
`Route`: the matching subscriptions, one a session, of which the guard allows this very topic to be
read. A route is then a dictionary look-up per run. A change of policy clears the table, and so does
a change of a filter with wildcards; one without concerns its own topic only. A route whose building was overtaken by a change of policy is built again before it is
used; one overtaken only by a subscription is used once and not remembered. The same holds for one
that leaves somebody out because the controller did not answer in time: it may answer the next time.

INVARIANT: a route used for delivery was built entirely after the last policy change this broker
applied, so a revoked grant stops with the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from broker.guard import Asker
from mqtt.convert import convert_run
from mqtt.packets import Version
from mqtt.topics import FilterTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.guard import Readers
    from broker.outlet import Outlet
    from mqtt.packets import Publish
    from mqtt.runs import Run

MAX_ROUTES = 65_536  # topics with a remembered route; the table is dropped and rebuilt beyond that
MAX_ROUTES_BYTES = 64 << 20  # the same for its memory: topics are as long as their publishers like
ROUTE_BYTES = 500  # of a route beside its topic and targets; measured as 450
TARGET_BYTES = 100  # of one session on it; measured as 90
MAX_REBUILDS = (
    5  # times a route is built again because policy changed meanwhile; then nobody gets it
)


class Subscriber(Asker, Protocol):
    """What the router needs of a session."""

    @property
    def outlet(self) -> Outlet:
        """The way out to the client."""
        ...

    def deliver(self, publish: Publish, *, qos: int, retain: bool) -> bool:
        """Queue one QoS 1 message; True when the outlet now needs a flush."""
        ...


class ReadCheck(Protocol):
    """The guard, as the router sees it: which of these sessions may read this topic now."""

    async def may_read(self, subscribers: Sequence[Subscriber], topic: bytes) -> Readers:
        """Return those that may, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """One topic filter of one session."""

    subscriber: Subscriber
    filter: str
    qos: int
    no_local: bool
    retain_as_published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One session on a route, with what its matching filters add up to."""

    subscriber: Subscriber
    qos: int
    no_local: bool
    retain_as_published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where messages on one topic go.

    Attributes:
        targets: every session once, at the highest QoS of its matching filters (MQTT 3.3.4-2).
        v5: outlets of MQTT 5 clients; a run is handed to them as it is.
        v311: outlets of MQTT 3.1.1 clients.
        not_to_self: outlets whose client asked not to get its own messages (no-local).
    """

    targets: tuple[Target, ...]
    v5: tuple[Outlet, ...]
    v311: tuple[Outlet, ...]
    not_to_self: frozenset[Outlet]

    @property
    def memory(self) -> int:
        """What it holds, in bytes."""
        return ROUTE_BYTES + TARGET_BYTES * len(self.targets)


NOBODY = Route(targets=(), v5=(), v311=(), not_to_self=frozenset())


class Router:
    """Subscriptions and routes of one broker."""

    def __init__(self, guard: ReadCheck) -> None:
        """Start empty; `guard` filters every route."""
        self._guard = guard
        self._tree: FilterTree[Subscribed] = FilterTree()
        self._changes = 0
        self._policy_changes = 0
        self.routes: dict[bytes, Route] = {}
        self._routes_bytes = 0
        self.messages_out = 0
        self.messages_unrouted = 0

    @property
    def subscriptions(self) -> int:
        """Topic filters held by all sessions."""
        return len(self._tree)

    def subscribe(self, subscribed: Subscribed) -> None:
        """Add or replace one session's filter."""
        self._tree.add(subscribed.filter, id(subscribed.subscriber), subscribed)
        self._subscriptions_changed(subscribed.filter)

    def unsubscribe(self, subscriber: Subscriber, filter_: str) -> None:
        """Remove one session's filter."""
        self._tree.remove(filter_, id(subscriber))
        self._subscriptions_changed(filter_)

    def forget_routes(self) -> None:
        """Drop every route: policy changed."""
        self._policy_changes += 1
        self._clear()

    def _subscriptions_changed(self, filter_: str) -> None:
        """Forget the routes a filter concerns: one for a filter without wildcards, else any could be."""
        self._changes += 1
        if "+" in filter_ or "#" in filter_:
            self._clear()
            return
        topic = filter_.encode()
        route = self.routes.pop(topic, None)
        if route is not None:
            self._routes_bytes -= len(topic) + route.memory

    def _clear(self) -> None:
        self.routes.clear()
        self._routes_bytes = 0

    def _remember(self, topic: bytes, route: Route) -> None:
        if topic in self.routes:
            return  # built by two publishers at once, in the same state of everything
        size = len(topic) + route.memory
        if len(self.routes) >= MAX_ROUTES or self._routes_bytes + size > MAX_ROUTES_BYTES:
            self._clear()
        self.routes[topic] = route
        self._routes_bytes += size

    async def route(self, topic: bytes) -> Route:
        """The route of a topic, built when it is not known.

        Args:
            topic: a valid topic name.

        Returns:
            The route. Nobody's route when policy changed faster than it could be built.
        """
        route = self.routes.get(topic)
        if route is not None:
            return route
        for _ in range(MAX_REBUILDS):
            policy, changes = self._policy_changes, self._changes
            route, lasting = await self._build(topic)
            if self._policy_changes != policy:
                continue
            if lasting and self._changes == changes:
                self._remember(topic, route)
            return route
        return NOBODY

    async def _build(self, topic: bytes) -> tuple[Route, bool]:
        """Return the route of now, and whether it may be remembered."""
        merged: dict[Subscriber, list[Subscribed]] = {}
        for subscribed in self._tree.match(topic.decode()):
            merged.setdefault(subscribed.subscriber, []).append(subscribed)
        if not merged:
            return NOBODY, True
        readers = await self._guard.may_read(tuple(merged), topic)
        targets = tuple(_merge(merged[subscriber]) for subscriber in readers.allowed)
        route = Route(
            targets=targets,
            v5=tuple(t.subscriber.outlet for t in targets if _speaks(t, Version.V5)),
            v311=tuple(t.subscriber.outlet for t in targets if _speaks(t, Version.V311)),
            not_to_self=frozenset(t.subscriber.outlet for t in targets if t.no_local),
        )
        return route, readers.lasting

    def deliver_run(
        self, route: Route, run: Run, sender: Outlet | None, touched: list[Outlet]
    ) -> None:
        """Hand a run to every outlet of a route; the caller flushes what was `touched`."""
        same, other = (
            (route.v5, route.v311) if run.version == Version.V5 else (route.v311, route.v5)
        )
        if not same and not other:
            self.messages_unrouted += run.count
            return
        if same:
            self._put(same, run.data, run.stride, run.count, route, sender, touched)
        if other:
            version = Version.V311 if run.version == Version.V5 else Version.V5
            data = convert_run(run, version)
            self._put(other, data, len(data) // run.count, run.count, route, sender, touched)

    def _put(  # noqa: PLR0917  once a run and version: the hot path
        self,
        outlets: tuple[Outlet, ...],
        data: bytes,
        packet_bytes: int,
        count: int,
        route: Route,
        sender: Outlet | None,
        touched: list[Outlet],
    ) -> None:
        skipped = route.not_to_self
        for outlet in outlets:
            if skipped and outlet is sender and outlet in skipped:
                continue
            if outlet.put(data, packet_bytes, count):
                touched.append(outlet)
            self.messages_out += count

    def deliver(
        self, route: Route, publish: Publish, sender: Outlet | None, touched: list[Outlet]
    ) -> int:
        """Hand one message to every target at the lower of its QoS and the subscription's.

        Returns:
            How many sessions it went to.
        """
        delivered = 0
        for target in route.targets:
            outlet = target.subscriber.outlet
            if target.no_local and outlet is sender:
                continue
            delivered += 1
            qos = min(publish.qos, target.qos)
            retain = publish.retain and target.retain_as_published
            if target.subscriber.deliver(publish, qos=qos, retain=retain):
                touched.append(outlet)
            self.messages_out += 1
        if not delivered:
            self.messages_unrouted += 1
        return delivered


def _speaks(target: Target, version: Version) -> bool:
    return target.subscriber.outlet.version == version


def _merge(subscribed: Sequence[Subscribed]) -> Target:
    """What several matching filters of one session mean together."""
    best = max(subscribed, key=lambda s: s.qos)
    return Target(
        subscriber=best.subscriber,
        qos=best.qos,
        no_local=all(s.no_local for s in subscribed),
        retain_as_published=any(s.retain_as_published for s in subscribed),
    )
