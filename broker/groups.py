"""Shared subscriptions: which member of a group gets which message (4.8.2).

*Rules of this file*: only a member that is connected is chosen; where none is, messages above QoS 0 wait with one
whose session is kept, until any member is back. A member is chosen for a share of a run, so that a flood in one read is
spread like single messages are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING
from zlib import crc32

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from broker.routes import Subscribed, Target
    from broker.session import Session

SHARED_PREFIX = "$share/"
# Messages of a run given to one member at a time, by strategies that spread: fine enough that a burst of 100 reaches
# all of four members, coarse enough that a long run stays a few slices.
SHARE_MESSAGES = 16


class GroupStrategy(StrEnum):
    """How a member is chosen.

    Attributes:
        ROUND_ROBIN: one after the other.
        LEAST_IN_FLIGHT: who has the fewest messages unfinished.
        STICKY: the same for all messages of a publisher.
        HASH: the same for all messages of a topic.
    """

    ROUND_ROBIN = "round_robin"
    LEAST_IN_FLIGHT = "least_in_flight"
    STICKY = "sticky"
    HASH = "hash"


def topics_of(filter_: str) -> str:
    """What topics must match: a shared subscription's filter without its prefix."""
    return filter_.split("/", 2)[2] if filter_.startswith(SHARED_PREFIX) else filter_


class Group:
    """The sessions that share one `$share/NAME/FILTER`.

    Attributes:
        name: the whole filter, prefix included.
        filter: what topics must match.
        members: each with its options.
    """

    __slots__ = ("_turn", "filter", "members", "name")

    def __init__(self, name: str) -> None:
        """Start without members."""
        self.name = name
        self.filter = topics_of(name)
        self.members: dict[Session, Subscribed] = {}
        self._turn = 0

    @override
    def __repr__(self) -> str:
        return f"<Group {self.name} of {len(self.members)}>"

    def shares(
        self,
        targets: Sequence[Target],
        count: int,
        strategy: GroupStrategy,
        *,
        publisher: str,
        topic: bytes,
    ) -> Iterator[tuple[Target, int, int]]:
        """Say who gets which messages of a run.

        Args:
            targets: members that may, at least one.
            count: messages in the run.
            strategy: how to choose.
            publisher: name of who published them.
            topic: theirs.

        Yields:
            a member, the index of the first message and how many.
        """
        if len(targets) == 1:
            yield targets[0], 0, count
            return
        match strategy:
            case GroupStrategy.STICKY:
                yield _constant(targets, publisher.encode()), 0, count
            case GroupStrategy.HASH:
                yield _constant(targets, topic), 0, count
            case GroupStrategy.ROUND_ROBIN | GroupStrategy.LEAST_IN_FLIGHT:
                share = min(SHARE_MESSAGES, -(-count // len(targets)))
                for first in range(0, count, share):
                    if strategy is GroupStrategy.ROUND_ROBIN:
                        target = self._next(targets)
                    else:
                        target = min(targets, key=_load)
                    yield target, first, min(share, count - first)

    def _next(self, targets: Sequence[Target]) -> Target:
        self._turn += 1
        return targets[self._turn % len(targets)]


def _load(target: Target) -> int:
    return len(target.session.delivery.outgoing)


def _constant(targets: Sequence[Target], key: bytes) -> Target:
    """The member of highest weight for `key` (rendezvous hashing): others keep theirs when one comes or goes."""
    return max(targets, key=lambda target: crc32(key, crc32(target.session.client_id.encode())))
