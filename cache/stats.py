"""Counters of the caches: plain integers, so that counting costs nothing and metrics read them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from acl.decide import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from acl.decide import Decision


_ALLOW: Final = (
    Outcome.ALLOW
)  # compared directly: `allowed` and the member's lookup cost a call each


class Level(StrEnum):
    """Who answered."""

    L1 = "l1"
    L2 = "l2"
    L3 = "l3"
    AUTHORITY = "authority"
    LOCAL = "local"  # fail closed: no contact, no answer in time, no room, an unusable name


@dataclass(slots=True)
class CacheStats:
    """Counts since the start. The first group counts decisions by level and outcome.

    Attributes:
        l1_allow: and so on for every level; L1 counts messages, the others questions.
        stale_answers: answers of an older epoch, thrown away and asked again.
        early_answers: answers of an epoch this broker has yet to apply: used once, not kept.
        timeouts: questions denied because no answer came in time.
        overflows: questions denied because too many were waiting.
        authority_failures: batches that failed.
        batches: requests sent to the authority.
        questions: questions in them.
        largest_batch: most questions in one of them.
        joined: askers that waited for a question already under way.
        policies: policy changes applied.
        policies_refused: policy changes ignored because their epoch was older than the applied one.
        policy_gaps: changes that did not follow the applied epoch, so that the negative filter was suspended.
        flushes: L1 tables emptied.
        l2_evictions: principals dropped from L2 to make room.
    """

    l1_allow: int = 0
    l1_deny: int = 0
    l2_allow: int = 0
    l2_deny: int = 0
    l3_deny: int = 0
    authority_allow: int = 0
    authority_deny: int = 0
    local_deny: int = 0
    stale_answers: int = 0
    early_answers: int = 0
    timeouts: int = 0
    overflows: int = 0
    authority_failures: int = 0
    batches: int = 0
    questions: int = 0
    largest_batch: int = 0
    joined: int = 0
    policies: int = 0
    policies_refused: int = 0
    policy_gaps: int = 0
    flushes: int = 0
    l2_evictions: int = 0

    def decisions(self) -> Mapping[tuple[str, str], int]:
        """Return the decisions by (level, outcome)."""
        return {
            ("l1", "allow"): self.l1_allow,
            ("l1", "deny"): self.l1_deny,
            ("l2", "allow"): self.l2_allow,
            ("l2", "deny"): self.l2_deny,
            ("l3", "deny"): self.l3_deny,
            ("authority", "allow"): self.authority_allow,
            ("authority", "deny"): self.authority_deny,
            ("local", "deny"): self.local_deny,
        }

    def count_l1(self, decision: Decision, messages: int = 1) -> None:
        """Count messages answered by L1."""
        if decision.outcome is _ALLOW:
            self.l1_allow += messages
        else:
            self.l1_deny += messages

    def count_l2(self, decision: Decision) -> None:
        """Count one question answered by L2."""
        if decision.outcome is _ALLOW:
            self.l2_allow += 1
        else:
            self.l2_deny += 1

    def count_authority(self, decision: Decision) -> None:
        """Count one question answered by the authority."""
        if decision.outcome is _ALLOW:
            self.authority_allow += 1
        else:
            self.authority_deny += 1

    def count_batch(self, questions: int) -> None:
        """Count one request to the authority."""
        self.batches += 1
        self.questions += questions
        self.largest_batch = max(self.largest_batch, questions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSizes:
    """What the caches hold at one moment.

    Attributes:
        connections: open L1 tables.
        l1_entries: decisions in all of them.
        l2_principals: principals in L2.
        l2_entries: decisions in L2.
        l2_bytes: counted memory of L2.
        l3_grants: keys in the negative filter; 0 while it is suspended.
        l3_bytes: memory of the filter's bits.
        waiting_questions: questions without an answer yet.
    """

    connections: int
    l1_entries: int
    l2_principals: int
    l2_entries: int
    l2_bytes: int
    l3_grants: int
    l3_bytes: int
    waiting_questions: int
