from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gpu.bundle import load_bundle, shipped_bundle
from gpu.plan import MAX_PLAN_BYTES, WorkerPlan, abi_check
from tests.kernels import make_plan

ZSCORE = load_bundle(shipped_bundle("zscore"))


@pytest.mark.parametrize(("records", "blocks"), [(1, 1), (16, 1), (17, 2), (1024, 64)])
def test_grid_covers_every_record(records: int, blocks: int) -> None:
    assert make_plan(ZSCORE).grid(records) == blocks


def test_plan_travels_as_plain_data() -> None:
    plan = make_plan(ZSCORE)
    data = msgspec.json.encode(plan)
    assert len(data) < MAX_PLAN_BYTES
    assert msgspec.json.decode(data, type=WorkerPlan) == plan


def test_abi_check_holds_the_right_declaration() -> None:
    check = abi_check(ZSCORE)
    assert "void (*)(const float *, float *, int)" in check
    assert r"declare extern \"C\" __global__ void zscore(const float *in" in check


def test_plan_tells_a_worker_no_secret_of_the_broker(tmp_path: Path) -> None:
    assert set(WorkerPlan.__struct_fields__) == {
        "backend", "kernel", "entry", "source", "source_name", "abi_check", "in_bytes", "out_bytes",
        "max_batch", "slots", "block", "threads_per_record", "shared_bytes", "memory_bytes",
        "cache_dir", "compiler", "nvcc", "libcuda", "path", "parent_pid",
    }  # fmt: skip
