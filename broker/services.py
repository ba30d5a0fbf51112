"""What all connections of a broker share, and what they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.admission import Offer
    from broker.config import BrokerLimits
    from broker.durability import Durability
    from broker.guard import Guard
    from broker.memory import MemoryBudget
    from broker.publishing import Publishing
    from broker.registry import Registry
    from broker.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all connections of a broker share."""

    guard: Guard
    publishing: Publishing
    registry: Registry
    store: Durability
    limits: BrokerLimits
    offer: Offer
    budget: MemoryBudget
    turns: Turns
    broker_id: str
    random_bytes: Callable[[int], bytes]
    new_client_id: Callable[[], str]
    count: Counters


@dataclass(slots=True, kw_only=True)
class Counters:
    """Plain counts the metrics page reads."""

    messages_in: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    runs_in: int = 0
    protocol_errors: int = 0
    refused_connects: int = 0
    dropped_slow: int = 0
