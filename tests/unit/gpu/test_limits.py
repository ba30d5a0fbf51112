from __future__ import annotations

import pytest

from gpu.errors import GpuError
from gpu.limits import PoolLimits


@pytest.mark.parametrize("slots", [0, 1, 65])
def test_number_of_slots_that_cannot_work_is_refused(slots: int) -> None:
    with pytest.raises(GpuError, match=r"`slots` must be 2\.\.64"):
        PoolLimits(slots=slots)


@pytest.mark.parametrize("pause", [0.0, 31.0])
def test_pause_outside_its_own_bound_is_refused(pause: float) -> None:
    with pytest.raises(GpuError, match="min_pause_s"):
        PoolLimits(min_pause_s=pause)
