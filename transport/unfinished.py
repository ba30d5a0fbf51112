"""The connections whose handshake is not over: how many there may be, and who must go when there is no place.

Pure bookkeeping, no I/O. INVARIANT: `admit` and `leave` come in pairs, and the counts are those of the tickets out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

MIN_SILENCE_S: Final = 1.0  # a client speaks at once; one round trip round the world is 0.3 s


class Ticket:
    """One unfinished connection: its place, since when, and how to end it."""

    __slots__ = ("evict", "since_s", "site")

    def __init__(self, *, site: str, since_s: float, evict: Callable[[], None]) -> None:
        self.site = site
        self.since_s = since_s
        self.evict = evict


class Unfinished:
    """Counts unfinished handshakes, in all and per site, and knows who has not said a word yet."""

    def __init__(self, *, max_total: int, max_per_site: int) -> None:
        self._max_total = max_total
        self._max_per_site = max_per_site
        self._total = 0
        self._sites: Counter[str] = Counter()
        self._silent: dict[Ticket, None] = {}  # in order of arrival, at most `max_total`

    @property
    def full(self) -> bool:
        """Whether there is no place for anyone."""
        return self._total >= self._max_total

    def has_place(self, site: str) -> bool:
        """Whether one more connection of `site` may begin its handshake."""
        return not self.full and self._sites[site] < self._max_per_site

    def admit(self, ticket: Ticket) -> None:
        """Take a place; the caller has asked `has_place`."""
        self._total += 1
        self._sites[ticket.site] += 1
        self._silent[ticket] = None

    def heard(self, ticket: Ticket) -> None:
        """Note that the peer has spoken: from now on only the deadline ends it."""
        self._silent.pop(ticket, None)

    def leave(self, ticket: Ticket) -> None:
        """Give the place back."""
        self._silent.pop(ticket, None)
        self._total -= 1
        self._sites[ticket.site] -= 1
        if not self._sites[ticket.site]:
            del self._sites[ticket.site]

    def longest_silent(self, now_s: float) -> Ticket | None:
        """Return who has been silent for longest, if for `MIN_SILENCE_S` at least."""
        oldest = next(iter(self._silent), None)
        if oldest is None or now_s - oldest.since_s < MIN_SILENCE_S:
            return None
        self._silent.pop(oldest)
        return oldest
