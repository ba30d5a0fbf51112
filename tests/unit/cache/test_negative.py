from __future__ import annotations

import subprocess
import sys

import pytest

from acl.errors import AclError
from acl.model import Principal, Resource
from cache.keyed import blake2_hasher
from cache.negative import (
    ERROR_RATE_PER_PROBE,
    MAX_COARSE_LITERALS,
    MAX_PROBES,
    MAX_SHAPES_PER_PRINCIPAL,
    MIN_CAPACITY,
    GrantFilter,
    KeyedBloom,
)

SENSOR, VIEWER = Principal("sensor"), Principal("viewer")


def topic(name: str) -> Resource:
    return Resource.topic(name)


def test_filter_without_grants_rules_everything_out() -> None:
    assert not GrantFilter().maybe(SENSOR, topic("a"))


@pytest.mark.parametrize(
    ("principal", "resource", "asker", "name"),
    [
        ("sensor", "topic.a.b", SENSOR, "a/b"),
        ("sensor", "topic.telemetry.**", SENSOR, "telemetry/x/y"),
        ("sensor", "topic.*.b", SENSOR, "anything/b"),
        ("sen*", "topic.app-*.in", SENSOR, "app-17/in"),
        ("*", "topic.*-prod.**", SENSOR, "db-prod/x"),
        ("*", "topic.home.{principal}.**", SENSOR, "home/sensor/x"),
        ("*", "topic.x-{principal}-*", SENSOR, "x-sensor-7"),
        ("*", "**", SENSOR, "any/thing"),
        ("*or", "*.a", SENSOR, "a"),
    ],
)
def test_filter_says_maybe_to_what_is_granted_by_any_kind_of_pattern(
    principal: str, resource: str, asker: Principal, name: str
) -> None:
    for hasher in (None, blake2_hasher(b"k" * 16)):
        grants = GrantFilter([("other", "topic.q"), (principal, resource)], hasher=hasher)
        assert grants.maybe(asker, topic(name))


def test_filter_says_no_to_what_is_granted_to_others_or_elsewhere() -> None:
    grants = GrantFilter([("sensor", "topic.telemetry.**"), ("*", "topic.home.{principal}.**")])
    assert not grants.maybe(VIEWER, topic("telemetry/x"))
    assert not grants.maybe(SENSOR, topic("telemetry"))
    assert not grants.maybe(SENSOR, topic("other/x"))
    assert not grants.maybe(SENSOR, Resource.kernel("telemetry"))
    assert not grants.maybe(SENSOR, topic("home/viewer/x"))


def test_filter_never_judges_a_subscription() -> None:
    assert GrantFilter().maybe(SENSOR, topic("a/#"))


def test_filter_grows_and_forgets_nothing() -> None:
    grants = GrantFilter()
    for number in range(MIN_CAPACITY + 10):
        grants.add(f"p{number % 50}", f"topic.t{number}")
    assert grants.stats.resizes == 1
    assert grants.stats.capacity == 2 * MIN_CAPACITY
    assert all(
        grants.maybe(Principal(f"p{n % 50}"), topic(f"t{n}")) for n in range(MIN_CAPACITY + 10)
    )


def test_filter_repeated_grants_do_not_make_it_grow() -> None:
    grants = GrantFilter()
    for _ in range(MIN_CAPACITY + 10):
        grants.add("sensor", "topic.a")
    assert grants.stats.capacity == MIN_CAPACITY
    assert grants.maybe(SENSOR, topic("a"))


def test_filter_beyond_its_bound_says_maybe_to_everything_and_holds_nothing() -> None:
    grants = GrantFilter(
        [("sensor", f"topic.t{number}") for number in range(MIN_CAPACITY + 10)], max_grants=1000
    )
    assert grants.stats.saturated
    assert grants.stats.grants == 0
    assert grants.maybe(VIEWER, topic("never-granted"))
    grants.add("sensor", "topic.more")
    assert grants.maybe(SENSOR, topic("more"))


def test_filter_with_more_shapes_than_its_bound_is_coarser_but_never_wrong() -> None:
    texts = [
        "topic.x" + "".join(".a" if mask >> bit & 1 else ".*" for bit in range(6))
        for mask in range(64)
    ]
    grants = GrantFilter(("sensor", text) for text in texts)
    for mask in range(64):
        path = "x/" + "/".join("a" if mask >> bit & 1 else "b" for bit in range(6))
        assert grants.maybe(SENSOR, topic(path))
    assert not grants.maybe(SENSOR, topic("y/a/a/a/a/a/a"))
    (granted,) = grants._classes.matching("sensor")
    assert len(granted.shapes) <= MAX_SHAPES_PER_PRINCIPAL + MAX_COARSE_LITERALS + 1


def test_filter_answers_maybe_rather_than_look_up_too_often() -> None:
    grants = GrantFilter(
        (pattern, f"topic.{text}")
        for pattern in ("*", "s*", "*r", "se*", "sen*", "*s*", "*e*")
        for text in ("*.a", "*.*.b", "b.*", "c*.*", "*d.*")
    )
    assert grants.plan(SENSOR).probes(3) is None
    assert grants.maybe(SENSOR, topic("never/granted"))
    assert len(grants.plan(SENSOR).probes(4) or ()) <= MAX_PROBES


def test_filter_refuses_a_grant_outside_the_grammar() -> None:
    grants = GrantFilter()
    with pytest.raises(AclError):
        grants.add("sensor", "telemetry")
    assert grants.stats.grants == 0


def test_filter_passes_less_than_its_budget_of_what_was_never_granted() -> None:
    grants = GrantFilter()
    for number in range(8000):
        grants.add("sensor", f"topic.t{number}.*")
        grants.add("*", f"topic.u{number}.**")
        grants.add("sensor", f"topic.v{number}.a.b")
    stats = grants.stats
    assert stats.capacity < 4 * stats.grants
    passed = sum(grants.maybe(SENSOR, topic(f"no{number}/a/b")) for number in range(20_000))
    assert passed <= 20_000 * stats.error_rate


def test_bloom_of_full_capacity_keeps_its_error_rate_and_every_hash() -> None:
    hasher = blake2_hasher(b"k" * 16)
    present = [hasher(("p", n, ())) for n in range(MIN_CAPACITY)]
    built, added = KeyedBloom(MIN_CAPACITY, present), KeyedBloom(MIN_CAPACITY)
    for value in present:
        added.add(value)
    assert built.is_full
    assert added.is_full
    assert all(value in built and value in added for value in present)
    absent = [hasher(("q", n, ())) for n in range(50_000)]
    hits = [value in built for value in absent]
    assert hits == [value in added for value in absent]
    # 31 expected, and a twentieth; 4 standard deviations above
    assert (
        sum(hits)
        <= 1.05 * 50_000 * ERROR_RATE_PER_PROBE + 4 * (50_000 * ERROR_RATE_PER_PROBE) ** 0.5
    )


def test_bloom_takes_signed_hashes() -> None:
    bloom = KeyedBloom(MIN_CAPACITY)
    bloom.add(-1)
    assert -1 in bloom
    assert -1 in bloom.resized()
    assert len(bloom) == 1


def test_door_library_imports_without_a_warning() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "import cache.negative"], check=True)
