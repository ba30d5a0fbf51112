"""L2: the decisions of all principals of this broker, in 32 shards by principal.

Rules of this file:
- A principal's decisions lie in one table, bounded by itself: a client that asks about everything
  pushes out its own decisions, not those of others.
- Each shard is an LRU of such tables, bounded in number and in memory.
- A table holds decisions of one policy only: it is stamped with the serial number of the change that the
  broker applied last, and emptied when it is met under another. So a change costs nothing here. It is a
  serial and not the epoch because a change may repeat its epoch (a snapshot after a reconnect).

Sharding buys no parallelism in CPython; it keeps the pause of a growing dict below 2 ms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cache.generations import Generations
from cache.limits import ENTRY_OVERHEAD_BYTES, L2_SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.decide import Decision
    from acl.model import Principal, Resource
    from cache.limits import CacheLimits
    from cache.negative import ProbePlan

    Question = tuple[int, bytes | Resource]  # operation bit, and the topic's bytes or the resource


_FOREVER: Final = math.inf


class _Budget:
    """The counted memory of one shard; every table of it keeps its own share up to date."""

    __slots__ = ("weight",)

    def __init__(self) -> None:
        self.weight = 0


class PrincipalTable:
    """What is known about one principal.

    Attributes:
        principal: whose decisions.
        plan: its lookups in the negative filter, for policy change `plan_serial`.
        evicted: dropped from its shard; whoever holds it must ask the store for a new one.
    """

    __slots__ = (
        "_budget",
        "_counted",
        "_decisions",
        "_serial",
        "_young",
        "evicted",
        "plan",
        "plan_serial",
        "principal",
    )

    def __init__(self, principal: Principal, limits: CacheLimits, budget: _Budget) -> None:
        self.principal = principal
        self._budget = budget
        self._counted = 0
        self.plan: ProbePlan | None = None
        self.plan_serial = -1
        self.evicted = False
        self._serial = -1
        self._decisions: Generations[Question, Decision] = Generations(
            max_entries=limits.l2_entries_per_principal,
            max_weight=limits.l2_bytes_per_shard // 2,
        )
        self._young = self._decisions.young

    def get(self, question: Question, serial: int, clock: Callable[[], float]) -> Decision | None:
        """Return the kept decision, if it was kept under this policy and is still valid.

        Args:
            question: which.
            serial: of the last policy change.
            clock: Unix time in seconds; read only for decisions that end by themselves.
        """
        if self._serial != serial:
            self._start(serial)
            return None
        decision = self._young.get(question)
        if decision is None:
            decision = self._decisions.get_old(question)
            if decision is None:
                return None
            self._keep(question, decision)
        if decision.valid_until != _FOREVER and decision.valid_until <= clock():
            self._decisions.drop(question)
            return None
        return decision

    def put(self, question: Question, decision: Decision, *, serial: int) -> None:
        """Keep a decision made by the policy of this serial."""
        if self._serial != serial:
            self._start(serial)
        self._keep(question, decision)

    def _start(self, serial: int) -> None:
        self._decisions.clear()
        self._serial = serial
        self._count()

    def _keep(self, question: Question, decision: Decision) -> None:
        self._decisions.put(question, decision, _weight(question))
        self._count()

    def _count(self) -> None:
        weight = self._decisions.weight
        self._budget.weight += weight - self._counted
        self._counted = weight

    def evict(self) -> None:
        """Forget everything, for good."""
        self.evicted = True
        self.plan = None
        self._decisions.seal()
        self._count()

    @property
    def weight(self) -> int:
        """Counted memory, in bytes."""
        return self._counted

    def __len__(self) -> int:
        return len(self._decisions)


def _weight(question: Question) -> int:
    name = question[1]
    length = len(name) if isinstance(name, bytes) else sum(map(len, name.segments))
    return ENTRY_OVERHEAD_BYTES + length


class _Shard:
    """An LRU of principal tables."""

    __slots__ = ("budget", "tables")

    def __init__(self) -> None:
        self.tables: OrderedDict[Principal, PrincipalTable] = OrderedDict()
        self.budget = _Budget()


class DecisionStore:
    """The 32 shards.

    Args:
        limits: how much they may hold.
    """

    __slots__ = ("_limits", "_shards", "evictions")

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._shards = tuple(_Shard() for _ in range(L2_SHARDS))
        self.evictions = 0

    def table(self, principal: Principal) -> PrincipalTable:
        """Return the table of a principal, a new one if need be, and mark it as used."""
        shard = self._shard(principal)
        table = shard.tables.get(principal)
        if table is not None:
            shard.tables.move_to_end(principal)
            return table
        if len(shard.tables) >= self._limits.l2_principals_per_shard:
            self._evict(shard)
        table = shard.tables[principal] = PrincipalTable(principal, self._limits, shard.budget)
        return table

    def put(
        self, table: PrincipalTable, question: Question, decision: Decision, *, serial: int
    ) -> None:
        """Keep a decision in a table of this store, and make room for it."""
        if table.evicted:
            return
        shard = self._shard(table.principal)
        table.put(question, decision, serial=serial)
        shard.tables.move_to_end(table.principal)
        while shard.budget.weight > self._limits.l2_bytes_per_shard and len(shard.tables) > 1:
            self._evict(shard)

    def _evict(self, shard: _Shard) -> None:
        _, table = shard.tables.popitem(last=False)
        table.evict()
        self.evictions += 1

    def _shard(self, principal: Principal) -> _Shard:
        return self._shards[hash(principal) & (L2_SHARDS - 1)]

    def sizes(self) -> tuple[int, int, int]:
        """Return the numbers of principals, decisions and counted bytes; linear in what is held."""
        tables = [table for shard in self._shards for table in shard.tables.values()]
        return len(tables), sum(map(len, tables)), sum(table.weight for table in tables)
