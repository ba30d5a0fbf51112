"""How many connections everybody together, and each peer by name, may hold open: counted, never waited for.

For listeners whose protocol has no admission of its own (HTTP): a peer with a good certificate must not be able to
take every file descriptor, nor all the places that are meant for others.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Places:
    """The places of one listener."""

    def __init__(self, *, total: int, each: int) -> None:
        """Start with all of them free.

        Args:
            total: connections of everybody together.
            each: connections of one name.
        """
        self._total = total
        self._each = each
        self._taken = 0
        self._by_name: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken

    @contextmanager
    def place_of(self, name: str) -> Generator[bool]:
        """Hold one place for `name` inside the block.

        Yields:
            False: there is none; the connection must be ended.
        """
        if self._taken >= self._total or self._by_name[name] >= self._each:
            yield False
            return
        self._taken += 1
        self._by_name[name] += 1
        try:
            yield True
        finally:
            self._taken -= 1
            self._by_name[name] -= 1
            if not self._by_name[name]:
                del self._by_name[name]
