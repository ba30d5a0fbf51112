from __future__ import annotations

import pytest

from broker.quota import Quota, QuotaLimits

LIMITS = QuotaLimits(max_messages=4, max_bytes=100, max_messages_each=3, max_bytes_each=60)


def quota(*held: tuple[str, int]) -> Quota:
    found = Quota(LIMITS)
    for principal, size_bytes in held:
        found.add(principal, size_bytes)
    return found


@pytest.mark.parametrize(
    ("principal", "messages", "size_bytes", "fits"),
    [
        ("one", 1, 10, True),
        ("one", 2, 10, False),
        ("one", 1, 41, False),
        ("other", 2, 20, True),
        ("other", 3, 20, False),
        ("other", 1, 60, True),
        ("other", 1, 61, False),
    ],
)
def test_places_are_bounded_in_all_and_for_each_principal(
    principal: str, messages: int, size_bytes: int, *, fits: bool
) -> None:
    assert quota(("one", 10), ("one", 10)).fits(principal, messages, size_bytes) is fits


def test_bytes_of_all_are_bounded() -> None:
    assert quota(("one", 50)).fits("other", 1, 50)
    assert not quota(("one", 51)).fits("other", 1, 50)


def test_places_are_given_back() -> None:
    found = quota(("one", 30), ("one", 30))
    assert not found.fits("one", 1, 1)
    found.remove("one", 30)
    assert (found.messages, found.bytes) == (1, 30)
    assert found.fits("one", 2, 30)
    found.remove("one", 30)
    assert repr(found) == "<Quota 0 messages of 0 principals, 0 bytes>"
