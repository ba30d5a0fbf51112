from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gpu.arena import ALIGN_BYTES, PAGE_BYTES, TEXT_BYTES, Arena, ArenaLayout

layouts = st.builds(
    ArenaLayout,
    in_bytes=st.integers(1, 5000),
    out_bytes=st.integers(1, 5000),
    max_batch=st.integers(1, 300),
    slots=st.integers(2, 5),
)


@given(layouts)
def test_regions_lie_apart_aligned_and_each_before_its_guard(layout: ArenaLayout) -> None:
    spans = [(0, TEXT_BYTES)]
    for slot in range(layout.slots):
        for offset, record in (
            (layout.input_offset(slot), layout.in_bytes),
            (layout.output_offset(slot), layout.out_bytes),
        ):
            assert offset % ALIGN_BYTES == 0
            spans.append((offset, offset + record * layout.max_batch))
    guards = [(offset, offset + PAGE_BYTES) for offset in layout.guards()]
    assert all(offset % PAGE_BYTES == 0 for offset in layout.guards())
    everything = sorted(spans + guards)
    for (_, end), (begin, _) in itertools.pairwise(everything):
        assert end <= begin
    assert everything[-1][1] == layout.size
    for (_, end), (guard, _) in zip(sorted(spans)[1:], guards, strict=True):
        assert guard - end < ALIGN_BYTES, "an overrun reaches the guard within the alignment"


@given(layouts)
@settings(max_examples=20)
def test_both_sides_see_the_same_bytes(layout: ArenaLayout) -> None:
    ours = Arena.create(layout, name="test")
    theirs = Arena(layout, ours.descriptor)
    last = layout.slots - 1
    np.frombuffer(ours.inputs(last), np.uint8)[-1] = 7
    assert bytes(theirs.inputs(last)[-1:]) == b"\x07"
    assert len(theirs.outputs(0)) == layout.out_bytes * layout.max_batch
    ours.close()
    ours.close()  # again is nothing


@pytest.fixture
def arena() -> Iterator[Arena]:
    layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=8, slots=2)
    arena = Arena.create(layout, name="test")
    yield arena
    arena.close()


def test_worker_cannot_take_the_memory_away_from_under_the_broker(arena: Arena) -> None:
    for size in (0, arena.layout.size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.descriptor, size)


def test_text_of_the_other_side_is_harmless_to_print(arena: Arena) -> None:
    count = arena.write_text("line one\nline two\x1b[31m\x00 \u202e red")
    assert arena.read_text(count) == "line one\nline two [31m    red"


def test_text_is_cut_at_the_area_s_end(arena: Arena) -> None:
    assert arena.write_text("x" * (TEXT_BYTES + 5)) == TEXT_BYTES
    assert len(arena.read_text(TEXT_BYTES * 2)) == TEXT_BYTES
    assert arena.read_text(-1) == ""


def test_addresses_of_slots_are_those_of_the_memory(arena: Arena) -> None:
    first, second = arena.memory(0), arena.memory(1)
    assert first.input_bytes == 32
    span = arena.layout.input_offset(1) - arena.layout.input_offset(0)
    assert second.input_address - first.input_address == span
