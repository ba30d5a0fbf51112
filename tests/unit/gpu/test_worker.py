from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from gpu.arena import Arena, ArenaLayout
from gpu.device import Device, DeviceFault, SlotMemory
from gpu.errors import CompilerMissing, DeviceUnavailable, FaultCode
from gpu.messages import REPORT_BYTES, FailureCode, Order, Report, ReportKind, read_report
from gpu.worker import EXIT_FAILED, EXIT_FAULT, Worker, open_device
from tests.kernels import make_bundle, make_plan


class Recorder:
    """A device that remembers what it was asked, and faults in the slot it is told to."""

    description = "a recorder"
    runs_host_code = False

    def __init__(self, *, fault_in: int = -1) -> None:
        self.calls: list[tuple[str, int]] = []
        self._fault_in = fault_in
        self._slots: Sequence[SlotMemory] = ()

    def attach(self, slots: Sequence[SlotMemory]) -> None:
        self._slots = slots

    def begin(self, slot: int, records: int) -> None:
        self.calls.append(("begin", slot))

    def finish(self, slot: int) -> None:
        self.calls.append(("finish", slot))
        if slot == self._fault_in:
            raise DeviceFault(FaultCode.ASSERT, "an assertion failed")


class Rig:
    """A worker, and the broker's end of its socket."""

    def __init__(self, folder: Path) -> None:
        plan = make_plan(make_bundle(folder, max_batch=4))
        layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=4, slots=2)
        self.arena = Arena.create(layout, name="test")
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(10)
        self._worker = Worker(plan, Arena(layout, self.arena.descriptor), theirs)
        self._theirs = theirs
        self.status = -1

    def close(self) -> None:
        self.link.close()
        self._theirs.close()
        self.arena.close()

    def order(self, slot: int, records: int, batch: int) -> None:
        self.link.send(Order(slot, records, batch).encode())

    def serve(self, device: Device) -> None:
        """Serve what was ordered, as the worker does once it is ready."""
        device.attach([self.arena.memory(slot) for slot in range(2)])
        self.status = self._worker._serve(device)
        self._theirs.close()

    def report(self) -> Report:
        return read_report(self.link.recv(REPORT_BYTES))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_all_that_was_sent_is_begun_before_the_first_is_waited_for(rig: Rig) -> None:
    device = Recorder()
    rig.order(1, 2, 7)
    rig.order(0, 1, 8)
    rig.link.shutdown(socket.SHUT_WR)
    rig.serve(device)
    first, second = rig.report(), rig.report()
    assert device.calls == [("begin", 1), ("begin", 0), ("finish", 1), ("finish", 0)]
    assert [(r.kind, r.slot, r.batch) for r in (first, second)] == [
        (ReportKind.DONE, 1, 7),
        (ReportKind.DONE, 0, 8),
    ]
    assert rig.status == 0


def test_slot_is_cleared_of_what_others_left(rig: Rig) -> None:
    inputs = np.frombuffer(rig.arena.inputs(0), np.uint8)
    outputs = np.frombuffer(rig.arena.outputs(0), np.uint8)
    inputs[:] = outputs[:] = 9
    rig.order(0, 3, 1)
    rig.link.shutdown(socket.SHUT_WR)
    rig.serve(Recorder())
    assert inputs.tolist() == [0] * 12 + [9] * 4
    assert outputs.tolist() == [0] * 12 + [9] * 4


def test_fault_is_reported_for_the_first_batch_and_ends_the_worker(rig: Rig) -> None:
    rig.order(1, 1, 5)
    rig.order(0, 1, 6)
    rig.serve(Recorder(fault_in=1))
    report = rig.report()
    assert (report.kind, report.slot, report.batch) == (ReportKind.FAULT, 1, 5)
    assert report.code == FaultCode.ASSERT
    assert rig.arena.read_text(report.text_bytes) == "an assertion failed"
    assert rig.status == EXIT_FAULT
    assert rig.link.recv(REPORT_BYTES) == b"", "the next batch is not run"


def test_worker_that_cannot_build_says_why(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    plan = make_plan(bundle, path=str(tmp_path))
    layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=64, slots=2)
    arena = Arena.create(layout, name="test")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert Worker(plan, arena, theirs).run() == EXIT_FAILED
    report = read_report(ours.recv(REPORT_BYTES))
    assert (report.kind, report.code) == (ReportKind.FAILED, FailureCode.COMPILER_MISSING)
    assert "apt install g++" in arena.read_text(report.text_bytes)
    ours.close()
    theirs.close()
    arena.close()


def test_cuda_without_a_driver_is_refused_and_auto_goes_on_with_the_cpu(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(DeviceUnavailable, match="no CUDA driver"):
        open_device(make_plan(bundle, backend="cuda"))
    with pytest.raises(CompilerMissing):
        open_device(make_plan(bundle, backend="auto", path=str(tmp_path)))
    assert open_device(make_plan(bundle, backend="auto")).description == "CPU"
