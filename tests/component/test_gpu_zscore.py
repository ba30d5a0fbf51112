"""The shipped kernel: device == CPU twin == numpy, for any batch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import trio
from hypothesis import given, settings, strategies as st

from gpu.arena import Arena, ArenaLayout
from gpu.bundle import KernelBundle, load_bundle, shipped_bundle
from gpu.cpu_device import CpuDevice
from gpu.cuda_source import bind_dynamic_shared
from gpu.errors import KernelFault
from gpu.plan import Backend
from gpu.pool import KernelPool
from tests.cusim.simulation import make_simulation
from tests.kernels import Answer, make_plan, running

Floats = npt.NDArray[np.float32]
TOLERANCE = 2.0**-22
"""Two units in the last place of a float32: the kernel rounds a double once, and so does the reference."""


def reference(windows: Floats) -> Floats:
    """z-scores by numpy, in double, rounded once."""
    wide = windows.astype(np.float64)
    deviation = wide.std(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (wide - wide.mean(axis=1, keepdims=True)) / deviation
    return np.where(deviation == 0, 0, scores).astype(np.float32)


def make_windows(seed: int, count: int, scale: float, offset: float) -> Floats:
    """Windows of a wanted size around a wanted mean; every fifth is constant."""
    rng = np.random.default_rng(seed)
    windows = (rng.normal(size=(count, 64)) * scale + offset).astype(np.float32)
    windows[::5] = windows[::5, :1]
    return windows


windows = st.builds(
    make_windows,
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    offset=st.sampled_from([0.0, 1.0, -1e6]),
)


@pytest.fixture(scope="module")
def bundle() -> KernelBundle:
    return load_bundle(shipped_bundle("zscore"))


class Twin:
    """The CPU device, in this process."""

    def __init__(self, bundle: KernelBundle) -> None:
        plan = make_plan(bundle)
        layout = ArenaLayout(
            in_bytes=plan.in_bytes,
            out_bytes=plan.out_bytes,
            max_batch=plan.max_batch,
            slots=plan.slots,
        )
        self._arena = Arena.create(layout, name="test")
        self._arena.close()  # the memory stays
        self._device = CpuDevice(plan)
        self._device.attach([self._arena.memory(slot) for slot in range(plan.slots)])

    def run(self, windows: Floats) -> Floats:
        inputs = np.frombuffer(self._arena.inputs(1), np.float32).reshape(-1, 64)
        inputs[: len(windows)] = windows
        self._device.begin(1, len(windows))
        self._device.finish(1)
        outputs = np.frombuffer(self._arena.outputs(1), np.float32).reshape(-1, 64)
        return outputs[: len(windows)].copy()


@pytest.fixture(scope="module")
def twin(bundle: KernelBundle) -> Twin:
    return Twin(bundle)


@given(batch=windows)
@settings(max_examples=100, deadline=None)
def test_twin_equals_numpy(twin: Twin, batch: Floats) -> None:
    np.testing.assert_allclose(twin.run(batch), reference(batch), rtol=TOLERANCE, atol=1e-12)


def test_twin_equals_numpy_when_two_threads_share_a_batch(twin: Twin) -> None:
    batch = make_windows(7, 1024, 3.0, 100.0)
    for _ in range(50):
        np.testing.assert_allclose(twin.run(batch), reference(batch), rtol=TOLERANCE, atol=1e-12)


def test_windows_that_hold_no_numbers_stay_visible(twin: Twin) -> None:
    batch = make_windows(1, 3, 1.0, 0.0)
    batch[1, 5] = np.nan
    batch[2, 6] = np.inf
    got = twin.run(batch)
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1]).all()
    assert np.isnan(got[2]).all()


async def _through(pool: KernelPool, batch: Floats, *, strided: bool) -> Floats:
    payloads = batch.view(np.uint8)
    if strided:  # as payloads lie in a run of packets: behind a header each
        packets = np.full((len(payloads), payloads.shape[1] + 13), 0xEE, np.uint8)
        packets[:, 13:] = payloads
        payloads = packets[:, 13:]
    answer = Answer()
    await pool.submit("zscore", payloads, answer.done)
    result = await answer.get()
    assert not isinstance(result, KernelFault), result
    return result.view(np.float32)


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
async def test_pool_equals_numpy_on_every_device(
    bundle: KernelBundle, tmp_path: Path, backend: Backend
) -> None:
    rng = np.random.default_rng(11)
    sizes = [1, 2, 15, 16, 17, 1023, 1024, 1025, 2500, *rng.integers(1, 600, 20).tolist()]

    toolchain = make_simulation(tmp_path).toolchain if backend == "cuda" else None
    async with running(bundle, toolchain=toolchain, backend=backend) as pool:
        for number, size in enumerate(sizes):
            batch = make_windows(number, size, 2.0, 50.0)
            got = await _through(pool, batch, strided=number % 2 == 0)
            np.testing.assert_allclose(got, reference(batch), rtol=TOLERANCE, atol=1e-12)


async def test_many_callers_at_once_each_get_their_own(bundle: KernelBundle) -> None:
    async def one(pool: KernelPool, number: int) -> None:
        for turn in range(10):
            batch = make_windows(number * 100 + turn, 1 + (number * 7 + turn) % 90, 1.0, number)
            got = await _through(pool, batch, strided=turn % 2 == 0)
            np.testing.assert_allclose(got, reference(batch), rtol=TOLERANCE, atol=1e-12)

    async with running(bundle) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, pool, number)
        assert pool.stats["zscore"].queued == 0


def test_source_is_cuda_for_the_real_compiler(bundle: KernelBundle, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA device and so no nvcc here")  # CI machines have neither
    plan = make_plan(bundle)
    source = tmp_path / "zscore.cu"
    source.write_text(plan.source + plan.abi_check)
    for arch in ("sm_75", "sm_90"):
        command = [
            nvcc,
            "--cubin",
            "-std=c++17",
            "-arch",
            arch,
            "-o",
            f"{source}.cubin",
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
    wrong = tmp_path / "wrong.cu"
    wrong.write_text(plan.source.replace("float *out, int records", "double *out, int records"))
    wrong.write_text(wrong.read_text() + plan.abi_check)
    command = [nvcc, "--cubin", "-std=c++17", "-arch", "sm_75", "-o", f"{wrong}.cubin", str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode != 0
    assert "kernel ABI" in done.stderr


def test_source_needs_no_translation_but_dynamic_shared_memory(bundle: KernelBundle) -> None:
    assert bind_dynamic_shared(bundle.source) == bundle.source
