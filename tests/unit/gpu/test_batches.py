from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu.arena import Arena, ArenaLayout
from gpu.batches import Batches, Payloads, Ticket
from gpu.errors import FaultCode, KernelFault

FAULT = KernelFault("test", FaultCode.DEADLINE, "a test")


def make(*, max_batch: int = 4, slots: int = 3, max_delay_s: float = 1.0) -> Batches:
    layout = ArenaLayout(in_bytes=2, out_bytes=3, max_batch=max_batch, slots=slots)
    arena = Arena.create(layout, name="test")
    arena.close()  # the memory stays
    return Batches(arena, max_delay_s=max_delay_s)


def rows(*values: int) -> Payloads:
    return np.array([[value, 255 - value] for value in values], np.uint8)


class Caller:
    """Whoever submitted rows."""

    def __init__(self, count: int) -> None:
        self.told: list[list[list[int]] | KernelFault] = []
        self.ticket = Ticket(count, self._done)

    def _done(self, result: Payloads | KernelFault) -> None:
        self.told.append(result if isinstance(result, KernelFault) else result.tolist())


def run_head(batches: Batches) -> None:
    """Do what a kernel does: out = (in0, in1, in0)."""
    slot = batches.head
    assert slot is not None
    slot.outputs[: slot.rows] = slot.inputs[: slot.rows][:, [0, 1, 0]]
    for segment in batches.finish(0.0):
        part = slot.outputs[segment.at : segment.at + segment.count]
        segment.ticket.deliver(segment.row, part)
    batches.release()


def test_full_batch_is_due_at_once_and_a_part_after_the_delay() -> None:
    batches = make()
    batches.put(Caller(4).ticket, rows(1, 2, 3, 4), 0, now=10.0)
    assert batches.close_at == -math.inf
    assert batches.take(10.0) is not None
    assert batches.close_at == math.inf
    batches.put(Caller(1).ticket, rows(5), 0, now=20.0)
    assert batches.take(99.0) is None, "while the worker is busy it can still grow"
    run_head(batches)
    assert batches.close_at == 21.0
    assert batches.take(20.9) is None
    assert batches.take(21.0) is not None


def test_strided_rows_are_copied_before_put_returns() -> None:
    batches = make()
    packets = np.arange(20, dtype=np.uint8).reshape(4, 5)
    caller = Caller(4)
    assert batches.put(caller.ticket, packets[:, 3:], 0, now=0.0) == 4
    packets[:] = 0
    batches.take(0.0)
    run_head(batches)
    assert caller.told == [[[3, 4, 3], [8, 9, 8], [13, 14, 13], [18, 19, 18]]]


def test_what_does_not_fit_is_left_to_the_caller() -> None:
    batches = make(slots=2)
    caller = Caller(11)
    values = rows(*range(11))
    assert batches.put(caller.ticket, values, 0, now=0.0) == 8
    assert (batches.room, batches.queued) == (0, 8)
    batches.take(0.0)
    run_head(batches)
    assert batches.put(caller.ticket, values, 8, now=0.0) == 3
    assert caller.told == []
    for _ in range(2):
        batches.take(math.inf)
        run_head(batches)
    assert caller.told == [[[value, 255 - value, value] for value in range(11)]]


def test_second_batch_has_its_deadline_from_when_the_first_ended() -> None:
    batches = make(max_batch=1)
    for _ in range(2):
        batches.put(Caller(1).ticket, rows(1), 0, now=0.0)
        batches.take(0.0)
    batches.finish(5.0)
    batches.release()
    assert batches.head is not None
    assert batches.head.started_at == 5.0


def test_batches_behind_a_lost_one_run_again_in_order() -> None:
    batches = make(max_batch=1)
    callers = [Caller(1) for _ in range(3)]
    for number, caller in enumerate(callers):
        batches.put(caller.ticket, rows(number), 0, now=0.0)
        batches.take(0.0)
    for ticket in batches.fail_head():
        ticket.fail(FAULT)
    batches.give_back()
    assert batches.running == 0
    while batches.take(0.0):
        run_head(batches)
    assert [caller.told for caller in callers] == [[FAULT], [[[1, 254, 1]]], [[[2, 253, 2]]]]


