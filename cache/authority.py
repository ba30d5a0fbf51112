"""What the caches need of whoever decides: a protocol, implemented by the controller's link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cache.errors import AuthorityUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.decide import Decision
    from acl.model import AccessRequest

__all__ = ["Answered", "Answers", "Authority", "AuthorityUnavailable"]


class Answered(Protocol):
    """The shape of an answer; any class with these two will do."""

    @property
    def epoch(self) -> int:
        """The policy epoch by which all were decided."""
        ...

    @property
    def decisions(self) -> Sequence[Decision]:
        """One decision for each question, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one batch of questions.

    Attributes:
        epoch: the policy epoch by which all were decided.
        decisions: one for each question, in order.
    """

    epoch: int
    decisions: tuple[Decision, ...]


class Authority(Protocol):
    """Whoever holds the rules."""

    async def ask(self, requests: Sequence[AccessRequest]) -> Answered:
        """Decide every request by one snapshot of the rules.

        Args:
            requests: at least one.

        Raises:
            AuthorityUnavailable: no answer can be had; any other exception is treated alike.

        *Cancellation*: may be cancelled at any time; the answer is then of no interest.
        """
        ...
