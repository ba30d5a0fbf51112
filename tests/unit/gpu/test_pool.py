from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpu.errors import PayloadRefused, UnknownKernel
from gpu.pool import KernelPool
from tests.kernels import Answer, cpu_toolchain, make_bundle, rows_of


@pytest.fixture
def pool(tmp_path: Path) -> KernelPool:
    """A pool that does not run: what is refused is refused before any worker is asked."""
    return KernelPool([make_bundle(tmp_path)], toolchain=cpu_toolchain(), backend="cpu")


async def test_unknown_kernel_is_refused(pool: KernelPool) -> None:
    with pytest.raises(UnknownKernel, match="no kernel `nope`"):
        await pool.submit("nope", rows_of(1), Answer().done)
    with pytest.raises(UnknownKernel):
        pool.try_submit("nope", rows_of(1), Answer().done)
    assert pool.info("nope") is None
    assert not pool.ready("nope")
    assert pool.why("nope") == "there is no kernel `nope`"


@pytest.mark.parametrize(
    "payloads",
    [
        np.zeros((1, 3), np.uint8),
        np.zeros((1, 5), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((1, 1, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((1, 4), np.int8),
        np.zeros((), np.uint8),
    ],
)
async def test_payload_of_the_wrong_size_is_refused_and_nothing_changed(
    pool: KernelPool, payloads: np.typing.NDArray[np.uint8]
) -> None:
    answer = Answer()
    with pytest.raises(PayloadRefused):
        await pool.submit("scale", payloads, answer.done)
    assert pool.stats["scale"].queued == 0
    assert answer.results == []


async def test_refusal_says_which_size_is_right(pool: KernelPool) -> None:
    with pytest.raises(PayloadRefused, match=r"takes payloads of 4 bytes \(float32\[1\]\), not 7"):
        pool.try_submit("scale", np.zeros((1, 7), np.uint8), Answer().done)


async def test_kernel_is_known_before_it_is_ready(pool: KernelPool) -> None:
    bundle = pool.info("scale")
    assert bundle is not None
    assert bundle.name == "scale"
    assert pool.names == ("scale",)
    assert not pool.ready("scale")
    assert pool.why("scale") == "it is starting"
    assert pool.try_submit("scale", rows_of(1, 2), Answer().done), "rows wait for the worker"
    assert pool.stats["scale"].queued == 2
    assert "scale, it is starting, 2 queued" in repr(pool)
