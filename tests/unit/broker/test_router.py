from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acl.model import Principal
from acl.rules import RuleSet
from broker.guard import Readers
from broker.outlet import Outlet
from broker.router import (
    MAX_REBUILDS,
    MAX_ROUTES_BYTES,
    NOBODY,
    ROUTE_BYTES,
    Router,
    Subscribed,
    Subscriber,
)
from cache.authorizer import Authorizer
from cache.connection import ConnectionCache
from cache.limits import CacheLimits
from mqtt.packets import Publish
from tests.brokers import RuleAuthority
from tests.unit.broker.test_outlet import Pipe, outlet_on


def empty_cache() -> ConnectionCache:
    authorizer = Authorizer(
        RuleAuthority(RuleSet(())), limits=CacheLimits(), clock=lambda: 0.0, new_id=lambda: "d-0"
    )
    return authorizer.open(Principal("member"))


@dataclass(eq=False)
class Member:
    outlet: Outlet = field(default_factory=lambda: outlet_on(Pipe(), []))
    principal: Principal = field(default_factory=lambda: Principal("member"))
    cache: ConnectionCache = field(default_factory=empty_cache)
    peer: str = ""
    got: list[tuple[bytes, int, bool]] = field(default_factory=list[tuple[bytes, int, bool]])

    def deliver(self, publish: Publish, *, qos: int, retain: bool) -> bool:
        self.got.append((publish.payload, qos, retain))
        return True


@dataclass
class Check:
    """Allows everybody but the refused; calls `meanwhile` as if policy changed during the check."""

    refused: set[Subscriber] = field(default_factory=set[Subscriber])
    meanwhile: Callable[[], None] = lambda: None
    checks: int = 0
    lasting: bool = True

    async def may_read(self, subscribers: Sequence[Subscriber], topic: bytes) -> Readers:
        self.checks += 1
        allowed = tuple(s for s in subscribers if s not in self.refused)
        self.meanwhile()
        return Readers(allowed=allowed, lasting=self.lasting)


def subscribed(
    member: Member, filter_: str, *, qos: int = 0, no_local: bool = False, rap: bool = False
) -> Subscribed:
    return Subscribed(
        subscriber=member, filter=filter_, qos=qos, no_local=no_local, retain_as_published=rap
    )


async def test_route_holds_every_session_once_at_its_highest_qos() -> None:
    router, member = Router(Check()), Member()
    router.subscribe(subscribed(member, "t/#", qos=0))
    router.subscribe(subscribed(member, "t/+", qos=1))
    (target,) = (await router.route(b"t/1")).targets
    assert target.subscriber is member
    assert target.qos == 1


async def test_route_is_remembered_until_a_subscription_changes() -> None:
    check = Check()
    router, member = Router(check), Member()
    router.subscribe(subscribed(member, "t/#"))
    assert await router.route(b"t/1") is await router.route(b"t/1")
    router.unsubscribe(member, "t/#")
    assert (await router.route(b"t/1")).targets == ()
    assert router.subscriptions == 0


async def test_filter_without_wildcards_concerns_its_own_route_only() -> None:
    router, member = Router(Check()), Member()
    other, own = await router.route(b"t/2"), await router.route(b"t/1")
    router.subscribe(subscribed(member, "t/1"))
    assert await router.route(b"t/2") is other
    assert own.targets == ()
    assert len((await router.route(b"t/1")).targets) == 1
    router.unsubscribe(member, "t/1")
    assert (await router.route(b"t/1")).targets == ()
    router.subscribe(subscribed(member, "t/+"))
    assert len((await router.route(b"t/2")).targets) == 1


async def test_route_leaves_out_who_may_not_read() -> None:
    check = Check()
    router, member = Router(check), Member()
    check.refused.add(member)
    router.subscribe(subscribed(member, "#"))
    assert (await router.route(b"t/1")).targets == ()


async def test_route_overtaken_by_a_policy_change_is_built_again() -> None:
    check = Check()
    router, member = Router(check), Member()
    router.subscribe(subscribed(member, "#"))

    def revoke() -> None:
        check.refused.add(member)
        check.meanwhile = lambda: None
        router.forget_routes()

    check.meanwhile = revoke
    assert (await router.route(b"t/1")).targets == ()
    assert check.checks == 2


async def test_policy_that_never_settles_delivers_to_nobody() -> None:
    check = Check()
    router, member = Router(check), Member()
    router.subscribe(subscribed(member, "#"))
    check.meanwhile = router.forget_routes
    assert await router.route(b"t/1") is NOBODY
    assert check.checks == MAX_REBUILDS


async def test_message_goes_out_at_the_lower_qos_and_with_the_asked_retain_flag() -> None:
    router, plain, keeps = Router(Check()), Member(), Member()
    router.subscribe(subscribed(plain, "t", qos=0))
    router.subscribe(subscribed(keeps, "t", qos=1, rap=True))
    publish = Publish(topic="t", payload=b"m", qos=1, packet_id=1, retain=True)
    touched: list[Outlet] = []
    assert router.deliver(await router.route(b"t"), publish, None, touched) == 2
    assert plain.got == [(b"m", 0, False)]
    assert keeps.got == [(b"m", 1, True)]
    assert len(touched) == 2


async def test_dollar_topics_are_not_matched_by_leading_wildcards() -> None:
    router, member = Router(Check()), Member()
    router.subscribe(subscribed(member, "#"))
    assert (await router.route(b"$SYS/x")).targets == ()


async def test_route_of_a_passing_verdict_is_used_once_and_not_remembered() -> None:
    check = Check(lasting=False)
    router, member = Router(check), Member()
    router.subscribe(subscribed(member, "#"))
    check.refused.add(member)
    assert (await router.route(b"t/1")).targets == ()
    check.refused.clear()
    assert len((await router.route(b"t/1")).targets) == 1
    assert not router.routes


async def test_routes_are_bounded_in_memory_however_long_topics_are() -> None:
    router = Router(Check())
    longest = 65_535
    for number in range(2 * MAX_ROUTES_BYTES // longest):
        await router.route(f"{number:05}".encode() + b"t" * (longest - 5))
        held = sum(len(topic) + ROUTE_BYTES for topic in router.routes)
        assert held <= MAX_ROUTES_BYTES
    assert router.routes
