"""The broker's kernels: one lane each, with its queue and its worker process.

    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.submit("zscore", payloads, done)

Rules of this file: a kernel may fail in any way without anything being raised out of `run`; a caller's mistake is
raised at the caller, at once; everything that waits is bounded by `PoolLimits`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import trio
from typing_extensions import override

from gpu.batches import Done, Payloads
from gpu.bundle import KernelBundle
from gpu.errors import PayloadRefused, UnknownKernel
from gpu.events import BatchDone, KernelEvent
from gpu.lane import Lane
from gpu.limits import PoolLimits
from gpu.plan import Backend, WorkerPlan, abi_check
from gpu.stats import KernelStats
from gpu.toolchain import Toolchain


def _ignore(_: KernelEvent | BatchDone) -> None:
    """Tell nobody."""


class KernelPool:
    """All kernels of one broker.

    Args:
        bundles: the kernels, names unique.
        backend: the device; `auto` takes CUDA where a driver, a device and PyCUDA are, else the CPU.
        toolchain: compilers, driver, cache.
        on_event: told when a kernel is ready, fails, or cannot be built; must not raise.
        on_batch: told about every batch that succeeded, for histograms; must not raise.
        limits: bounds.

    Resource handling: each kernel holds shared memory from construction and a process while `run` runs.
    """

    def __init__(
        self,
        bundles: Iterable[KernelBundle],
        *,
        toolchain: Toolchain,
        backend: Backend = "auto",
        on_event: Callable[[KernelEvent], None] = _ignore,
        on_batch: Callable[[BatchDone], None] = _ignore,
        limits: PoolLimits | None = None,
    ) -> None:
        limits = limits or PoolLimits()
        self._lanes = {
            bundle.name: Lane(
                bundle,
                plan=_plan(bundle, backend=backend, toolchain=toolchain, slots=limits.slots),
                limits=limits,
                on_event=on_event,
                on_batch=on_batch,
            )
            for bundle in bundles
        }

    @override
    def __repr__(self) -> str:
        return f"KernelPool({', '.join(map(repr, self._lanes.values()))})"

    @property
    def names(self) -> tuple[str, ...]:
        """The kernels' names."""
        return tuple(self._lanes)

    @property
    def stats(self) -> Mapping[str, KernelStats]:
        """Every kernel's counters, copied."""
        return {name: lane.snapshot() for name, lane in self._lanes.items()}

    def info(self, name: str) -> KernelBundle | None:
        """Return the kernel's bundle, or None if there is no such kernel."""
        lane = self._lanes.get(name)
        return lane.bundle if lane else None

    def ready(self, name: str) -> bool:
        """Return whether a worker takes batches for the kernel now."""
        lane = self._lanes.get(name)
        return lane is not None and lane.ready

    def why(self, name: str) -> str:
        """Return why the kernel is not ready; empty if it is."""
        lane = self._lanes.get(name)
        return lane.why if lane else f"there is no kernel `{name}`"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the workers and replace those that fail, until cancelled.

        Reports `started` at once: a kernel that takes long to build holds nobody up (see `settled`).
        """
        async with trio.open_nursery() as nursery:
            for lane in self._lanes.values():
                nursery.start_soon(lane.run)
            task_status.started()
            await trio.sleep_forever()

    async def settled(self) -> None:
        """Wait until every kernel is either ready or known not to be, for the first time.

        The caller bounds the wait; a build may take `PoolLimits.start_s`.
        """
        for lane in self._lanes.values():
            await lane.settled.wait()

    def try_submit(self, name: str, payloads: Payloads, done: Done) -> bool:
        """Queue payloads if there is room for all of them now.

        Args:
            name: the kernel.
            payloads: uint8, (n, input bytes), n >= 1; may be a strided view. Copied before this returns.
            done: called exactly once, later, in Trio's thread, with uint8 (n, output bytes) that is valid during the
                call only, or with a `KernelFault`. Never called when this returns False or raises.

        Raises:
            UnknownKernel: there is no such kernel.
            PayloadRefused: wrong shape or type.
            KernelNotReady: it has no worker and none is expected soon.
        """
        return self._verified(name, payloads).try_submit(payloads, done)

    async def submit(self, name: str, payloads: Payloads, done: Done) -> None:
        """Queue payloads, waiting up to `PoolLimits.busy_wait_s` for room. Always a checkpoint.

        Args and `done` as for `try_submit`; `payloads` may be larger than a batch.

        Raises:
            UnknownKernel: there is no such kernel.
            PayloadRefused: wrong shape or type.
            KernelBusy: there was no room in time.
            KernelNotReady: it has no worker and none is expected soon.

        Cancellation: `done` is never called.
        """
        await self._verified(name, payloads).submit(payloads, done)

    def _verified(self, name: str, payloads: Payloads) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            raise UnknownKernel(f"there is no kernel `{name}`")
        record = lane.bundle.input
        if payloads.dtype != np.uint8 or payloads.ndim != 2 or payloads.shape[1] != record.nbytes:  # noqa: PLR2004
            got = f"{payloads.shape[-1]} bytes" if payloads.ndim else "a scalar"
            raise PayloadRefused(
                f"kernel `{name}` takes payloads of {record.nbytes} bytes "
                f"({record.dtype}{list(record.shape)}), not {got}"
            )
        if not len(payloads):
            raise PayloadRefused("no payloads")
        return lane


def _plan(
    bundle: KernelBundle, *, backend: Backend, toolchain: Toolchain, slots: int
) -> WorkerPlan:
    return WorkerPlan(
        backend=backend,
        kernel=bundle.name,
        entry=bundle.entry,
        source=bundle.source,
        source_name=bundle.source_name,
        abi_check=abi_check(bundle),
        in_bytes=bundle.input.nbytes,
        out_bytes=bundle.output.nbytes,
        max_batch=bundle.max_batch,
        slots=slots,
        block=bundle.block,
        threads_per_record=bundle.threads_per_record,
        shared_bytes=bundle.shared_bytes,
        memory_bytes=bundle.memory_bytes,
        cache_dir=str(toolchain.cache_dir.absolute()),
        compiler=toolchain.compiler,
        nvcc=toolchain.nvcc,
        libcuda=toolchain.libcuda,
        path=toolchain.path,
        parent_pid=os.getpid(),
    )
