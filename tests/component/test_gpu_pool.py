"""Kernels end to end on the CPU device: real worker processes, real compiler, real faults."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from gpu.errors import FaultCode, KernelBusy, KernelFault, KernelNotReady
from gpu.events import EventKind, KernelEvent
from gpu.limits import PoolLimits
from gpu.pool import KernelPool
from gpu.toolchain import Toolchain
from tests.kernels import Answer, call, make_bundle, make_moody, rows_of, running
from tests.needs import require_tool
from tests.processes import descendants_of

pytestmark = pytest.mark.needs("g++")


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require_tool("g++", package="g++")


def _workers() -> set[int]:
    """Processes that are children of this one and run a worker."""
    found = set()
    for pid in descendants_of(os.getpid()):
        with suppress(OSError):  # it ended meanwhile
            if b"gpu.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


async def test_call_returns_what_the_kernel_computes(tmp_path: Path) -> None:
    async with running(make_bundle(tmp_path)) as pool:
        assert pool.ready("scale")
        assert pool.why("scale") == ""
        assert await call(pool, "scale", 1, 2.5, -3) == [2, 5, -6]


async def test_run_larger_than_all_slots_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    values = list(range(64 * 7 + 5))
    async with running(make_bundle(tmp_path)) as pool:
        assert await call(pool, "scale", *values) == [2 * value for value in values]
        assert pool.stats["scale"].records == len(values)
        assert pool.stats["scale"].queued == 0


async def test_lone_record_waits_for_company_no_longer_than_the_delay(tmp_path: Path) -> None:
    async with running(make_bundle(tmp_path, max_delay_ms=200)) as pool:
        start = trio.current_time()
        first, second = Answer(), Answer()
        await pool.submit("scale", rows_of(1), first.done)
        await pool.submit("scale", rows_of(2), second.done)
        await first.get()
        assert 0.2 <= trio.current_time() - start < 5
        await second.get()
        assert pool.stats["scale"].batches == 1


async def test_endless_kernel_is_killed_at_its_deadline_while_others_answer(tmp_path: Path) -> None:
    events: list[KernelEvent] = []
    moody, scale = make_moody(tmp_path, deadline_ms=400), make_bundle(tmp_path)
    async with running(moody, scale, on_event=events.append) as pool:
        endless = Answer()
        await pool.submit("moody", rows_of(-2), endless.done)
        answered = 0
        while not endless.results:
            assert await call(pool, "scale", 3) == [6]
            answered += 1
        fault = await endless.get()
        assert isinstance(fault, KernelFault)
        assert fault.code is FaultCode.DEADLINE
        assert answered > 3
        assert await call(pool, "moody", 5) == [10]  # by the replacement
        assert pool.stats["moody"].restarts == 1
        assert pool.stats["scale"].restarts == 0
    assert [event.kind for event in events if event.kernel == "moody"] == [
        EventKind.READY,
        EventKind.FAULT,
        EventKind.READY,
    ]


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (-1, FaultCode.ILLEGAL_ADDRESS, "illegal memory access in block (0, 0, 0), thread (1, 0, 0)"),
        (-3, FaultCode.LAUNCH_FAILED, "the kernel called __trap()"),
        (-4, FaultCode.WORKER_DIED, "its worker died: it was ended by SIGABRT"),
    ],
)  # fmt: skip
async def test_fault_is_told_to_the_batch_and_the_kernel_goes_on(
    tmp_path: Path, value: float, code: FaultCode, words: str
) -> None:
    async with running(make_moody(tmp_path)) as pool:
        fault = await call(pool, "moody", 1, value)
        assert isinstance(fault, KernelFault)
        assert (fault.code, words in fault.reason) == (code, True), fault.reason
        assert await call(pool, "moody", 7) == [14]
        assert pool.stats["moody"].faults == 1


async def test_only_the_running_batch_fails_and_those_behind_it_are_run_again(
    tmp_path: Path,
) -> None:
    async with running(make_moody(tmp_path, max_batch=1, deadline_ms=300)) as pool:
        bad, good, last = Answer(), Answer(), Answer()
        await pool.submit("moody", rows_of(-2), bad.done)
        await pool.submit("moody", rows_of(4), good.done)
        await pool.submit("moody", rows_of(5), last.done)
        assert isinstance(await bad.get(), KernelFault)
        assert not isinstance(await good.get(), KernelFault)
        assert not isinstance(await last.get(), KernelFault)


async def test_worker_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    before = _workers()
    async with running(make_bundle(tmp_path)) as pool:
        (worker,) = _workers() - before
        os.kill(worker, signal.SIGKILL)
        with trio.fail_after(20):
            while pool.stats["scale"].starts < 2:
                await trio.sleep(0.01)
        assert await call(pool, "scale", 1) == [2]
        assert _workers() - before != {worker}
    assert _workers() == before


async def test_full_queue_refuses_after_the_bounded_wait_and_never_calls_back(
    tmp_path: Path,
) -> None:
    limits = PoolLimits(slots=2, busy_wait_s=0.1)
    bundle = make_moody(tmp_path, max_batch=1, deadline_ms=2000)
    async with running(bundle, limits=limits) as pool:
        waiting = [Answer(), Answer()]
        for answer in waiting:
            await pool.submit("moody", rows_of(-2), answer.done)
        refused = Answer()
        assert not pool.try_submit("moody", rows_of(1), refused.done)
        with pytest.raises(KernelBusy, match=r"had no room for 0\.1 s"):
            await pool.submit("moody", rows_of(1), refused.done)
        assert pool.stats["moody"].busy == 1
        assert pool.stats["moody"].queued == 2
        for answer in waiting:
            assert isinstance(await answer.get(), KernelFault)
        assert refused.results == []


async def test_submit_that_is_cancelled_while_it_waits_is_never_answered(tmp_path: Path) -> None:
    bundle = make_moody(tmp_path, max_batch=1, deadline_ms=500)
    async with running(bundle, limits=PoolLimits(slots=2)) as pool:
        for _ in range(2):
            await pool.submit("moody", rows_of(-2), Answer().done)
        cancelled = Answer()
        with trio.move_on_after(0.05) as scope:
            await pool.submit("moody", rows_of(1, 2, 3), cancelled.done)
        assert scope.cancelled_caught
        assert await call(pool, "moody", 9) == [18]
        assert cancelled.results == []


async def test_source_that_does_not_compile_makes_only_that_kernel_not_ready(
    tmp_path: Path,
) -> None:
    events: list[KernelEvent] = []
    source = 'extern "C" __global__ void broken(const float *in, float *out, int n) {\n  oops;\n}\n'
    broken = make_bundle(tmp_path, name="broken", source=source)
    async with running(broken, make_bundle(tmp_path), on_event=events.append) as pool:
        assert not pool.ready("broken")
        assert "broken.cu:2:3: error: " in pool.why("broken")
        with pytest.raises(KernelNotReady, match="oops"):
            await pool.submit("broken", rows_of(1), Answer().done)
        assert await call(pool, "scale", 1) == [2]
    (event,) = (event for event in events if event.kernel == "broken")
    assert (event.kind, event.retry_s) == (EventKind.NOT_READY, None)


async def test_signature_that_breaks_the_abi_is_refused_with_the_right_one(tmp_path: Path) -> None:
    source = 'extern "C" __global__ void wide(const double *in, float *out, int n) {}\n'
    async with running(make_bundle(tmp_path, name="wide", source=source)) as pool:
        assert "void wide(const float *in, float *out, int records)" in pool.why("wide")


async def test_missing_compiler_is_told_with_the_remedy(tmp_path: Path) -> None:
    toolchain = Toolchain(cache_dir=tmp_path / "cache", path=str(tmp_path))
    async with running(make_bundle(tmp_path), toolchain=toolchain) as pool:
        assert "apt install g++" in pool.why("scale")
        with pytest.raises(KernelNotReady, match="no C\\+\\+ compiler"):
            pool.try_submit("scale", rows_of(1), Answer().done)


async def test_pool_that_stops_tells_those_who_wait_and_leaves_no_process(tmp_path: Path) -> None:
    before = _workers()
    answer = Answer()
    async with running(make_moody(tmp_path, deadline_ms=60_000)) as pool:
        await pool.submit("moody", rows_of(-2), answer.done)
    fault = await answer.get()
    assert isinstance(fault, KernelFault)
    assert fault.code is FaultCode.STOPPED
    assert _workers() == before


async def test_callback_that_raises_costs_nobody_else_the_answer(tmp_path: Path) -> None:
    events: list[KernelEvent] = []

    def broken(_: object) -> None:
        raise ValueError("a bug")

    bundle = make_bundle(tmp_path, max_delay_ms=50)
    async with running(bundle, on_event=events.append) as pool:
        await pool.submit("scale", rows_of(1), broken)
        assert await call(pool, "scale", 2) == [4]
    assert EventKind.CALLBACK_FAILED in [event.kind for event in events]


async def test_answer_may_submit_again_from_its_callback(tmp_path: Path) -> None:
    async with running(make_bundle(tmp_path)) as pool:
        second = Answer()
        await pool.submit("scale", rows_of(1), lambda _: _again(pool, second))
        assert not isinstance(await second.get(), KernelFault)


def _again(pool: KernelPool, answer: Answer) -> None:
    assert pool.try_submit("scale", rows_of(2), answer.done)


async def test_slot_holds_nothing_of_earlier_callers(tmp_path: Path) -> None:
    source = """
    extern "C" __global__ void peek(const float *in, float *out, int records) {
        out[0] = in[records] + in[records + 1];  // behind the batch, inside the slot
        // and out[1] is not written
    }
    """
    bundle = make_bundle(tmp_path, name="peek", source=source)
    async with running(bundle, limits=PoolLimits(slots=2)) as pool:
        for _ in range(4):
            await call(pool, "peek", *range(1, 65))
        for _ in range(4):
            assert await call(pool, "peek", 5, 5) == [0, 0]


async def test_kernel_that_reads_past_a_full_slot_faults(tmp_path: Path) -> None:
    source = """
    extern "C" __global__ void far(const float *in, float *out, int records) { out[0] = in[64]; }
    """
    bundle = make_bundle(tmp_path, name="far", source=source)
    async with running(bundle) as pool:
        fault = await call(pool, "far", *range(64))
        assert isinstance(fault, KernelFault)
        assert fault.code is FaultCode.ILLEGAL_ADDRESS


async def test_kernel_cannot_open_files_connect_or_start_programs(tmp_path: Path) -> None:
    source = """
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/socket.h>
    #include <unistd.h>
    extern "C" __global__ void spy(const float *in, float *out, int records) {
        if (threadIdx.x == 0 && blockIdx.x == 0) {
            out[0] = open("/etc/passwd", O_RDONLY) < 0 && errno == EPERM;
            out[1] = socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM;
            out[2] = fork() < 0;
            out[3] = execl("/bin/true", "true", nullptr) < 0;
            out[4] = kill(getppid(), 0) < 0;
        }
    }
    """
    async with running(make_bundle(tmp_path, name="spy", source=source)) as pool:
        assert await call(pool, "spy", 0, 0, 0, 0, 0) == [1, 1, 1, 1, 1]


async def test_kernel_cannot_take_more_memory_than_its_bundle_says(tmp_path: Path) -> None:
    source = """
    extern "C" __global__ void greedy(const float *in, float *out, int records) {
        if (threadIdx.x == 0 && blockIdx.x == 0) out[0] = malloc(1ul << 30) == nullptr;
    }
    """
    bundle = make_bundle(tmp_path, name="greedy", source=source, memory_mb=64)
    async with running(bundle) as pool:
        assert await call(pool, "greedy", 0) == [1]
