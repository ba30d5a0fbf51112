"""Every bound of the room in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from cache.errors import LimitsInvalid

L2_SHARDS: Final = 32  # features C2; a power of two, so that a mask finds the shard
# An entry's own memory beside its topic: dict slot, key tuple, decision, strings; measured as 350-450.
ENTRY_OVERHEAD_BYTES: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How much the caches may hold, and how long and how often the authority is asked.

    Attributes:
        l1_entries: decisions kept per connection, for writing and for reading each.
        l1_bytes: bytes of topic names kept per connection, for writing and for reading each.
        l2_principals_per_shard: principals remembered in each of the 32 shards.
        l2_entries_per_principal: decisions kept for one principal.
        l2_bytes_per_shard: memory of one shard, counted as topic bytes plus 400 an entry.
        max_grants: different grants the negative filter holds; beyond them it answers "maybe" to all.
        max_batch_questions: questions in one request to the authority.
        max_waiting_questions: different questions unanswered at a time; more are denied at once.
        question_deadline_s: seconds until an unanswered question is denied.
        max_asks: how often one question is asked when answers come from an older epoch.

    Raises:
        LimitsInvalid: one of them is not positive.
    """

    l1_entries: int = 2048
    l1_bytes: int = 262_144
    l2_principals_per_shard: int = 512
    l2_entries_per_principal: int = 8192
    l2_bytes_per_shard: int = 4_194_304
    max_grants: int = 1_000_000
    max_batch_questions: int = 256
    max_waiting_questions: int = 4096
    question_deadline_s: float = 2.0
    max_asks: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if not isinstance(value, int | float) or not value > 0:
                raise LimitsInvalid(f"`{field.name}` is {value}: it must be greater than 0")
