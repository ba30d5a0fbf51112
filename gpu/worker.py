"""The worker process: builds one kernel, then runs batches out of shared memory until the broker is gone.

Started as `python -P -m gpu.worker PLAN ARENA SOCKET`, three descriptors. One thread owns the device. It ends itself
after any fault: a device that failed once is not used again, and a new process costs less than finding out.

Rules of this file: the input of a batch is cleared after it, its output before it: what is in a slot belongs to
the callers of that batch only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
import traceback
from collections import deque
from typing import Final, NoReturn

import msgspec

from gpu.arena import Arena, ArenaLayout
from gpu.device import Device, DeviceFault
from gpu.errors import DeviceUnavailable, ToolchainError
from gpu.messages import ORDER_BYTES, FailureCode, Order, Report, ReportKind
from gpu.plan import MAX_PLAN_BYTES, WorkerPlan
from gpu.sandbox import bind_to_parent, drop

EXIT_BUG: Final = 2
EXIT_FAILED: Final = 3
EXIT_FAULT: Final = 4


class Worker:
    """The loop of one worker process.

    Args:
        plan: what to run.
        arena: the shared memory.
        link: the socket to the broker.
    """

    def __init__(self, plan: WorkerPlan, arena: Arena, link: socket.socket) -> None:
        self._plan = plan
        self._arena = arena
        self._link = link
        self._device: Device | None = None  # held until the process ends, see `main`
        self._slots = tuple(arena.memory(slot) for slot in range(plan.slots))

    def run(self) -> int:
        """Serve until the broker closes the socket; return the exit status."""
        try:
            device = self._device = open_device(self._plan)
            device.attach(self._slots)
        except ToolchainError as error:
            self._say(ReportKind.FAILED, code=FailureCode.of(error), text=str(error))
            return EXIT_FAILED
        confine = device.runs_host_code
        memory = self._plan.memory_bytes if confine else None
        kept = drop(memory_bytes=memory, filter_calls=confine)
        self._say(ReportKind.READY, text=f"{device.description} ({kept})")
        return self._serve(device)

    def _serve(self, device: Device) -> int:
        pending: deque[Order] = deque()
        try:
            while self._begin_all(device, pending):
                self._finish_first(device, pending)
        except DeviceFault as fault:
            # Also if it showed when a later batch was begun: sticky errors come from what ran, and that is the first.
            self._say(ReportKind.FAULT, order=pending[0], code=fault.code, text=fault.reason)
            return EXIT_FAULT
        return 0

    def _begin_all(self, device: Device, pending: deque[Order]) -> bool:
        """Begin everything that was sent; False: the broker is gone.

        All of it, before the first is waited for: a GPU copies one batch while it computes another.
        """
        while (order := self._receive(wait=not pending)) is not None:
            pending.append(order)
            slot = self._slots[order.slot]
            ctypes.memset(slot.output_address, 0, order.records * self._plan.out_bytes)
            device.begin(order.slot, order.records)
        return bool(pending)

    def _finish_first(self, device: Device, pending: deque[Order]) -> None:
        order = pending[0]
        slot = self._slots[order.slot]
        start = time.perf_counter_ns()
        device.finish(order.slot)
        spent = time.perf_counter_ns() - start
        pending.popleft()
        ctypes.memset(slot.input_address, 0, order.records * self._plan.in_bytes)
        self._say(ReportKind.DONE, order=order, nanoseconds=spent)

    def _receive(self, *, wait: bool) -> Order | None:
        """Return the next order; None: there is none now, or the broker is gone."""
        try:
            data = self._link.recv(ORDER_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return Order.decode(data) if data else None

    def _say(
        self,
        kind: ReportKind,
        *,
        order: Order | None = None,
        code: int = 0,
        text: str = "",
        nanoseconds: int = 0,
    ) -> None:
        report = Report(
            kind=kind,
            slot=order.slot if order else 0,
            batch=order.batch if order else 0,
            code=code,
            text_bytes=self._arena.write_text(text) if text else 0,
            nanoseconds=nanoseconds,
        )
        self._link.send(report.encode())


def open_device(plan: WorkerPlan) -> Device:
    """Build and load the kernel on the device the plan asks for.

    Raises:
        ToolchainError: the kernel cannot run here.
    """
    if plan.backend != "cpu":
        # Imported here only: without the extra `gpu` there is nothing to import, and numpy costs 0.1 s a worker.
        from gpu.cuda_device import CudaDevice  # noqa: PLC0415

        try:
            return CudaDevice(plan)
        except DeviceUnavailable:
            if plan.backend == "cuda":
                raise
    from gpu.cpu_device import CpuDevice  # noqa: PLC0415

    return CpuDevice(plan)


def _read_plan(descriptor: int) -> WorkerPlan:
    with os.fdopen(descriptor, "rb") as file:
        return msgspec.json.decode(file.read(MAX_PLAN_BYTES), type=WorkerPlan)


def main(arguments: list[str]) -> NoReturn:
    """Run one worker and end the process.

    It ends by `os._exit` with the worker still alive: to free a device's objects after a fault means to call into a
    context in ruins, and PyCUDA aborts the process when its module is cleaned up before its context.
    """
    plan_fd, arena_fd, link_fd = (int(text) for text in arguments)
    status = EXIT_BUG
    try:
        plan = _read_plan(plan_fd)
        bind_to_parent(plan.parent_pid)
        worker = Worker(plan, _attach(plan, arena_fd), socket.socket(fileno=link_fd))
        status = worker.run()
    except (BrokenPipeError, ConnectionError, ProcessLookupError):  # the broker went away
        status = 0
    except Exception:  # noqa: BLE001 - whatever it is, the broker reads it in the worker's log
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _attach(plan: WorkerPlan, descriptor: int) -> Arena:
    layout = ArenaLayout(
        in_bytes=plan.in_bytes,
        out_bytes=plan.out_bytes,
        max_batch=plan.max_batch,
        slots=plan.slots,
    )
    arena = Arena.attach(layout, descriptor)
    arena.close()
    return arena


if __name__ == "__main__":
    main(sys.argv[1:])
