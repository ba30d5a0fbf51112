"""A route: who gets what is published on one topic, and how.

*Rules of this file*: a route is built from sessions that may read its topic, which the router has asked; nothing here
asks again. It names outlets, so it is of no use any more when one of its sessions was connected or disconnected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from mqtt.packets import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from broker.groups import Group
    from broker.outlet import Outlet
    from broker.session import Session

ROUTE_BYTES = 1_300  # of a route beside its topic and targets, its place in the tree included
TARGET_BYTES = 200  # of one session on it, its note of the route included; measured as 190


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """One topic filter of one session, as it was granted.

    Attributes:
        session: whose.
        filter: `$share/NAME/` included.
        qos: the highest at which it gets messages.
        no_local: not those its own client publishes.
        retain_as_published: RETAIN flags are kept.
        identifier: its Subscription Identifier.
    """

    session: Session
    filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    identifier: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One session on a route, with what its matching filters add up to.

    Attributes:
        session: whose.
        qos: the highest of its filters.
        no_local: whether all of them ask not to get its client's own messages.
        retain_as_published: whether one of them asks to keep RETAIN flags.
        identifiers: Subscription Identifiers.
        undecided: nobody can say now whether it may read the topic: what can wait in its queue does.
    """

    session: Session
    qos: int
    no_local: bool
    retain_as_published: bool
    identifiers: tuple[int, ...]
    undecided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTarget:
    """A shared subscription on a route: the members that may read the topic."""

    group: Group
    members: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lane:
    """Outlets that take QoS 0 packets of one version as they are; the same object for all routes with just these."""

    version: Version
    outlets: tuple[Outlet, ...]
    max_packet_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where messages on one topic go.

    Attributes:
        targets: every session once, at the highest QoS of its matching filters (MQTT 3.3.4-2).
        v5: outlets of connected MQTT 5 clients that take a run as it is.
        v311: outlets of connected MQTT 3.1.1 clients.
        special: connected clients that get identifiers or aliases.
        groups: the shared subscriptions.
        not_to_self: outlets whose client asked not to get its own messages (no-local).
        lane: the outlets, where nothing else is to be known of the route.
    """

    targets: tuple[Target, ...]
    v5: tuple[Outlet, ...]
    v311: tuple[Outlet, ...]
    special: tuple[Target, ...]
    groups: tuple[GroupTarget, ...]
    not_to_self: frozenset[Outlet]
    lane: Lane | None = None

    @property
    def memory(self) -> int:
        """What it holds, in bytes."""
        members = sum(len(group.members) for group in self.groups)
        return ROUTE_BYTES + TARGET_BYTES * (len(self.targets) + members)

    def sessions(self) -> Iterator[Session]:
        """Every session that may get something, maybe twice."""
        for target in self.targets:
            yield target.session
        for group in self.groups:
            for member in group.members:
                yield member.session


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who may read a topic.

    Attributes:
        allowed: those that may, in the order asked.
        undecided: those of whom nobody can say it now.
        lasting: only a change of policy or of subscriptions can make this untrue.
    """

    allowed: Sequence[Session]
    undecided: Sequence[Session]
    lasting: bool


@dataclass(frozen=True, slots=True)
class Matching:
    """The subscriptions that match a topic.

    Attributes:
        merged: those of its own of each session.
        groups: shared ones, with the members.
        sessions: all of them.
    """

    merged: Mapping[Session, Sequence[Subscribed]]
    groups: Sequence[tuple[Group, Sequence[Subscribed]]]
    sessions: Sequence[Session]


class Building:
    """A route that is being built.

    Attributes:
        policy: count of policy changes when that began.
        changes: count of changes of subscriptions then.
        done: set at the end.
        route: what was built; None while it is, and if it was given up.
    """

    __slots__ = ("changes", "done", "policy", "route")

    def __init__(self, policy: int, changes: int) -> None:
        self.policy = policy
        self.changes = changes
        self.done = trio.Event()
        self.route: Route | None = None

    @override
    def __repr__(self) -> str:
        return f"<Building {self.route!r}>"


NO_READERS = Readers(allowed=(), undecided=(), lasting=True)
NOBODY = Route(targets=(), v5=(), v311=(), special=(), groups=(), not_to_self=frozenset())


def without_gone(route: Route) -> Route:
    """The route without sessions that ended, and with the outlets of now."""
    targets = tuple(t for t in route.targets if _still_there(t))
    groups = tuple(
        GroupTarget(group=g.group, members=tuple(m for m in g.members if _still_there(m)))
        for g in route.groups
    )
    return route_of(targets, groups)


def _still_there(target: Target) -> bool:
    return not target.session.ended


def route_of(targets: tuple[Target, ...], groups: tuple[GroupTarget, ...]) -> Route:
    """The route to these, with the outlets of now."""
    plain: dict[Version, list[Outlet]] = {Version.V5: [], Version.V311: []}
    special: list[Target] = []
    for target in targets:
        outlet = target.session.outlet
        if outlet is None or target.undecided:
            continue
        if outlet.aliases is not None or (target.identifiers and outlet.version == Version.V5):
            special.append(target)
        else:
            plain[outlet.version].append(outlet)
    outlets = _outlets_of([t for t in targets if t.no_local])
    return Route(
        targets=targets,
        v5=tuple(plain[Version.V5]),
        v311=tuple(plain[Version.V311]),
        special=tuple(special),
        groups=groups,
        not_to_self=frozenset(outlets),
    )


def _outlets_of(targets: Sequence[Target]) -> Iterator[Outlet]:
    for target in targets:
        if target.session.outlet is not None:
            yield target.session.outlet


def target_of(subscribed: Sequence[Subscribed], *, undecided: bool = False) -> Target:
    """What several matching filters of one session mean together."""
    best = max(subscribed, key=lambda s: s.qos)
    return Target(
        session=best.session,
        qos=best.qos,
        no_local=all(s.no_local for s in subscribed),
        retain_as_published=any(s.retain_as_published for s in subscribed),
        # One copy carries the identifiers of all matching subscriptions (3.3.4-4).
        identifiers=tuple(s.identifier for s in subscribed if s.identifier is not None),
        undecided=undecided,
    )
