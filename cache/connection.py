"""L1: what one connection has been answered, in tables that the data path looks into without a call.

Rules of this file:
- A connection reads `writes.get(topic)` or `reads.get(topic)`: a plain dict lookup. A hit is an answer
  of the applied policy, because every policy change and every loss of contact empties the tables first.
- The dict objects stay the same for the life of the connection; a flush empties them in place.
- A hit needs no clock: decisions that end by themselves are kept only where somebody empties the tables when the first
  of them ends (`cache.authorizer`). Denials are kept too: a flood of refused messages costs a lookup each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from acl.model import Operation
from cache.generations import Generations

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.decide import Decision
    from acl.model import Principal
    from cache.decisions import PrincipalTable
    from cache.limits import CacheLimits
    from cache.stats import CacheStats


_PUBLISH: Final = Operation.WRITE  # looking a member up costs more than comparing it


class ConnectionCache:
    """The decisions of one connection; made by `Authorizer.open`.

    Attributes:
        principal: whose connection.
        writes: topic name as bytes to decision, for publishing.
        reads: topic name or filter as bytes to decision, for delivery and subscribing.
        generation: grows with every flush.
        table: the principal's table in L2.

    *Resource handling*: `close` when the connection ends; afterwards nothing is kept any more.
    """

    __slots__ = (
        "_forget",
        "_reads",
        "_stats",
        "_writes",
        "generation",
        "principal",
        "reads",
        "table",
        "writes",
    )

    def __init__(
        self,
        table: PrincipalTable,
        limits: CacheLimits,
        stats: CacheStats,
        forget: Callable[[ConnectionCache], None],
    ) -> None:
        self.principal: Principal = table.principal
        self.table = table
        self.generation = 0
        self._stats = stats
        self._forget = forget
        self._writes: Generations[bytes, Decision] = _l1(limits)
        self._reads: Generations[bytes, Decision] = _l1(limits)
        self.writes: dict[bytes, Decision] = self._writes.young
        self.reads: dict[bytes, Decision] = self._reads.young

    def recall(self, operation: Operation, topic: bytes) -> Decision | None:
        """Return what is neither in `writes` nor in `reads` but not forgotten yet, and keep it anew."""
        generations = self._writes if operation is _PUBLISH else self._reads
        decision = generations.get_old(topic)
        if decision is not None:
            generations.put(topic, decision, len(topic))
        return decision

    def put(self, operation: Operation, topic: bytes, decision: Decision) -> None:
        """Keep a decision of the applied policy."""
        generations = self._writes if operation is _PUBLISH else self._reads
        generations.put(topic, decision, len(topic))

    def count_hits(self, messages: int, *, allowed: bool = True) -> None:
        """Count messages that the data path answered from `writes` or `reads` by itself.

        Args:
            messages: how many.
            allowed: what they were answered.
        """
        if allowed:
            self._stats.l1_allow += messages
        else:
            self._stats.l1_deny += messages

    def flush(self) -> None:
        """Forget everything."""
        self._writes.clear()
        self._reads.clear()
        self.generation += 1

    def close(self) -> None:
        """Forget everything, for good: nobody flushes a closed connection, so it must hold nothing."""
        self._writes.seal()
        self._reads.seal()
        self.generation += 1
        self._forget(self)

    def __len__(self) -> int:
        return len(self._writes) + len(self._reads)


def _l1(limits: CacheLimits) -> Generations[bytes, Decision]:
    return Generations(max_entries=limits.l1_entries, max_weight=limits.l1_bytes)
