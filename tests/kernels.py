"""Kernels for tests: bundles written in a line, a running pool, and calls that wait for their answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio

from gpu.batches import Payloads
from gpu.bundle import KernelBundle, load_bundle
from gpu.errors import KernelFault
from gpu.events import KernelEvent
from gpu.limits import PoolLimits
from gpu.plan import WorkerPlan, abi_check
from gpu.pool import KernelPool
from gpu.toolchain import Toolchain

if TYPE_CHECKING:
    from gpu.plan import Backend

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache" / "kernels"
"""Compiled kernels, kept between runs: their names are hashes of all they depend on."""

SCALE = """
extern "C" __global__ void scale(const float *in, float *out, int records) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < records) out[i] = 2 * in[i];
}
"""

MOODY = """
extern "C" __global__ void moody(const float *in, float *out, int records) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= records) return;
    if (in[i] == -1) ((volatile int *)8)[0] = 1;       // a fault
    if (in[i] == -2) for (volatile int x = 0;; x = 1); // never ends
    if (in[i] == -3) __trap();
#ifdef __STOCKADE_CPU__
    if (in[i] == -4) abort();
#endif
    out[i] = 2 * in[i];
}
"""
"""Doubles; but -1 faults, -2 never ends, -3 traps, -4 aborts the process."""


def cpu_toolchain() -> Toolchain:
    return Toolchain(cache_dir=CACHE)


def make_bundle(
    folder: Path,
    *,
    name: str = "scale",
    source: str = SCALE,
    **keys: float,
) -> KernelBundle:
    """Write a bundle of one-value float32 records to `folder`/NAME and load it."""
    return write_bundle(folder, name, source, keys)


def write_bundle(folder: Path, name: str, source: str, keys: Mapping[str, float]) -> KernelBundle:
    """As `make_bundle`, with the manifest's keys as a mapping."""
    record = 'dtype = "float32"\nshape = [1]'
    settings = {"max_batch": 64, "max_delay_ms": 0, "block": 32, **keys}
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    directory = folder / name
    directory.mkdir()
    (directory / f"{name}.cu").write_text(source)
    (directory / "kernel.toml").write_text(
        f'name = "{name}"\nversion = "1"\nentry = "{name}"\n{lines}[input]\n{record}\n[output]\n{record}\n'
    )
    return load_bundle(directory)


def make_moody(folder: Path, *, name: str = "moody", **keys: float) -> KernelBundle:
    source = MOODY.replace("moody", name)
    return write_bundle(folder, name, source, keys)


def make_plan(bundle: KernelBundle, **changes: str | int) -> WorkerPlan:
    values: dict[str, object] = {
        "backend": "cpu", "kernel": bundle.name, "entry": bundle.entry, "source": bundle.source,
        "source_name": bundle.source_name, "abi_check": abi_check(bundle),
        "in_bytes": bundle.input.nbytes, "out_bytes": bundle.output.nbytes,
        "max_batch": bundle.max_batch, "slots": 2, "block": bundle.block,
        "threads_per_record": bundle.threads_per_record, "shared_bytes": bundle.shared_bytes,
        "memory_bytes": bundle.memory_bytes, "cache_dir": str(CACHE), "compiler": "",
        "nvcc": "nvcc", "libcuda": "/nonexistent/libcuda.so.1", "path": cpu_toolchain().path,
        "parent_pid": 0,
    }  # fmt: skip
    return WorkerPlan(**(values | changes))  # type: ignore[arg-type]  # a builder


@asynccontextmanager
async def running(
    *bundles: KernelBundle,
    toolchain: Toolchain | None = None,
    backend: Backend = "cpu",
    limits: PoolLimits | None = None,
    on_event: Callable[[KernelEvent], None] = lambda _: None,
) -> AsyncIterator[KernelPool]:
    """A pool whose kernels have settled."""
    pool = KernelPool(
        bundles,
        toolchain=toolchain or cpu_toolchain(),
        backend=backend,
        limits=limits,
        on_event=on_event,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        with trio.fail_after(40):
            await pool.settled()
        yield pool
        nursery.cancel_scope.cancel()


class Answer:
    """What a submit's `done` was told; wait for it with `get`."""

    def __init__(self) -> None:
        self.results: list[Payloads | KernelFault] = []
        self._told = trio.Event()

    def done(self, result: Payloads | KernelFault) -> None:
        self.results.append(result if isinstance(result, KernelFault) else result.copy())
        self._told.set()

    async def get(self, seconds: float = 20) -> Payloads | KernelFault:
        with trio.fail_after(seconds):
            await self._told.wait()
        assert len(self.results) == 1, "told more than once"
        return self.results[0]


def rows_of(*values: float) -> Payloads:
    """float32 records of one value each, as payload bytes."""
    return np.array(values, "<f4").reshape(-1, 1).view(np.uint8)


async def call(pool: KernelPool, name: str, *values: float) -> list[float] | KernelFault:
    """Submit one-value float32 records; return their results, or the fault."""
    answer = Answer()
    await pool.submit(name, rows_of(*values), answer.done)
    result = await answer.get()
    if isinstance(result, KernelFault):
        return result
    return [float(value) for value in result.view("<f4").ravel()]
