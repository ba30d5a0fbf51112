from __future__ import annotations

from hypothesis import given, strategies as st

from broker.route_table import LOOKS, MANY, RouteTable
from broker.routes import NOBODY, Route, Target, route_of
from broker.session import Session
from mqtt.names import STEP_NODES
from mqtt.topics import matches
from tests.unit.broker.test_session import House


def route_to(*sessions: Session) -> Route:
    targets = tuple(
        Target(session=each, qos=0, no_local=False, retain_as_published=False, identifiers=())
        for each in sessions
    )
    return route_of(targets, ())


def forget(table: RouteTable, filter_: str) -> int:
    """Go through all steps; how many there were."""
    return sum(1 for _ in table.forget_matching(filter_))


NAMES = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)
FILTERS = st.lists(st.sampled_from("ab+"), min_size=1, max_size=3).map("/".join)
CHANGES = st.one_of(
    st.tuples(st.just("remember"), NAMES, st.sets(st.integers(0, 2))),
    st.tuples(st.just("filter"), FILTERS, st.none()),
    st.tuples(st.just("session"), st.none(), st.integers(0, 2)),
    st.tuples(st.just("all"), st.none(), st.none()),
    st.tuples(st.just("tidy"), st.none(), st.integers(0, 3)),
)


@given(st.lists(CHANGES, max_size=40))
def test_every_change_forgets_just_the_routes_it_concerns(
    changes: list[tuple[str, str, object]],
) -> None:
    house = House()
    sessions = [house.session(f"{number}") for number in range(3)]
    table, model = RouteTable(), dict[bytes, Route]()
    for kind, text, who in changes:
        stamp, before = table.stamp, len(model)
        match kind:
            case "remember":
                topic = text.encode()
                if topic not in model and isinstance(who, set):
                    model[topic] = route_to(*(sessions[number] for number in who))
                    table.remember(topic, model[topic])
                    before = len(model)
            case "filter":
                forget(table, text)
                model = {
                    topic: route
                    for topic, route in model.items()
                    if not matches(text.split("/"), topic.decode().split("/"))
                }
            case "session" if isinstance(who, int):
                table.forget_session(sessions[who])
                model = {
                    topic: route
                    for topic, route in model.items()
                    if sessions[who] not in route.sessions()
                }
            case "all":
                table.forget_all()
                model.clear()
            case _ if isinstance(who, int):
                table.tidy(who)
            case _:
                pass
        assert table.routes == model
        assert table.stamp != stamp or len(model) == before
    table.forget_all()
    while repr(table) and "0 to be given back" not in repr(table):
        table.tidy()
    assert table.kept == (0, 0), "nothing is left beside the table"


def test_routes_of_a_session_that_is_nearly_everywhere_are_forgotten_with_all_others() -> None:
    house, table = House(), RouteTable()
    session = house.session("everywhere")
    for number in range(MANY + 1):
        table.remember(b"%d" % number, route_to(session))
    table.remember(b"other", NOBODY)
    table.forget_session(session)
    assert not table.routes


def test_a_filter_is_looked_for_in_steps_and_what_was_there_at_first_is_gone_at_the_end() -> None:
    table = RouteTable()
    for number in range(2 * STEP_NODES):
        table.remember(b"t/%d" % number, NOBODY)
    steps = table.forget_matching("t/+")
    next(steps)
    assert 0 < len(table.routes) < 2 * STEP_NODES
    table.remember(b"u", NOBODY)
    assert sum(1 for _ in steps) >= 2
    assert set(table.routes) == {b"u"}


def test_many_filters_over_many_topics_cost_no_more_than_to_build_the_routes_anew() -> None:
    table = RouteTable()
    topics = 1_000
    for number in range(topics):
        table.remember(b"t/%d/y" % number, NOBODY)
    steps = [forget(table, f"t/+/x{number}") for number in range(1_000)]
    assert not table.routes
    assert steps[0] >= topics // STEP_NODES
    assert sum(steps) * STEP_NODES < 10 * LOOKS, "a million levels would be looked at, one by one"
    assert steps[-1] == 1, "there is nothing to look at any more"
