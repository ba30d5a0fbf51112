from __future__ import annotations

from collections import Counter

import pytest

from broker.groups import SHARE_MESSAGES, Group, GroupStrategy
from broker.routes import Target
from broker.session import Session
from tests.unit.broker.test_session import House, queued

SPREADING = (GroupStrategy.ROUND_ROBIN, GroupStrategy.LEAST_IN_FLIGHT)


def target(session: Session) -> Target:
    return Target(session=session, qos=1, no_local=False, retain_as_published=False, identifiers=())


def targets(house: House, count: int) -> list[Target]:
    return [target(house.online(f"member-{number}")[0]) for number in range(count)]


def shares(
    members: list[Target],
    count: int,
    strategy: GroupStrategy,
    *,
    group: Group | None = None,
    publisher: str = "sensor",
    topic: bytes = b"t",
) -> list[tuple[str, int, int]]:
    found = (group or Group("$share/g/t")).shares(
        members, count, strategy, publisher=publisher, topic=topic
    )
    return [(member.session.client_id, first, size) for member, first, size in found]


def test_group_matches_by_its_filter_without_the_prefix() -> None:
    assert Group("$share/g/a/+/#").filter == "a/+/#"


@pytest.mark.parametrize("strategy", GroupStrategy)
@pytest.mark.parametrize("count", [1, 2, 5, 16, 17, 100, 1000])
def test_every_message_of_a_run_goes_to_one_member_in_order(
    strategy: GroupStrategy, count: int
) -> None:
    found = shares(targets(House(), 3), count, strategy)
    given = [index for _, first, size in found for index in range(first, first + size)]
    assert given == list(range(count))
    assert all(size > 0 for _, _, size in found)


@pytest.mark.parametrize("strategy", GroupStrategy)
def test_only_member_gets_the_whole_run_in_one_slice(strategy: GroupStrategy) -> None:
    assert shares(targets(House(), 1), 1000, strategy) == [("member-0", 0, 1000)]


def test_round_robin_gives_single_messages_to_one_member_after_the_other() -> None:
    members, group = targets(House(), 3), Group("$share/g/t")
    found = Counter(
        shares(members, 1, GroupStrategy.ROUND_ROBIN, group=group)[0][0] for _ in range(9)
    )
    assert set(found.values()) == {3}


def test_round_robin_spreads_a_burst_over_all_members_in_bounded_slices() -> None:
    found = shares(targets(House(), 4), 100, GroupStrategy.ROUND_ROBIN)
    assert len({name for name, _, _ in found}) == 4
    assert max(size for _, _, size in found) <= SHARE_MESSAGES


def test_short_burst_is_spread_evenly() -> None:
    found = shares(targets(House(), 4), 8, GroupStrategy.ROUND_ROBIN)
    assert sorted(size for _, _, size in found) == [2, 2, 2, 2]


def test_least_in_flight_prefers_who_has_less_to_do() -> None:
    house = House()
    members = targets(house, 3)
    for number in (0, 2):
        members[number].session.deliver(queued(house.message()), qos=1, first=0, count=1)
    assert shares(members, 1, GroupStrategy.LEAST_IN_FLIGHT)[0][0] == "member-1"


def test_least_in_flight_counts_what_it_has_given_of_the_same_run() -> None:
    house = House()
    members = targets(house, 2)
    message = house.message(count=64)
    given: Counter[str] = Counter()
    for member, first, size in Group("$share/g/t").shares(
        members, 64, GroupStrategy.LEAST_IN_FLIGHT, publisher="sensor", topic=b"t"
    ):
        member.session.deliver(queued(message), qos=1, first=first, count=size)
        given[member.session.client_id] += size
    assert set(given.values()) == {32}


def test_sticky_keeps_to_one_member_for_a_publisher_whatever_the_topic() -> None:
    members = targets(House(), 4)
    chosen = {
        shares(members, 1, GroupStrategy.STICKY, topic=topic)[0][0]
        for topic in (b"a", b"b", b"c", b"d", b"e")
    }
    assert len(chosen) == 1
    others = {
        shares(members, 1, GroupStrategy.STICKY, publisher=f"p{number}")[0][0]
        for number in range(50)
    }
    assert len(others) == 4


def test_hash_keeps_to_one_member_for_a_topic_whoever_publishes() -> None:
    members = targets(House(), 4)
    chosen = {
        shares(members, 1, GroupStrategy.HASH, publisher=name)[0][0] for name in ("a", "b", "c")
    }
    assert len(chosen) == 1
    others = {
        shares(members, 1, GroupStrategy.HASH, topic=f"t/{number}".encode())[0][0]
        for number in range(50)
    }
    assert len(others) == 4


@pytest.mark.parametrize("strategy", [GroupStrategy.STICKY, GroupStrategy.HASH])
def test_constant_choice_of_the_others_stays_when_a_member_leaves(
    strategy: GroupStrategy,
) -> None:
    members = targets(House(), 4)

    def choices(among: list[Target]) -> list[str]:
        return [
            shares(among, 1, strategy, publisher=f"p{n}", topic=f"t/{n}".encode())[0][0]
            for n in range(50)
        ]

    before, after = choices(members), choices(members[1:])
    assert all(
        old == new
        for old, new in zip(before, after, strict=True)
        if old != members[0].session.client_id
    )
