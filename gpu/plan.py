"""What a worker process is told when it starts, and the text added to every kernel source.

Rules of this file: plain data, encoded with msgspec's JSON, never pickle; a worker is told nothing it does not
need, so there is no key, no address of a peer and no tenant's name in a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

if (
    TYPE_CHECKING
):  # a worker starts without numpy, which `gpu.bundle` needs: it saves 0.1 s after every fault
    from gpu.bundle import KernelBundle

Backend = Literal["auto", "cpu", "cuda"]
MAX_PLAN_BYTES: Final = 8 * 1024 * 1024  # a source of 1 MiB that is all escapes, and room


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a worker needs to build, load and run one kernel.

    Args:
        backend: the device to use; `auto` tries CUDA, then the CPU.
        kernel: the kernel's name, for messages.
        entry: the function to launch.
        source: CUDA C++.
        source_name: file name for compilers' messages.
        abi_check: source text that refuses another signature (see `abi_check`).
        in_bytes: bytes of one input record.
        out_bytes: bytes of one output record.
        max_batch: records in one launch at most.
        slots: batches in shared memory.
        block: threads a block.
        threads_per_record: threads that share a record.
        shared_bytes: dynamic shared memory of a block.
        memory_bytes: what the worker may allocate once it is ready.
        cache_dir: where compiled kernels are kept.
        compiler: C++ compiler; empty: the first of g++, clang++, c++ on `path`.
        nvcc: CUDA compiler for the CUDA device.
        libcuda: CUDA driver library.
        path: `PATH` for compilers.
        parent_pid: the broker's process; the worker does not outlive it.
    """

    backend: Backend
    kernel: str
    entry: str
    source: str
    source_name: str
    abi_check: str
    in_bytes: int
    out_bytes: int
    max_batch: int
    slots: int
    block: int
    threads_per_record: int
    shared_bytes: int
    memory_bytes: int
    cache_dir: str
    compiler: str
    nvcc: str
    libcuda: str
    path: str
    parent_pid: int

    def grid(self, records: int) -> int:
        """Return how many blocks `records` need."""
        return -(-records * self.threads_per_record // self.block)


def abi_check(bundle: KernelBundle) -> str:
    """Return CUDA source that fails to compile, with the right declaration, unless the entry keeps the kernel ABI.

    A wrong pointer type would otherwise read past the slot; both devices' compilers check it.
    """
    wanted = f"void (*)(const {bundle.input.c_type} *, {bundle.output.c_type} *, int)"
    message = f"kernel ABI: declare {bundle.signature}".replace('"', '\\"')
    return (
        "template <class A, class B> struct stockade_same { static constexpr bool value = false; };\n"
        "template <class A> struct stockade_same<A, A> { static constexpr bool value = true; };\n"
        f'static_assert(stockade_same<decltype(&{bundle.entry}), {wanted}>::value, "{message}");\n'
    )
