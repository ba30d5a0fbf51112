from __future__ import annotations

from broker.groups import Group
from broker.routes import (
    NOBODY,
    ROUTE_BYTES,
    TARGET_BYTES,
    GroupTarget,
    Subscribed,
    Target,
    route_of,
    target_of,
    without_gone,
)
from broker.session import Session
from mqtt.packets import Version
from tests.unit.broker.test_session import House


def granted(
    session: Session,
    *,
    qos: int = 0,
    no_local: bool = False,
    rap: bool = False,
    identifier: int | None = None,
) -> Subscribed:
    return Subscribed(
        session=session,
        filter="t/#",
        qos=qos,
        no_local=no_local,
        retain_as_published=rap,
        identifier=identifier,
    )


def target(session: Session, *, no_local: bool = False, identifier: int | None = None) -> Target:
    return target_of([granted(session, no_local=no_local, identifier=identifier)])


def test_filters_of_a_session_add_up() -> None:
    session = House().session()
    both = target_of(
        [
            granted(session, qos=1, no_local=True, identifier=7),
            granted(session, qos=2, rap=True, identifier=None),
        ]
    )
    assert both == Target(
        session=session, qos=2, no_local=False, retain_as_published=True, identifiers=(7,)
    )


def test_route_has_the_outlets_of_those_who_take_a_run_as_it_is_by_version() -> None:
    house = House()
    five, line_5 = house.online("five")
    old, line_3 = house.online("old", version=Version.V311)
    away = house.session("away")
    route = route_of((target(five), target(old), target(away)), ())
    assert (route.v5, route.v311, route.special) == ((line_5.outlet,), (line_3.outlet,), ())
    assert len(route.targets) == 3


def test_identifiers_and_aliases_make_a_client_special() -> None:
    house = House()
    named = target(house.online("named")[0], identifier=5)
    old = target(house.online("old", version=Version.V311)[0], identifier=5)
    short = target(house.online("short", aliases=4)[0])
    route = route_of((named, old, short), ())
    assert route.special == (named, short)
    assert len(route.v311) == 1, "its version has no identifiers"


def test_route_knows_who_does_not_want_to_hear_itself() -> None:
    house = House()
    deaf, line = house.online("deaf")
    other, _ = house.online("other")
    route = route_of((target(deaf, no_local=True), target(other)), ())
    assert route.not_to_self == {line.outlet}


def test_route_takes_memory_for_each_target_and_member() -> None:
    house = House()
    one, two = target(house.session("one")), target(house.session("two"))
    group = GroupTarget(group=Group("$share/g/t"), members=(one, two))
    assert NOBODY.memory == ROUTE_BYTES
    assert route_of((one,), (group,)).memory == ROUTE_BYTES + 3 * TARGET_BYTES


def test_route_without_those_that_ended_has_the_outlets_of_now() -> None:
    house = House()
    stays, gone = house.session("stays"), house.session("gone")
    group = GroupTarget(group=Group("$share/g/t"), members=(target(stays), target(gone)))
    route = route_of((target(stays), target(gone)), (group,))
    gone.close()
    line = house.line()
    stays.attach(line, 10)
    left = without_gone(route)
    assert [each.session for each in left.targets] == [stays]
    assert [each.session for each in left.groups[0].members] == [stays]
    assert left.v5 == (line.outlet,)
