"""Bounded places for messages that stay: so many in all, and so many of them for each principal.

*Rules of this file*: what is kept is counted to whoever published it, so that one principal does not take the places of
all. What an earlier life left is counted without being asked for: nothing that was acknowledged is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimits:
    """Bounds.

    Attributes:
        max_messages: in all.
        max_bytes: of all their packets.
        max_messages_each: of one principal.
        max_bytes_each: of the packets of one principal's.
    """

    max_messages: int
    max_bytes: int
    max_messages_each: int
    max_bytes_each: int


class Quota:
    """How many messages are kept, and whose.

    Attributes:
        messages: kept now.
        bytes: of their packets.
    """

    def __init__(self, limits: QuotaLimits) -> None:
        """Start with none."""
        self._limits = limits
        self._held: dict[str, tuple[int, int]] = {}
        self.messages = 0
        self.bytes = 0

    @override
    def __repr__(self) -> str:
        return (
            f"<Quota {self.messages} messages of {len(self._held)} principals, {self.bytes} bytes>"
        )

    def fits(self, principal: str, messages: int, size_bytes: int) -> bool:
        """Whether so many more messages of a principal, of this size together, may be kept."""
        limits = self._limits
        return (
            self.messages + messages <= limits.max_messages
            and self.bytes + size_bytes <= limits.max_bytes
            and self.fits_share(principal, messages, size_bytes)
        )

    def fits_share(self, principal: str, messages: int, size_bytes: int) -> bool:
        """The same where only the share of the principal counts."""
        limits = self._limits
        messages_held, bytes_held = self._held.get(principal, (0, 0))
        return (
            messages_held + messages <= limits.max_messages_each
            and bytes_held + size_bytes <= limits.max_bytes_each
        )

    def add(self, principal: str, size_bytes: int) -> None:
        """Count one message."""
        self._count(principal, 1, size_bytes)

    def remove(self, principal: str, size_bytes: int) -> None:
        """Give the place of a message back."""
        self._count(principal, -1, -size_bytes)

    def _count(self, principal: str, messages: int, size_bytes: int) -> None:
        messages_held, bytes_held = self._held.get(principal, (0, 0))
        self.messages += messages
        self.bytes += size_bytes
        if messages_held + messages:
            self._held[principal] = messages_held + messages, bytes_held + size_bytes
        else:
            del self._held[principal]
