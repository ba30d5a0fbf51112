from __future__ import annotations

from dataclasses import fields

import pytest

from cache.errors import LimitsInvalid
from cache.limits import L2_SHARDS, CacheLimits


@pytest.mark.parametrize("name", [field.name for field in fields(CacheLimits)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_every_limit_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(LimitsInvalid, match=f"`{name}` is"):
        CacheLimits(**{name: value})  # type: ignore[arg-type] # one name after the other


def test_shards_are_a_power_of_two_for_the_mask() -> None:
    assert L2_SHARDS == 32
    assert L2_SHARDS & (L2_SHARDS - 1) == 0
