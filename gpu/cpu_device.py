"""The CPU twin of a GPU: the same CUDA source, compiled by the host's C++ compiler, launched through ctypes.

Theory of operation: the shared object exports `stockade_serve_ENTRY(launch)`, which takes blocks off the launch
until none is left. ctypes releases the GIL, and several threads may serve one launch, so a big batch is shared
with one helper thread; a small one is not, since waking a thread costs more than it saves.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final

from gpu.device import DeviceFault, SlotMemory
from gpu.errors import CompileFailed, FaultCode, ToolchainError
from gpu.host_compiler import compile_kernel
from gpu.plan import WorkerPlan

from pathlib import Path

SHARE_FROM_BYTES: Final = 128 * 1024  # of input; below, the hand-over (some 50 us) costs more than half the work
CHUNKS_PER_LAUNCH: Final = 16  # blocks are taken in chunks: few enough to be cheap, many enough to end together
HELPERS: Final = 1  # the broker needs the machine's other cores

_PARAMETERS: Final = struct.Struct("@PPi")  # the kernel ABI, packed as for cuLaunchKernel


class Launch(ctypes.Structure):
    """`StockadeLaunch` of native/launch.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("chunk", ctypes.c_uint),
        ("parameters", ctypes.c_char_p),
        ("parameter_bytes", ctypes.c_uint64),
        ("next_block", ctypes.c_uint64),
        ("status", ctypes.c_int32),
        ("fault_detail", ctypes.c_uint32),
        ("fault_block", ctypes.c_uint * 3),
        ("fault_thread", ctypes.c_uint * 3),
        ("fault_address", ctypes.c_uint64),
    )


_DETAILS: Final = (
    "", "a thread's stack overflowed", "a barrier that not all threads reach", "the kernel called __trap()",
    "integer division by zero", "an illegal instruction",
)  # fmt: skip
_MEANINGS: Final = {
    FaultCode.ILLEGAL_ADDRESS: "illegal memory access",
    FaultCode.ASSERT: "an assertion failed",
}


class CpuDevice:
    """One kernel on the CPU.

    Args:
        plan: what to build and how to launch it.

    Raises:
        CompilerMissing, CompileFailed, CacheUnsafe: see `compile_kernel`.

    Resource handling: holds one daemon thread for as long as the process lives.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        library = compile_kernel(
            plan.source,
            name=plan.source_name,
            entry=plan.entry,
            check=plan.abi_check,
            cache_dir=Path(plan.cache_dir),
            compiler=plan.compiler,
            path=plan.path,
        )
        self._serve = _load(library, plan)
        self._slots: Sequence[SlotMemory] = ()
        self._records: dict[int, int] = {}
        self._work: SimpleQueue[Launch] = SimpleQueue()
        self._helped: SimpleQueue[None] = SimpleQueue()
        for _ in range(HELPERS):
            threading.Thread(target=self._help, daemon=True, name="helper").start()

    @property
    def description(self) -> str:
        """What operators read."""
        return "CPU"

    def attach(self, slots: Sequence[SlotMemory]) -> None:
        """Take the slots' memory."""
        self._slots = slots

    def begin(self, slot: int, records: int) -> None:
        """Note the batch; it runs in `finish`, since there is no second processor to overlap with."""
        self._records[slot] = records

    def finish(self, slot: int) -> None:
        """Run the batch.

        Raises:
            DeviceFault: the kernel faulted.
        """
        records = self._records.pop(slot)
        memory = self._slots[slot]
        launch = self._launch_of(memory, records)
        if records * self._plan.in_bytes >= SHARE_FROM_BYTES and launch.grid[0] > 1:
            self._work.put(launch)
            self._serve(ctypes.byref(launch))
            self._helped.get()
        else:
            self._serve(ctypes.byref(launch))
        if launch.status:
            raise _fault(launch)

    def _launch_of(self, memory: SlotMemory, records: int) -> Launch:
        plan = self._plan
        blocks = plan.grid(records)
        parameters = _PARAMETERS.pack(memory.input_address, memory.output_address, records)
        return Launch(
            grid=(blocks, 1, 1),
            block=(plan.block, 1, 1),
            shared_bytes=plan.shared_bytes,
            chunk=max(1, blocks // CHUNKS_PER_LAUNCH),
            parameters=parameters,
            parameter_bytes=len(parameters),
        )

    def _help(self) -> None:
        while True:
            self._serve(ctypes.byref(self._work.get()))
            self._helped.put(None)


def _load(library: Path, plan: WorkerPlan) -> Callable[[object], int]:
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise ToolchainError(f"the compiled kernel `{library}` cannot be loaded: {error}") from error
    if not hasattr(loaded, plan.entry):  # CUDA finds it by this name, so it must be there on the CPU as well
        raise CompileFailed(f'`{plan.source_name}`: declare `{plan.entry}` as extern "C"')
    serve: Callable[[object], int] = loaded[f"stockade_serve_{plan.entry}"]
    return serve


def _fault(launch: Launch) -> DeviceFault:
    code = FaultCode.of(launch.status)
    what = _DETAILS[launch.fault_detail] or _MEANINGS.get(code, f"error {launch.status}")
    block, thread = tuple(launch.fault_block), tuple(launch.fault_thread)
    return DeviceFault(code, f"{what} in block {block}, thread {thread}")
