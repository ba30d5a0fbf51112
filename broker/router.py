"""Who gets a message: subscriptions, routes, and delivery of runs.

*Theory of operation.* Subscriptions live in one `FilterTree`, shared ones in another by their group. The first message
on a topic builds a `Route`: the matching subscriptions, one a session, of which the guard allows this very topic to be
read. A route is then a dictionary look-up per run. A change of policy clears the table; a change of a filter, or of
whether its session is connected, concerns the routes of the topics it matches, which are found in a `TopicTree`. A
route whose building was overtaken by a change of policy is built again before it is used; one overtaken only by a
subscription is used once and not remembered. The same holds for one that leaves somebody out because the controller did
not answer in time: it may answer the next time.

INVARIANT: a route used for delivery was built entirely after the last policy change this broker
applied, so a revoked grant stops with the next run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from broker.delivery import NOT_WEIGHED, Queued
from broker.groups import SHARED_PREFIX, Group, GroupStrategy
from broker.routes import NOBODY, GroupTarget, Lane, Route, route_of, target_of, without_gone
from mqtt.convert import aliased, variant
from mqtt.names import TopicTree
from mqtt.packets import Version
from mqtt.topics import FilterTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.aliases import Alias
    from broker.delivery import Lost
    from broker.guard import Readers
    from broker.messages import Message
    from broker.outlet import Outlet
    from broker.routes import Subscribed, Target
    from broker.session import Session
    from mqtt.outgoing import Parcel
    from mqtt.runs import Run
    from mqtt.stretches import Stretch

V5, V311 = Version.V5, Version.V311  # looking a member up costs more than comparing it
MAX_ROUTES = 65_536  # topics with a remembered route; the table is dropped and rebuilt beyond that
MAX_ROUTES_BYTES = 64 << 20  # the same for its memory: topics are as long as their publishers like
MAX_LANES = 4_096  # different sets of outlets remembered
MAX_REBUILDS = (
    5  # times a route is built again because policy changed meanwhile; then nobody gets it
)


class ReadCheck(Protocol):
    """The guard, as the router sees it: which of these sessions may read this topic now."""

    async def may_read(self, sessions: Sequence[Session], topic: bytes) -> Readers:
        """Return those that may, in order."""
        ...


class Router:
    """Subscriptions and routes of one broker.

    Attributes:
        routes: topic to route; always the same dictionary.
        stamp: another number whenever a route was forgotten.
        policy_changes: how often the policy changed.
        messages_out: messages handed to sessions.
        messages_unrouted: messages nobody got.
    """

    def __init__(
        self,
        guard: ReadCheck,
        *,
        strategy: GroupStrategy = GroupStrategy.ROUND_ROBIN,
        clock: Callable[[], float] = lambda: 0.0,
        lost: Lost = lambda _message, _first, _count, _reason: None,
    ) -> None:
        """Start empty.

        Args:
            guard: filters every route.
            strategy: how shared subscriptions choose.
            clock: seconds since the epoch, as messages are stamped with.
            lost: told of messages nobody will get.
        """
        self._guard = guard
        self._strategy = strategy
        self._clock = clock
        self._lost = lost
        self._tree: FilterTree[Subscribed] = FilterTree()
        self._group_tree: FilterTree[Group] = FilterTree()
        self._groups: dict[str, Group] = {}
        self._handed_over: deque[Parcel[Queued]] = deque()
        self._handing_over = False
        self._changes = 0
        self.policy_changes = 0
        self.routes: dict[bytes, Route] = {}
        self.stamp = 0
        self._lanes: dict[tuple[Outlet, ...], Lane] = {}
        self._topics: TopicTree[bytes] = TopicTree()
        self._routes_bytes = 0
        self.messages_out = 0
        self.messages_unrouted = 0

    # ---- subscriptions -------------------------------------------------------------------------

    @property
    def subscriptions(self) -> int:
        """Topic filters held by all sessions, those of one group counted as one."""
        return len(self._tree) + len(self._groups)

    @property
    def shared_subscriptions(self) -> int:
        """Groups."""
        return len(self._groups)

    def subscribe(self, subscribed: Subscribed) -> None:
        """Add or replace one session's filter."""
        filter_ = subscribed.filter
        if filter_.startswith(SHARED_PREFIX):
            group = self._groups.get(filter_)
            if group is None:
                group = self._groups[filter_] = Group(filter_)
                self._group_tree.add(group.filter, filter_, group)
            group.members[subscribed.session] = subscribed
        else:
            self._tree.add(filter_, id(subscribed.session), subscribed)
        self._filter_changed(filter_)

    def unsubscribe(self, session: Session, filter_: str) -> None:
        """Remove one session's filter."""
        if filter_.startswith(SHARED_PREFIX):
            self._leave(session, filter_)
        else:
            self._tree.remove(filter_, id(session))
        self._filter_changed(filter_)

    def _leave(self, session: Session, name: str) -> None:
        group = self._groups.get(name)
        if group is None:
            return
        group.members.pop(session, None)
        if not group.members:
            del self._groups[name]
            self._group_tree.remove(group.filter, name)

    def group(self, name: str) -> Group | None:
        """The group of a shared subscription's filter."""
        return self._groups.get(name)

    def served(self, name: str) -> bool:
        """Whether a shared subscription has a member that is connected."""
        group = self._groups.get(name)
        return group is not None and any(s.outlet is not None for s in group.members)

    def gather(self, name: str) -> None:
        """A member is connected: give it and the others what waits with members that are not."""
        group = self._groups.get(name)
        if group is None or not self.served(name):
            return
        for session in tuple(group.members):
            if session.outlet is None and len(session.delivery.outgoing):
                self.give_again(name, session.delivery.withdraw(name))

    def hand_over(self, parcel: Parcel[Queued]) -> None:
        """Give members of a shared subscription what one of them may not read.

        Whoever gets it may hand it over in turn, within this call: those wait for the outermost one, or a group of many
        that may not read it would be a recursion as deep.
        """
        self._handed_over.append(parcel)
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._handed_over:
                each = self._handed_over.popleft()
                self.give_again(each.content.group, (each,))
        finally:
            self._handing_over = False

    def give_again(self, name: str, parcels: Sequence[Parcel[Queued]]) -> None:
        """Give members of a shared subscription what another one did not get, or not acknowledge.

        Whether they may read it is weighed when it is their turn; so only members that queue it are given any.
        """
        group = self._groups.get(name)
        touched: list[Outlet] = []
        for parcel in parcels:
            queued = parcel.content
            members = [] if group is None else _takers(group, queued.tried)
            if group is None or not members:
                self._lost(queued.message, parcel.first, parcel.count, "no member")
                continue
            for target, first, count in group.shares(
                members,
                parcel.count,
                self._strategy,
                publisher=queued.message.publisher.name,
                topic=queued.message.run.topic,
            ):
                again = replace(queued, identifiers=target.identifiers, weighed=NOT_WEIGHED)
                self._queue(target, again, parcel.first + first, count, touched)
        for outlet in touched:
            outlet.flush_now()

    def session_moved(self, session: Session) -> None:
        """A session was connected or disconnected: routes name outlets."""
        for filter_ in session.subscriptions:
            self._filter_changed(filter_)

    # ---- routes --------------------------------------------------------------------------------

    def forget_routes(self) -> None:
        """Drop every route: policy changed."""
        self.policy_changes += 1
        self._clear()

    def _filter_changed(self, filter_: str) -> None:
        """Forget the routes of the topics a filter matches."""
        self._changes += 1
        if filter_.startswith(SHARED_PREFIX):
            filter_ = filter_.split("/", 2)[2]
        for _, topic in list(self._topics.match(filter_)):
            self._forget(topic)

    def _forget(self, topic: bytes) -> None:
        self.stamp += 1
        route = self.routes.pop(topic)
        self._topics.pop(topic.decode())
        self._routes_bytes -= len(topic) + route.memory

    def _clear(self) -> None:
        self.stamp += 1
        self.routes.clear()
        self._lanes.clear()
        self._topics = TopicTree()
        self._routes_bytes = 0

    def _remember(self, topic: bytes, route: Route) -> None:
        if topic in self.routes:
            return  # built by two publishers at once, in the same state of everything
        size = len(topic) + route.memory
        if len(self.routes) >= MAX_ROUTES or self._routes_bytes + size > MAX_ROUTES_BYTES:
            self._clear()
        self.routes[topic] = route
        self._topics.put(topic.decode(), topic)
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
            policy, changes = self.policy_changes, self._changes
            route, lasting = await self._build(topic)
            if self.policy_changes != policy:
                continue
            if self._changes == changes:
                if lasting:
                    self._remember(topic, route)
                return route
            # Whoever left meanwhile is not to be given anything any more; whoever came gets the next message.
            return without_gone(route)
        return NOBODY

    async def _build(self, topic: bytes) -> tuple[Route, bool]:
        """Return the route of now, and whether it may be remembered."""
        name = topic.decode()
        merged: dict[Session, list[Subscribed]] = {}
        for subscribed in self._tree.match(name):
            merged.setdefault(subscribed.session, []).append(subscribed)
        groups = self._group_tree.match(name)
        sharing = dict.fromkeys(session for group in groups for session in group.members)
        if not merged and not sharing:
            return NOBODY, True
        members = [(group, tuple(group.members.values())) for group in groups]
        readers = await self._guard.may_read(tuple(merged | sharing), topic)
        allowed = frozenset(readers.allowed)
        targets = tuple(target_of(found) for session, found in merged.items() if session in allowed)
        shared = tuple(
            GroupTarget(
                group=group, members=tuple(target_of([m]) for m in found if m.session in allowed)
            )
            for group, found in members
        )
        return self._with_lane(route_of(targets, shared)), readers.lasting

    def _with_lane(self, route: Route) -> Route:
        """The route with its lane, if it has one."""
        outlets = route.v5 or route.v311
        if not outlets or (route.v5 and route.v311):
            return route
        if route.special or route.groups or route.not_to_self:
            return route
        lane = self._lanes.get(outlets)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._lanes.clear()
            lane = self._lanes[outlets] = Lane(
                version=outlets[0].version,
                outlets=outlets,
                max_packet_bytes=min(outlet.max_packet_bytes for outlet in outlets),
            )
        return replace(route, lane=lane)

    # ---- delivery ------------------------------------------------------------------------------

    def deliver_run(
        self, route: Route, run: Run, sender: Outlet | None, publisher: str, touched: list[Outlet]
    ) -> int:
        """Hand a run of QoS 0 messages to every connected client of a route.

        HOT: once a run. The caller flushes what was `touched`.

        Args:
            route: of the run's topic.
            run: QoS 0, without RETAIN.
            sender: outlet of the client that published it.
            publisher: its name.
            touched: outlets that owe a flush.

        Returns:
            how many sessions it went to.
        """
        reached = 0
        same, other = (route.v5, route.v311) if run.version is V5 else (route.v311, route.v5)
        if same:
            reached = self._put(same, run.data, run.stride, run.count, route, sender, touched)
        if other:
            form = variant(run, version=V311 if run.version is V5 else V5, qos=0, retain=False)
            reached += self._put(other, form.data, form.stride, form.count, route, sender, touched)
        if route.special or route.groups:
            reached += self._deliver_specially(route, run, sender, publisher, touched)
        if not reached:
            self.messages_unrouted += run.count
        return reached

    def deliver_stretch(self, stretch: Stretch[Lane], touched: list[Outlet]) -> None:
        """Hand packets of several topics that have one lane to its outlets.

        HOT: once a stretch.
        """
        data, count = stretch.data, stretch.count
        outlets = stretch.value.outlets
        touched += [each for each in outlets if each.put(data, stretch.largest, count)]
        self.messages_out += count * len(outlets)

    def _put(  # noqa: PLR0917  once a run and version: the hot path
        self,
        outlets: tuple[Outlet, ...],
        data: bytes,
        packet_bytes: int,
        count: int,
        route: Route,
        sender: Outlet | None,
        touched: list[Outlet],
    ) -> int:
        skipped = route.not_to_self
        reached = 0
        for outlet in outlets:
            if skipped and outlet is sender and outlet in skipped:
                continue
            if outlet.put(data, packet_bytes, count):
                touched.append(outlet)
            reached += 1
        self.messages_out += count * reached
        return reached

    def _deliver_specially(
        self, route: Route, run: Run, sender: Outlet | None, publisher: str, touched: list[Outlet]
    ) -> int:
        """Hand a run to those that do not take it as it is, and to shared subscriptions."""
        reached = 0
        for target in route.special:
            if not (target.no_local and target.session.outlet is sender):
                self._put_special(target, run, touched)
                reached += 1
        for shared in route.groups:
            reached += self._share_run(shared, run, publisher, touched)
        return reached

    def _put_special(self, target: Target, run: Run, touched: list[Outlet]) -> None:
        """Hand a run of QoS 0 to one connected client, with its identifiers."""
        outlet = target.session.outlet
        if outlet is not None:
            form = variant(
                run, version=outlet.version, qos=0, retain=False, identifiers=target.identifiers
            )
            self._put_form(outlet, form, touched)

    def _put_form(self, outlet: Outlet, form: Run, touched: list[Outlet]) -> None:
        """Hand packets to one client as they are, but for a topic alias if it takes some."""
        alias = None if outlet.aliases is None else outlet.aliases.of(form.topic)
        if alias is None:
            owed = outlet.put(form.data, form.stride, form.count)
        else:
            owed = _put_aliased(outlet, form, alias)
        if owed:
            touched.append(outlet)
        self.messages_out += form.count

    def _share_run(
        self, shared: GroupTarget, run: Run, publisher: str, touched: list[Outlet]
    ) -> int:
        online = [m for m in shared.members if m.session.outlet is not None]
        if not online:
            return 0
        for target, first, count in shared.group.shares(
            online, run.count, self._strategy, publisher=publisher, topic=run.topic
        ):
            self._put_special(target, _slice(run, first, count), touched)
        return 1

    def deliver(
        self, route: Route, message: Message, sender: Outlet | None, touched: list[Outlet]
    ) -> int:
        """Hand the messages of a run to every session of a route, each at the lower of both QoS.

        Args:
            route: of the run's topic.
            message: the run; its RETAIN flag is what was published.
            sender: outlet of the client that published it.
            touched: outlets that owe a flush.

        Returns:
            How many sessions it went to.
        """
        run = message.run
        reached = 0
        for target in route.targets:
            if target.no_local and sender is not None and target.session.outlet is sender:
                continue
            retain = run.retain and target.retain_as_published
            reached += self.hand(target, message, touched, retain=retain)
        for shared in route.groups:
            reached += self._share(shared, message, touched)
        if not reached:
            self.messages_unrouted += run.count
        return reached

    def hand(
        self,
        target: Target,
        message: Message,
        touched: list[Outlet],
        *,
        retain: bool,
        group: str = "",
        first: int = 0,
        count: int | None = None,
    ) -> int:
        """Give one session messages of a run that it may read; return 1 if it could be given them."""
        session, run = target.session, message.run
        number = run.count if count is None else count
        outlet = session.outlet
        if min(run.qos, target.qos) == 0:
            if outlet is None:
                return 0
            now = message.received_at if message.expires_at is None else self._clock()
            form = message.form(outlet.version, 0, target.identifiers, retain=retain, now=now)
            self._put_form(outlet, _slice(form, first, number), touched)
            return 1
        if outlet is None and not session.kept:
            return 0
        queued = Queued(
            message=message,
            retain=retain,
            identifiers=target.identifiers,
            group=group,
            weighed=self.policy_changes,
        )
        self._queue(target, queued, first, number, touched)
        return 1

    def _queue(
        self, target: Target, queued: Queued, first: int, count: int, touched: list[Outlet]
    ) -> None:
        """Put messages above QoS 0 into a session's queue."""
        session = target.session
        qos = min(queued.message.run.qos, target.qos)
        owed = session.deliver(queued, qos=qos, first=first, count=count)
        outlet = session.outlet
        # Where the client's window is full nothing was written, but whoever publishes must learn of the backlog.
        if outlet is not None and (owed or outlet.backlogged):
            touched.append(outlet)
        self.messages_out += count

    def _share(self, shared: GroupTarget, message: Message, touched: list[Outlet]) -> int:
        members = [m for m in shared.members if m.session.outlet is not None]
        if not members:
            members = [m for m in shared.members if m.session.kept and m.qos]
        if not members:
            self._lost(message, 0, message.run.count, "no member")
            return 0
        reached = 0
        for target, first, count in shared.group.shares(
            _with_room(members),
            message.run.count,
            self._strategy,
            publisher=message.publisher.name,
            topic=message.run.topic,
        ):
            reached = self.hand(
                target,
                message,
                touched,
                retain=False,
                group=shared.group.name,
                first=first,
                count=count,
            )
        return reached


