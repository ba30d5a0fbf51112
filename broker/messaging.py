"""The rooms of messages and sessions, connected, with what the store held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.dead_letters import DeadLetters
from broker.delayed import Delayed
from broker.delivery import QueueLimits
from broker.groups import GroupStrategy
from broker.memory import MemoryBudget
from broker.messages import Messages
from broker.overflow import Refiller
from broker.publishing import Publishing
from broker.quota import QuotaLimits
from broker.registry import Registry, RegistryLimits
from broker.restore import Restorer
from broker.retained import Retained
from broker.router import Router
from broker.session import Rooms
from broker.waiting import QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.config import BrokerLimits, MqttConfig
    from broker.durability import Durability
    from broker.faults import Faults
    from broker.guard import Guard
    from broker.kernels import KernelDispatch
    from broker.records import Restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Who gets messages, and what becomes of those nobody gets."""

    router: Router
    waiting: QueuePolicy
    dead_letters: DeadLetters
    faults: Faults


def connect_routing(
    guard: Guard, mqtt: MqttConfig, clock: Callable[[], float], faults: Faults
) -> Routing:
    """Make the router and tell the guard of it.

    Args:
        guard: weighs every route.
        mqtt: how shared subscriptions choose, where dead letters go.
        clock: seconds since the epoch.
        faults: told of errors of ours.
    """
    dead_letters = DeadLetters(mqtt.dead_letter_topic, faults)
    router = Router(
        guard, strategy=GroupStrategy(mqtt.shared_strategy), clock=clock, lost=dead_letters.add
    )
    waiting = QueuePolicy(guard, faults)
    guard.attach(router, waiting)
    return Routing(router=router, waiting=waiting, dead_letters=dead_letters, faults=faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Messaging:
    """What takes messages over and keeps sessions."""

    routing: Routing
    publishing: Publishing
    registry: Registry
    store: Durability
    budget: MemoryBudget
    refiller: Refiller


def connect_messaging(
    routing: Routing,
    *,
    guard: Guard,
    kernels: KernelDispatch,
    limits: BrokerLimits,
    store: Durability,
    keeps_sessions: bool,
    restored: Restored,
    clock: Callable[[], float],
) -> Messaging:
    """Connect the rooms and restore what they held.

    Args:
        routing: the router and its friends.
        guard: weighs everything.
        kernels: where calls go.
        limits: every bound.
        store: where messages and sessions are kept.
        keeps_sessions: whether that outlives the process.
        restored: what it held.
        clock: seconds since the epoch.
    """
    budget = MemoryBudget(
        limits.max_waiting_bytes,
        limits.max_waiting_bytes_per_principal,
        filters_ceiling_bytes=limits.max_subscriptions_bytes,
        filters_share_bytes=limits.max_subscriptions_bytes_per_principal,
    )
    refiller = Refiller(store, routing.faults)
    messages = Messages(store, clock=clock, next_id=restored.next_message_id)
    publishing = Publishing(
        guard=guard,
        router=routing.router,
        messages=messages,
        retained=Retained(
            messages,
            store,
            limits=QuotaLimits(
                max_messages=limits.max_retained_messages,
                max_bytes=limits.max_retained_bytes,
                max_messages_each=limits.max_retained_messages_per_principal,
                max_bytes_each=limits.max_retained_bytes_per_principal,
            ),
        ),
        delayed=Delayed(
            messages,
            store,
            limits=QuotaLimits(
                max_messages=limits.max_delayed_messages,
                max_bytes=limits.max_delayed_bytes,
                max_messages_each=limits.max_delayed_messages_per_principal,
                max_bytes_each=limits.max_delayed_bytes_per_principal,
            ),
            lost=routing.dead_letters.add,
        ),
        kernels=kernels,
        store=store,
        lost=routing.dead_letters.add,
    )
    rooms = Rooms(
        store=store,
        messages=messages,
        policy=routing.waiting,
        limits=QueueLimits(
            max_queued=limits.max_queued_messages,
            max_queued_bytes=limits.max_queued_session_bytes,
            max_stored=limits.max_stored_messages,
            max_stored_bytes=limits.max_stored_session_bytes,
            max_principal_bytes=limits.max_stored_bytes_per_principal,
            max_age_s=limits.max_message_age_s,
        ),
        budget=budget,
        open_cache=guard.authorizer.open,
        lost=routing.dead_letters.add,
        hand_over=routing.router.hand_over,
        refill=refiller.refill,
        later=refiller.go_on_later,
    )
    registry = Registry(
        limits=RegistryLimits(
            max_connections=limits.max_connections,
            max_sessions=limits.max_sessions,
            max_sessions_per_principal=limits.max_sessions_per_principal,
        ),
        now=clock,
        rooms=rooms,
        router=routing.router,
        keeps=keeps_sessions,
        publish_will=publishing.publish_will,
        faults=routing.faults,
        next_session_id=restored.next_session_id,
    )
    Restorer(restored, messages, now=clock()).restore(
        rooms=rooms,
        registry=registry,
        retained=publishing.retained,
        delayed=publishing.delayed,
    )
    return Messaging(
        routing=routing,
        publishing=publishing,
        registry=registry,
        store=store,
        budget=budget,
        refiller=refiller,
    )
