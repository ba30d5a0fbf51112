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
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from gpu.device import DeviceFault, SlotMemory
from gpu.errors import CompileFailed, FaultCode, ToolchainError
from gpu.host_compiler import compile_kernel
from gpu.plan import WorkerPlan

SHARE_FROM_BYTES: Final = (
    128 * 1024
)  # of input; below, the hand-over (some 50 us) costs more than half the work
CHUNKS_PER_LAUNCH: Final = (
    16  # blocks are taken in chunks: few enough to be cheap, many enough to end together
)
HELPERS: Final = 1  # the broker needs the machine's other cores

_PARAMETERS: Final = struct.Struct("@PPi")  # the kernel ABI, packed as for cuLaunchKernel


# `StockadeLaunch` of native/launch.h: grid, block, shared bytes, chunk; parameters, their bytes, next block; status,
# detail, block and thread of the fault; its address.
_LAUNCH: Final = struct.Struct("@8IPQQiI6IQ")
_FAULT: Final = struct.Struct("@iI6I")
_FAULT_AT: Final = struct.calcsize("@8IPQQ")


_DETAILS: Final[tuple[str, ...]] = (
    "", "a thread's stack overflowed", "a barrier that not all threads reach", "the kernel called __trap()",
    "integer division by zero", "an illegal instruction",
)  # fmt: skip
_MEANINGS: Final = {
    FaultCode.ILLEGAL_ADDRESS: "illegal memory access",
    FaultCode.ASSERT: "an assertion failed",
}


class _Launch:
    """A launch in memory, and what became of it."""

    __slots__ = ("_memory", "_parameters")

    def __init__(
        self,
        parameters: bytes,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        chunk: int,
    ) -> None:
        self._parameters = ctypes.create_string_buffer(parameters, len(parameters))
        self._memory = ctypes.create_string_buffer(_LAUNCH.size)
        _LAUNCH.pack_into(
            self._memory, 0, *grid, *block, shared_bytes, chunk,
            ctypes.addressof(self._parameters), len(parameters), *bytes(10),
        )  # fmt: skip

    @property
    def address(self) -> int:
        return ctypes.addressof(self._memory)

    def fault(self) -> DeviceFault | None:
        fields: tuple[int, ...] = _FAULT.unpack_from(self._memory, _FAULT_AT)
        status, detail, *where = fields
        if not status:
            return None
        code = FaultCode.of(status)
        what = _DETAILS[detail] or _MEANINGS.get(code, f"error {status}")
        block, thread = tuple(where[:3]), tuple(where[3:])
        return DeviceFault(code, f"{what} in block {block}, thread {thread}")


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
        self._work: SimpleQueue[_Launch] = SimpleQueue()
        self._helped: SimpleQueue[None] = SimpleQueue()
        for _ in range(HELPERS):
            threading.Thread(target=self._help, daemon=True, name="helper").start()

    @property
    def description(self) -> str:
        """What operators read."""
        return "CPU"

    @property
    def runs_host_code(self) -> bool:
        """Yes."""
        return True

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
        if records * self._plan.in_bytes >= SHARE_FROM_BYTES and self._plan.grid(records) > 1:
            self._work.put(launch)
            self._serve(launch.address)
            self._helped.get()
        else:
            self._serve(launch.address)
        fault = launch.fault()
        if fault is not None:
            raise fault

    def _launch_of(self, memory: SlotMemory, records: int) -> _Launch:
        plan = self._plan
        blocks = plan.grid(records)
        return _Launch(
            _PARAMETERS.pack(memory.input_address, memory.output_address, records),
            grid=(blocks, 1, 1),
            block=(plan.block, 1, 1),
            shared_bytes=plan.shared_bytes,
            chunk=max(1, blocks // CHUNKS_PER_LAUNCH),
        )

    def _help(self) -> None:
        while True:
            launch = self._work.get()
            self._serve(launch.address)
            self._helped.put(None)


def _load(library: Path, plan: WorkerPlan) -> Callable[[int], int]:
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise ToolchainError(
            f"the compiled kernel `{library}` cannot be loaded: {error}"
        ) from error
    if not hasattr(
        loaded, plan.entry
    ):  # CUDA finds it by this name, so it must be there on the CPU as well
        raise CompileFailed(f'`{plan.source_name}`: declare `{plan.entry}` as extern "C"')
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    return prototype((f"stockade_serve_{plan.entry}", loaded))