def test_lost_rows_are_wiped_from_shared_memory() -> None:
    batches = make()
    batches.put(Caller(4).ticket, rows(1, 2, 3, 4), 0, now=0.0)
    slot = batches.take(0.0)
    assert slot is not None
    batches.fail_head()
    assert not slot.inputs.any()


def test_ticket_that_failed_in_one_batch_is_not_told_of_the_others() -> None:
    batches = make(max_batch=2)
    caller = Caller(4)
    batches.put(caller.ticket, rows(1, 2, 3, 4), 0, now=0.0)
    batches.take(0.0)
    for ticket in batches.fail_head():
        ticket.fail(FAULT)
    batches.take(0.0)
    run_head(batches)
    assert caller.told == [FAULT]


def test_abandoned_ticket_is_told_nothing() -> None:
    batches = make()
    delivered, failed = Caller(1), Caller(1)
    for caller in (delivered, failed):
        batches.put(caller.ticket, rows(1), 0, now=0.0)
        caller.ticket.abandon()
    batches.take(math.inf)
    run_head(batches)
    failed.ticket.fail(FAULT)
    assert delivered.told == failed.told == []


def test_drain_empties_every_slot_and_names_each_caller_once() -> None:
    batches = make(max_batch=2)
    caller, other = Caller(4), Caller(1)
    batches.put(caller.ticket, rows(1, 2, 3, 4), 0, now=0.0)
    batches.put(other.ticket, rows(5), 0, now=0.0)
    batches.take(0.0)
    assert batches.drain() == [caller.ticket, other.ticket]
    assert (batches.queued, batches.room, batches.head) == (0, 6, None)


@pytest.mark.parametrize("count", [1, 4])
@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_any_run_comes_back_in_order(count: int, values: list[int]) -> None:
    batches, caller = make(max_batch=count), Caller(len(values))
    taken = 0
    while not caller.told:
        taken += batches.put(caller.ticket, rows(*values), taken, now=0.0)
        batches.take(math.inf)
        run_head(batches)
    assert caller.told == [[[value, 255 - value, value] for value in values]]


class Queue(RuleBasedStateMachine):
    """Any order of events: every caller is told once, with its own rows, and no slot is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = make(max_batch=3, slots=3)
        self.callers: list[tuple[Caller, list[int]]] = []

    @rule(values=st.lists(st.integers(0, 255), min_size=1, max_size=5))
    def submit(self, values: list[int]) -> None:
        if self.batches.room < len(values):
            return
        caller = Caller(len(values))
        assert self.batches.put(caller.ticket, rows(*values), 0, now=0.0) == len(values)
        self.callers.append((caller, values))

    @rule(now=st.sampled_from([0.0, 5.0]))
    def take(self, now: float) -> None:
        self.batches.take(now)

    @precondition(lambda self: self.batches.head)
    @rule()
    def finish(self) -> None:
        run_head(self.batches)

    @rule()
    def lose_the_worker(self) -> None:
        self._fail(self.batches.fail_head)
        self.batches.give_back()

    @rule()
    def give_up(self) -> None:
        self._fail(self.batches.drain)

    def _fail(self, tickets: Callable[[], list[Ticket]]) -> None:
        for ticket in tickets():
            ticket.fail(FAULT)

    @invariant()
    def nobody_hears_twice_or_what_is_not_theirs(self) -> None:
        for caller, values in self.callers:
            right = [[value, 255 - value, value] for value in values]
            assert caller.told in ([], [FAULT], [right])

    @invariant()
    def no_row_is_lost(self) -> None:
        if self.batches.queued == 0:
            assert self.batches.room == 9
            assert all(caller.told for caller, _ in self.callers)


TestQueue = Queue.TestCase
