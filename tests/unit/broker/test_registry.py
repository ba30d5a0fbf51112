from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import trio

from acl.model import Principal
from broker.outlet import Outlet
from broker.registry import Registry
from mqtt.errors import ReasonCode
from tests.unit.broker.test_outlet import Pipe, outlet_on

if TYPE_CHECKING:
    import trio.abc


@dataclass(eq=False)
class Member:
    principal: Principal
    client_id: str
    quiet_until: float = inf
    certificate_ends: float = inf
    dropped_from_queue: int = 0
    outlet: Outlet = field(default_factory=lambda: outlet_on(Pipe(), []))
    endings: list[ReasonCode] = field(default_factory=list[ReasonCode])

    def end(self, reason: ReasonCode, text: str) -> None:
        assert text
        self.endings.append(reason)


def test_registry_takes_over_the_older_session_of_the_same_client() -> None:
    registry = Registry(max_connections=10, now=lambda: 0.0)
    older, newer = (Member(Principal("sensor"), "c1") for _ in range(2))
    registry.enter(older)
    registry.enter(newer)
    assert older.endings == [ReasonCode.SESSION_TAKEN_OVER]
    assert newer.endings == []
    registry.leave(older)
    assert len(registry) == 1, "the one taken over does not remove its successor"
    registry.leave(newer)
    assert len(registry) == 0


def test_registry_never_takes_over_another_principals_session() -> None:
    registry = Registry(max_connections=10, now=lambda: 0.0)
    victim = Member(Principal("sensor"), "c1")
    registry.enter(victim)
    registry.enter(Member(Principal("mallory"), "c1"))
    assert victim.endings == []
    assert len(registry) == 2


def test_registry_is_full_at_its_bound() -> None:
    registry = Registry(max_connections=1, now=lambda: 0.0)
    assert not registry.full
    registry.enter(Member(Principal("sensor"), "c1"))
    assert registry.full


async def test_registry_sweep_ends_silent_clients_and_expired_certificates(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    registry = Registry(max_connections=10, now=lambda: 1000.0)
    lively = Member(Principal("a"), "1")
    silent = Member(Principal("b"), "1", quiet_until=trio.current_time() + 5)
    expired = Member(Principal("c"), "1", certificate_ends=999.0)
    for member in (lively, silent, expired):
        registry.enter(member)
    nursery.start_soon(registry.sweep)
    await trio.sleep(1.5)
    assert expired.endings[0] == ReasonCode.NOT_AUTHORIZED
    assert silent.endings == []
    await trio.sleep(5)
    assert silent.endings[0] == ReasonCode.KEEP_ALIVE_TIMEOUT
    assert registry.timed_out > 0
    assert lively.endings == []
