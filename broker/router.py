"""Who gets a message: subscriptions, routes, and delivery of runs.

*Theory of operation.* Subscriptions live in one `FilterTree`, shared ones in another by their group. The first message
on a topic builds a `Route`: the matching subscriptions, one a session, of which the guard allows this very topic to be
read. A route is then a dictionary look-up per run, see `broker.route_table`. A change of policy clears the table; a
change of a filter concerns the routes of the topics it matches, one of whether a session is connected those that name
it. A route whose building was overtaken by a change of policy is built again before it is used; one overtaken only by a
subscription is used once and not remembered. Nor is one remembered in which the controller did not say in time who may
read: it may the next time, and until then those wait in the queue of whom it is not known.

INVARIANT: a route used for delivery was built entirely after the last policy change this broker
applied, so a revoked grant stops with the next run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from broker.delivery import NOT_WEIGHED, Queued
from broker.groups import SHARED_PREFIX, Group, GroupStrategy, topics_of
from broker.route_table import RouteTable
from broker.routes import (
    NO_READERS,
    NOBODY,
    Building,
    GroupTarget,
    Lane,
    Matching,
    Readers,
    Route,
    route_of,
    target_of,
    without_gone,
)
from mqtt.convert import aliased, variant
from mqtt.packets import Version
from mqtt.topics import FilterTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from broker.aliases import Alias
    from broker.delivery import Lost
    from broker.messages import Message
    from broker.outlet import Outlet
    from broker.routes import Subscribed, Target
    from broker.session import Session
    from mqtt.outgoing import Parcel
    from mqtt.runs import Run
    from mqtt.stretches import Stretch

V5, V311 = Version.V5, Version.V311  # looking a member up costs more than comparing it
MAX_LANES = 4_096  # different sets of outlets remembered
MAX_REBUILDS = 5  # times a route is built again because policy changed meanwhile; then nothing of it is decided


class ReadCheck(Protocol):
    """The guard, as the router sees it: which of these sessions may read this topic now."""

    async def may_read(self, sessions: Sequence[Session], topic: bytes) -> Readers:
        """Return those that may, in order."""
        ...


class Router:
    """Subscriptions and routes of one broker.

    Attributes:
        routes: topic to route; always the same dictionary.
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
        self._table = RouteTable()
        self.routes = self._table.routes
        self._building: dict[bytes, Building] = {}
        self._lanes: dict[tuple[Outlet, ...], Lane] = {}
        self.messages_out = 0
        self.messages_unrouted = 0

    # ---- subscriptions -------------------------------------------------------------------------

    @property
    def subscriptions(self) -> int:
        """Topic filters held by all sessions, those of one group counted as one."""
        return len(self._tree) + len(self._groups)

    @property
    def stamp(self) -> int:
        """Another number whenever a route was forgotten."""
        return self._table.stamp

    @property
    def shared_subscriptions(self) -> int:
        """Groups."""
        return len(self._groups)

    def subscribe(self, subscribed: Subscribed) -> None:
        """Add or replace one session's filter; it takes effect for topics that have a route by `settle`."""
        filter_ = subscribed.filter
        if filter_.startswith(SHARED_PREFIX):
            group = self._groups.get(filter_)
            if group is None:
                group = self._groups[filter_] = Group(filter_)
                self._group_tree.add(group.filter, filter_, group)
            group.members[subscribed.session] = subscribed
        else:
            self._tree.add(filter_, id(subscribed.session), subscribed)
        self._changes += 1

    def unsubscribe(self, session: Session, filter_: str) -> None:
        """Remove one session's filter; it takes effect for topics that have a route by `settle`."""
        if filter_.startswith(SHARED_PREFIX):
            self._leave(session, filter_)
        else:
            self._tree.remove(filter_, id(session))
        self._changes += 1

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
            members: Sequence[Target] = () if group is None else _takers(group, queued.tried)
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
        """A session was connected or disconnected, or has ended: routes name outlets."""
        self._changes += 1
        self._table.forget_session(session)

    def settle(self, filter_: str) -> Iterator[None]:
        """Have a filter that was added, changed or removed take effect for all topics; in steps.

        Returns:
            an iterator to be gone through; others may have their turn between its steps.
        """
        return self._table.forget_matching(topics_of(filter_))

    def tidy(self) -> None:
        """Give back some of what forgotten routes hold; to be called now and then."""
        self._table.tidy()

    # ---- routes --------------------------------------------------------------------------------

    def forget_routes(self) -> None:
        """Drop every route: policy changed."""
        self.policy_changes += 1
        self._table.forget_all()
        self._lanes.clear()

    async def route(self, topic: bytes) -> Route:
        """The route of a topic, built when it is not known; once, however many ask for it.

        Args:
            topic: a valid topic name.

        Returns:
            The route. While policy changes faster than it can be built: one in which nothing is decided.
        """
        route = self.routes.get(topic)
        builds = 0
        while route is None:
            building = self._building.get(topic)
            if building is None or not self._is_of_now(building):
                if builds == MAX_REBUILDS:
                    matching = self._matching(topic)
                    unknown = Readers(allowed=(), undecided=matching.sessions, lasting=False)
                    return self._route_to(matching, unknown)
                builds += 1
                building = await self._build(topic)
            else:
                await building.done.wait()
            route = building.route
            if route is None or building.policy != self.policy_changes:
                route = self.routes.get(topic)
            elif building.changes != self._changes:
                # Whoever left meanwhile is not to be given anything any more; whoever came gets the next message.
                return without_gone(route)
        return route

    def _is_of_now(self, building: Building) -> bool:
        """Whether nothing has changed since a route's building began: it is good for who asks now, too."""
        return building.policy == self.policy_changes and building.changes == self._changes

    async def _build(self, topic: bytes) -> Building:
        """Build a route, and remember it if it is still true then."""
        building = Building(self.policy_changes, self._changes)
        self._building[topic] = building
        try:
            matching = self._matching(topic)
            readers = NO_READERS
            if matching.sessions:
                readers = await self._guard.may_read(matching.sessions, topic)
            building.route = self._route_to(matching, readers)
            if readers.lasting and self._is_of_now(building) and topic not in self.routes:
                self._table.remember(topic, building.route)
        finally:
            if self._building.get(topic) is building:
                del self._building[topic]
            building.done.set()
        return building

    def _matching(self, topic: bytes) -> Matching:
        """The subscriptions that match a topic now."""
        name = topic.decode()
        merged: dict[Session, list[Subscribed]] = {}
        for subscribed in self._tree.match(name):
            merged.setdefault(subscribed.session, []).append(subscribed)
        groups = [(group, tuple(group.members.values())) for group in self._group_tree.match(name)]
        sharing = dict.fromkeys(member.session for _, members in groups for member in members)
        return Matching(merged, groups, tuple(merged | sharing))

    def _route_to(self, matching: Matching, readers: Readers) -> Route:
        """The route to those that may read, and with a note to those of whom nobody can say it now."""
        if not matching.sessions:
            return NOBODY
        allowed = frozenset(readers.allowed)
        undecided = frozenset(readers.undecided)
        concerned = allowed | undecided
        targets = tuple(
            target_of(found, undecided=session in undecided)
            for session, found in matching.merged.items()
            if session in concerned
        )
        shared = tuple(
            GroupTarget(
                group=group,
                members=tuple(
                    target_of([member], undecided=member.session in undecided)
                    for member in members
                    if member.session in concerned
                ),
            )
            for group, members in matching.groups
        )
        return self._with_lane(route_of(targets, shared))

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
        online = [m for m in shared.members if m.session.outlet is not None and not m.undecided]
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
            if outlet is None or target.undecided:
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
            weighed=NOT_WEIGHED if target.undecided else self.policy_changes,
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
        members = _first_choice(shared.members, message.run.qos)
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


def _first_choice(members: Sequence[Target], qos: int) -> Sequence[Target]:
    """Members of a group that a message goes to: connected ones (4.8.2), if possible of those that surely may read it."""
    able = [m for m in members if not m.undecided or (m.qos and qos)]
    online = [m for m in able if m.session.outlet is not None]
    able = online or [m for m in able if m.session.kept and m.qos]
    return [m for m in able if not m.undecided] or able


def _takers(group: Group, tried: Sequence[Session]) -> Sequence[Target]:
    """Members that can queue messages: those that are connected, or else those that are kept."""
    members = [
        target_of([m]) for session, m in group.members.items() if m.qos and session not in tried
    ]
    online = [m for m in members if m.session.outlet is not None]
    return _with_room(online or [m for m in members if m.session.kept])


def _with_room(members: Sequence[Target]) -> Sequence[Target]:
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
