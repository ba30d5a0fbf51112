"""Shared memory between the broker and one worker: where batches lie.

Theory of operation: an anonymous file (memfd) of fixed size. A text area comes first, then for every slot its
input and its output. Each region ends at a page that the worker makes inaccessible, so that a kernel that runs
past the end of a full batch faults instead of reading or changing its neighbour.

INVARIANT: the file is sealed against shrinking before a worker sees it: a worker that truncated it would
otherwise end the broker with SIGBUS.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Final, Self

from gpu.device import SlotMemory

TEXT_BYTES: Final = 16 * 1024  # a compiler's complaints (4000 characters) in any script, and room
PAGE_BYTES: Final = mmap.PAGESIZE
ALIGN_BYTES: Final = 256  # cuMemAlloc's own alignment, which kernels may rely on


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaLayout:
    """Where things lie, computed alike on both sides from three numbers of the bundle.

    Args:
        in_bytes: bytes of an input record.
        out_bytes: bytes of an output record.
        max_batch: records in a slot at most.
        slots: number of slots.
    """

    in_bytes: int
    out_bytes: int
    max_batch: int
    slots: int

    @property
    def size(self) -> int:
        """Bytes of the whole arena."""
        return TEXT_BYTES + self.slots * (self._span(self.in_bytes) + self._span(self.out_bytes))

    def input_offset(self, slot: int) -> int:
        """Return where slot's input begins."""
        return self._end(slot, self._span(self.in_bytes)) - self._used(self.in_bytes)

    def output_offset(self, slot: int) -> int:
        """Return where slot's output begins."""
        whole = self._span(self.in_bytes) + self._span(self.out_bytes)
        return self._end(slot, whole) - self._used(self.out_bytes)

    def guards(self) -> tuple[int, ...]:
        """Return the offsets of the guard pages."""
        ends: list[int] = []
        for slot in range(self.slots):
            ends.append(self._end(slot, self._span(self.in_bytes)))
            ends.append(self._end(slot, self._span(self.in_bytes) + self._span(self.out_bytes)))
        return tuple(ends)

    def _used(self, record: int) -> int:
        return -(-record * self.max_batch // ALIGN_BYTES) * ALIGN_BYTES

    def _span(self, record: int) -> int:
        return -(-self._used(record) // PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES

    def _end(self, slot: int, upto: int) -> int:
        whole = self._span(self.in_bytes) + self._span(self.out_bytes)
        return TEXT_BYTES + slot * whole + upto - PAGE_BYTES


class Arena:
    """The mapped memory.

    Resource handling: the map lives as long as a view of it does; `descriptor` is closed by `close`.
    """

    __slots__ = ("_map", "descriptor", "layout")

    def __init__(self, layout: ArenaLayout, descriptor: int) -> None:
        self.layout = layout
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, layout.size)

    @classmethod
    def create(cls, layout: ArenaLayout, *, name: str) -> Self:
        """Make a sealed arena, all zero; the broker's side."""
        descriptor = os.memfd_create(f"stockade-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, layout.size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return cls(layout, descriptor)

    @classmethod
    def attach(cls, layout: ArenaLayout, descriptor: int) -> Self:
        """Map the broker's arena and put the guard pages in place; the worker's side."""
        arena = cls(layout, descriptor)
        arena._protect()
        return arena

    def close(self) -> None:
        """Give up the descriptor; the memory stays while views of it are alive."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def inputs(self, slot: int) -> memoryview:
        """Return the memory of slot's input records."""
        layout = self.layout
        return self._region(layout.input_offset(slot), layout.in_bytes)

    def outputs(self, slot: int) -> memoryview:
        """Return the memory of slot's output records."""
        layout = self.layout
        return self._region(layout.output_offset(slot), layout.out_bytes)

    def write_text(self, text: str) -> int:
        """Put a message for the other side into the text area; return its bytes."""
        data = text.encode(errors="replace")[:TEXT_BYTES]
        self._map[: len(data)] = data
        return len(data)

    def read_text(self, nbytes: int) -> str:
        """Return a message of the other side, harmless to print: line breaks stay, other controls do not."""
        text = self._map[: max(0, min(nbytes, TEXT_BYTES))].decode(errors="replace")
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    def memory(self, slot: int) -> SlotMemory:
        """Return slot's addresses in this process, for a device."""
        layout, base = self.layout, self._address()
        return SlotMemory(
            input_address=base + layout.input_offset(slot),
            input_bytes=layout.in_bytes * layout.max_batch,
            output_address=base + layout.output_offset(slot),
            output_bytes=layout.out_bytes * layout.max_batch,
        )

    def _region(self, offset: int, record: int) -> memoryview:
        return memoryview(self._map)[offset : offset + record * self.layout.max_batch]

    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def _protect(self) -> None:
        libc, base = ctypes.CDLL(None, use_errno=True), self._address()
        for offset in self.layout.guards():
            if libc.mprotect(ctypes.c_void_p(base + offset), ctypes.c_size_t(PAGE_BYTES), 0):
                raise OSError(ctypes.get_errno(), "mprotect of a guard page")