def _takers(group: Group, tried: Sequence[Session]) -> list[Target]:
    """Members that can queue messages: those that are connected, or else those that are kept."""
    members = [
        target_of([m]) for session, m in group.members.items() if m.qos and session not in tried
    ]
    online = [m for m in members if m.session.outlet is not None]
    return _with_room(online or [m for m in members if m.session.kept])


def _with_room(members: list[Target]) -> list[Target]:
    """Those of them that can queue messages of a shared subscription, see `broker.overflow`; all if none can."""
    return [m for m in members if m.session.delivery.overflow is None] or members


def _slice(run: Run, first: int, count: int) -> Run:
    if count == run.count:
        return run
    return run.repeated(run.data[first * run.stride : (first + count) * run.stride], count)


def _put_aliased(outlet: Outlet, form: Run, alias: Alias) -> bool:
    """The first packet that names an alias also has the topic; True when the outlet needs a flush."""
    owed, start = False, 0
    if not alias.told:
        named = aliased(form, alias.number, with_topic=True)
        if outlet.lossy or named.stride > outlet.max_packet_bytes:
            return outlet.put(form.data, form.stride, form.count)
        alias.told = True
        owed = outlet.put(named.data[: named.stride], named.stride, 1)
        start = 1
    if start < form.count:
        short = aliased(form, alias.number, with_topic=False)
        owed = (
            outlet.put(short.data[start * short.stride :], short.stride, form.count - start) or owed
        )
    return owed
