"""The ceiling over all that waits for clients, and what happens at it.

Every queue has a bound of its own; a thousand stuck clients together would still hold a thousand times that. So all
queues count here too, and while the ceiling is passed publishers are paused and then messages dropped, as if the
queue concerned were full.
"""

from __future__ import annotations

from typing_extensions import override


class MemoryBudget:
    """Bytes that wait for clients in this process.

    Args:
        ceiling_bytes: from here on every queue counts as full.

    Attributes:
        used_bytes: what waits now; a message waiting for several sessions counts for each.
    """

    __slots__ = ("ceiling_bytes", "used_bytes")

    def __init__(self, ceiling_bytes: int) -> None:
        self.ceiling_bytes = ceiling_bytes
        self.used_bytes = 0

    @override
    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used_bytes} of {self.ceiling_bytes} bytes>"

    @property
    def spent(self) -> bool:
        """Whether the ceiling is passed."""
        return self.used_bytes > self.ceiling_bytes
