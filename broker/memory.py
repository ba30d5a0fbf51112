"""The ceilings over all that waits for clients, and what happens at them.

Every queue has a bound of its own; a thousand stuck clients together would still hold a thousand times that. So all
queues count here too, each in the share of its principal: while a share or the whole is spent, publishers are paused and
then messages dropped, as if the queue concerned were full. One principal's clients do not use up what others need.
What clients sent of packets that are not complete counts as well; who makes that too much is disconnected.
"""

from __future__ import annotations

from math import inf
from weakref import WeakValueDictionary

from typing_extensions import override

FREE_BYTES = 16_384  # of an unfinished packet: what a read leaves behind is nobody's fault


class MemoryBudget:
    """Bytes that wait for clients in this process.

    Args:
        ceiling_bytes: from here on every queue counts as full.
        share_bytes: the same for the queues of one principal; the ceiling if None.
        filters_ceiling_bytes: for all topic filters.
        filters_share_bytes: for those of one principal.

    Attributes:
        used_bytes: what waits now; a message waiting for several sessions counts for each.
        entry_bytes: of them for entries of messages that wait in the store only.
        unfinished_bytes: of them what clients sent of packets that are not complete.
        filters_ceiling_bytes: the same as `ceiling_bytes` for topic filters, which stay and are counted apart.
        filters_bytes: of all sessions' topic filters.
    """

    def __init__(
        self,
        ceiling_bytes: int,
        share_bytes: int | None = None,
        *,
        filters_ceiling_bytes: float = inf,
        filters_share_bytes: float = inf,
    ) -> None:
        self.ceiling_bytes = ceiling_bytes
        self.used_bytes = 0
        self.entry_bytes = 0
        self.unfinished_bytes = 0
        self.filters_ceiling_bytes = filters_ceiling_bytes
        self.filters_bytes = 0
        self._share_bytes = ceiling_bytes if share_bytes is None else share_bytes
        self._filters_share_bytes = filters_share_bytes
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    @override
    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used_bytes} of {self.ceiling_bytes} bytes>"

    def share(self, principal: str) -> Share:
        """The share of a principal, one for all its queues; it lives as long as one of them."""
        share = self._shares.get(principal)
        if share is None:
            share = Share(self, self._share_bytes, self._filters_share_bytes)
            self._shares[principal] = share
        return share

    @property
    def spent_shares(self) -> int:
        """Principals whose share is spent."""
        return sum(share.used_bytes > share.ceiling_bytes for share in self._shares.values())


class Share:
    """What waits for the clients of one principal, or of whoever else has a ceiling of its own.

    Whoever adds to `used_bytes` adds the same to `total.used_bytes`; a call of its own for that would be felt.

    Attributes:
        total: the budget it is a share of.
        ceiling_bytes: from here on every queue in it counts as full.
        used_bytes: what waits now.
        entry_bytes: of them for entries of messages that wait in the store only.
        stored_bytes: of the packets of these, in the store.
        unfinished_bytes: of them what clients sent of packets that are not complete.
        filters_bytes: of topic filters; not among them.
    """

    __slots__ = (
        "__weakref__",
        "ceiling_bytes",
        "entry_bytes",
        "filters_bytes",
        "filters_ceiling_bytes",
        "stored_bytes",
        "total",
        "unfinished_bytes",
        "used_bytes",
    )

    def __init__(
        self, total: MemoryBudget, ceiling_bytes: int, filters_ceiling_bytes: float = inf
    ) -> None:
        self.total = total
        self.ceiling_bytes = ceiling_bytes
        self.used_bytes = 0
        self.entry_bytes = 0
        self.stored_bytes = 0
        self.unfinished_bytes = 0
        self.filters_ceiling_bytes = filters_ceiling_bytes
        self.filters_bytes = 0

    @override
    def __repr__(self) -> str:
        return f"<Share {self.used_bytes} of {self.ceiling_bytes} bytes, of {self.total!r}>"

    @property
    def pressed(self) -> bool:
        """Whether half of it or of the total is used: what can wait elsewhere should."""
        total = self.total
        return (
            self.used_bytes * 2 > self.ceiling_bytes or total.used_bytes * 2 > total.ceiling_bytes
        )

    @property
    def spent(self) -> bool:
        """Whether its ceiling or that of the total is passed."""
        total = self.total
        return self.used_bytes > self.ceiling_bytes or total.used_bytes > total.ceiling_bytes

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more may wait."""
        total = self.total
        return (
            self.used_bytes + size_bytes <= self.ceiling_bytes
            and total.used_bytes + size_bytes <= total.ceiling_bytes
        )

    @property
    def full_of_entries(self) -> bool:
        """Whether entries of messages that wait in the store only take half of its ceiling, or of the total's.

        They may come while the ceiling is passed: whoever fills memory takes nothing from those who can do without.
        """
        total = self.total
        return (
            self.entry_bytes * 2 > self.ceiling_bytes or total.entry_bytes * 2 > total.ceiling_bytes
        )

    @property
    def full_of_unfinished(self) -> bool:
        """Whether unfinished packets take a quarter of its ceiling, or of the total's: queues are to have the rest."""
        total = self.total
        return (
            self.unfinished_bytes * 4 > self.ceiling_bytes
            or total.unfinished_bytes * 4 > total.ceiling_bytes
        )

    def has_room_for_filter(self, size_bytes: int) -> bool:
        """Whether one more topic filter fits."""
        total = self.total
        return (
            self.filters_bytes + size_bytes <= self.filters_ceiling_bytes
            and total.filters_bytes + size_bytes <= total.filters_ceiling_bytes
        )

    def count_filters(self, more_bytes: int) -> None:
        """Count topic filters that come, or go."""
        self.filters_bytes += more_bytes
        self.total.filters_bytes += more_bytes


class Unfinished:
    """What one connection's client sent of a packet that is not complete."""

    __slots__ = ("_share", "held_bytes")

    def __init__(self, share: Share) -> None:
        """Count in a share.

        Attributes:
            held_bytes: how much there is.
        """
        self._share = share
        self.held_bytes = 0

    @override
    def __repr__(self) -> str:
        return f"<Unfinished {self.held_bytes} bytes>"

    def note(self, held_bytes: int) -> bool:
        """Count what there is now; False when there is too much of it and this client is among the reasons."""
        more = held_bytes - self.held_bytes
        share = self._share
        self.held_bytes = held_bytes
        for each in (share, share.total):
            each.unfinished_bytes += more
            each.used_bytes += more
        return more <= 0 or held_bytes <= FREE_BYTES or not share.full_of_unfinished

    def close(self) -> None:
        """The connection has ended."""
        self.note(0)
