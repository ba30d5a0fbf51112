"""The CUDA door: the real PyCUDA in real workers, on the simulated driver of tests/cusim."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
import trio

from gpu.errors import FaultCode, KernelFault
from gpu.events import EventKind, KernelEvent
from gpu.limits import PoolLimits
from gpu.toolchain import Toolchain
from tests.cusim.simulation import SimulatedCuda, make_simulation
from tests.kernels import CACHE, Answer, call, make_bundle, make_moody, rows_of, running


class Simulate(Protocol):
    """Makes a simulated driver with settings as in settings.h."""

    def __call__(self, **settings: str | int) -> SimulatedCuda: ...


@pytest.fixture
def simulate(tmp_path: Path) -> Simulate:
    def make(**settings: str | int) -> SimulatedCuda:
        return make_simulation(tmp_path / "cusim", **settings)

    return make


async def test_batch_runs_on_the_device_with_nothing_allocated_or_freed_on_the_way(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate()
    events: list[KernelEvent] = []
    bundle = make_bundle(tmp_path)
    async with running(
        bundle, toolchain=cuda.toolchain, backend="cuda", on_event=events.append
    ) as pool:
        assert events[0].reason == "on simulated CUDA device (sm_75) (limits)"
        before = len(cuda.trace)
        assert await call(pool, "scale", 1, 2, 3) == [2, 4, 6]
        assert cuda.trace[before:] == [
            "cuMemsetD8Async",  # the output of whoever came before
            "cuMemcpyHtoDAsync_v2",
            "cuFuncSetBlockShape",
            "cuLaunchKernel",
            "cuMemcpyDtoHAsync_v2",
            "cuMemsetD8Async",  # the input, before the next one comes
            "cuEventRecord",
            "cuEventSynchronize",
        ]


async def test_slots_are_page_locked_so_that_copies_are_asynchronous(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate()
    async with running(make_bundle(tmp_path), toolchain=cuda.toolchain, backend="cuda"):
        assert cuda.trace.count("cuMemHostRegister_v2") == 2 * PoolLimits().slots


async def test_memory_that_cannot_be_page_locked_is_used_and_said(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate(fail="cuMemHostRegister_v2@1=1")
    events: list[KernelEvent] = []
    async with running(
        make_bundle(tmp_path), toolchain=cuda.toolchain, backend="cuda", on_event=events.append
    ) as pool:
        assert "not page-locked" in events[0].reason
        assert await call(pool, "scale", 4) == [8]


async def test_many_runs_in_flight_come_back_to_their_callers(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate(launch_delay_us=2000)
    bundle = make_bundle(tmp_path, max_batch=16)
    async with running(bundle, toolchain=cuda.toolchain, backend="cuda") as pool:
        answers = [Answer() for _ in range(40)]
        for number, answer in enumerate(answers):
            await pool.submit("scale", rows_of(*range(number, number + 5)), answer.done)
        for number, answer in enumerate(answers):
            result = await answer.get()
            assert not isinstance(result, KernelFault)
            expected = [2 * value for value in range(number, number + 5)]
            assert result.view("<f4").ravel().tolist() == expected


async def test_illegal_access_is_sticky_so_the_worker_is_replaced(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate()
    events: list[KernelEvent] = []
    bundle = make_moody(tmp_path)
    async with running(
        bundle, toolchain=cuda.toolchain, backend="cuda", on_event=events.append
    ) as pool:
        fault = await call(pool, "moody", -1)
        assert isinstance(fault, KernelFault)
        assert (fault.code, fault.reason) == (FaultCode.ILLEGAL_ADDRESS, "illegal memory access")
        assert await call(pool, "moody", 2) == [4]
    kinds = [event.kind for event in events]
    assert kinds == [EventKind.READY, EventKind.FAULT, EventKind.READY]
    assert events[1].printed == "", "the worker ended in order, not by PyCUDA's abort()"


async def test_runaway_launch_is_ended_with_its_process(tmp_path: Path, simulate: Simulate) -> None:
    cuda = simulate()
    bundle = make_moody(tmp_path, deadline_ms=300)
    async with running(bundle, toolchain=cuda.toolchain, backend="cuda") as pool:
        fault = await call(pool, "moody", -2)
        assert isinstance(fault, KernelFault)
        assert fault.code is FaultCode.DEADLINE
        assert await call(pool, "moody", 2) == [4]


async def test_compile_error_shows_the_compilers_lines(tmp_path: Path, simulate: Simulate) -> None:
    source = 'extern "C" __global__ void bad(const float *in, float *out, int n) {\n  oops;\n}\n'
    bundle = make_bundle(tmp_path, name="bad", source=source)
    async with running(bundle, toolchain=simulate().toolchain, backend="cuda") as pool:
        assert "`bad.cu` does not compile" in pool.why("bad")
        assert "bad.cu:2:3: error:" in pool.why("bad")


async def test_entry_without_c_linkage_is_refused_as_cuda_would(
    tmp_path: Path, simulate: Simulate
) -> None:
    source = "__global__ void plain(const float *in, float *out, int n) {}\n"
    bundle = make_bundle(tmp_path, name="plain", source=source)
    async with running(bundle, toolchain=simulate().toolchain, backend="cuda") as pool:
        assert 'extern "C"' in pool.why("plain")


async def test_device_without_room_for_the_batches_is_said(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate(fail="cuMemAlloc_v2@2=2,cuMemAlloc_v2@3=2")
    bundle = make_bundle(tmp_path)
    async with running(bundle, toolchain=cuda.toolchain, backend="cuda") as pool:
        assert "lower `max_batch`" in pool.why("scale")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"devices": 0}, "no CUDA-capable device"), ({"fail": "cuCtxCreate_v4@1=2"}, "no context on")],
)
async def test_machine_without_a_usable_device_is_said(
    tmp_path: Path, simulate: Simulate, settings: dict[str, str | int], words: str
) -> None:
    cuda = simulate(**settings)
    async with running(make_bundle(tmp_path), toolchain=cuda.toolchain, backend="cuda") as pool:
        assert words in pool.why("scale")


async def test_missing_nvcc_is_told_with_the_remedy(tmp_path: Path, simulate: Simulate) -> None:
    cuda = simulate()
    toolchain = Toolchain(
        cache_dir=tmp_path / "cache", libcuda=str(cuda.library), nvcc=str(tmp_path / "no-nvcc")
    )
    async with running(make_bundle(tmp_path), toolchain=toolchain, backend="cuda") as pool:
        assert "install the CUDA toolkit" in pool.why("scale")


async def test_auto_takes_the_device_where_there_is_one(tmp_path: Path, simulate: Simulate) -> None:
    cuda = simulate()
    async with running(make_bundle(tmp_path), toolchain=cuda.toolchain, backend="auto") as pool:
        assert await call(pool, "scale", 1) == [2]
    assert "cuLaunchKernel" in cuda.trace


@pytest.mark.parametrize("settings", [{"devices": 0}, {"fail": "cuInit@1=999"}])
async def test_auto_takes_the_cpu_where_the_driver_is_of_no_use(
    tmp_path: Path, simulate: Simulate, settings: dict[str, str | int]
) -> None:
    cuda = simulate(**settings)
    toolchain = Toolchain(cache_dir=CACHE, libcuda=str(cuda.library), nvcc=cuda.toolchain.nvcc)
    events: list[KernelEvent] = []
    async with running(
        make_bundle(tmp_path), toolchain=toolchain, backend="auto", on_event=events.append
    ) as pool:
        assert events[0].reason.startswith("on CPU")
        assert await call(pool, "scale", 1) == [2]


async def test_restarted_worker_finds_the_cubin_in_the_cache(
    tmp_path: Path, simulate: Simulate
) -> None:
    cuda = simulate()
    bundle = make_moody(tmp_path)
    async with running(bundle, toolchain=cuda.toolchain, backend="cuda") as pool:
        (cubin,) = (cuda.folder / "cache").glob("*.cubin")
        built = cubin.stat().st_mtime_ns
        await call(pool, "moody", -1)
        with trio.fail_after(20):
            assert await call(pool, "moody", 1) == [2]
        assert cubin.stat().st_mtime_ns == built
