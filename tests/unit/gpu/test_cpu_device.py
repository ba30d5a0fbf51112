"""CUDA's meaning on the CPU: each kernel here computes something only right barriers, warps or atomics can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gpu.arena import Arena, ArenaLayout
from gpu.cpu_device import SHARE_FROM_BYTES, CpuDevice
from gpu.device import DeviceFault
from gpu.errors import CompileFailed, FaultCode
from tests.kernels import make_bundle, make_plan, write_bundle
from tests.needs import require_tool

pytestmark = pytest.mark.needs("g++")

Floats = npt.NDArray[np.float32]
COMPILERS = ("g++", "g++ -DSTOCKADE_PORTABLE_FIBERS")
"""The assembly switch of x86-64, and ucontext, which every other machine uses."""

BLOCK_SUM = """
__shared__ float s[256];
int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
s[t] = i < records ? in[i] : 0;
__syncthreads();
for (int d = blockDim.x / 2; d > 0; d >>= 1) {
    if (t < d) s[t] += s[t + d];
    __syncthreads();
}
if (i < records) out[i] = s[0];
"""
DYNAMIC_SUM = BLOCK_SUM.replace("__shared__ float s[256];", "extern __shared__ float s[];")
WARP_SUM = """
int i = blockIdx.x * blockDim.x + threadIdx.x;
float v = i < records ? in[i] : 0;
for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
if (i < records) out[i] = v;
"""
SHUFFLE_DOWN = """
int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
float v = i < records ? in[i] : 0;
float down = __shfl_down_sync(~0u, v, 3), up = __shfl_up_sync(~0u, v, 2, 8), zero = __shfl_sync(~0u, v, 0);
if (i < records) out[i] = down * 10000 + up * 100 + zero;
(void)lane;
"""
BALLOT = """
int i = blockIdx.x * blockDim.x + threadIdx.x;
unsigned odd = __ballot_sync(~0u, i < records && ((int)in[i] & 1));
int any = __any_sync(~0u, i == 3), all = __all_sync(~0u, i >= 0);
if (i < records) out[i] = __popc(odd) + 100 * any + 1000 * all;
"""
EARLY_EXIT = """
__shared__ int count;
if (threadIdx.x == 0) count = 0;
__syncthreads();
if (threadIdx.x % 3 == 0) return;  // since Volta, threads that have ended do not hold a barrier up
atomicAdd(&count, 1);
__syncthreads();
int i = blockIdx.x * blockDim.x + threadIdx.x;
if (i < records) out[i] = count;
"""
HALF_WARPS = """
int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
float v = i < records ? in[i] : 0;
if (lane < 16) {
    for (int d = 8; d > 0; d >>= 1) v += __shfl_xor_sync(0x0000ffffu, v, d);
} else {
    v = -v;
    for (int d = 8; d > 0; d >>= 1) v += __shfl_xor_sync(0xffff0000u, v, d);
}
__syncwarp();
if (i < records) out[i] = v;
"""
VOTES = """
int i = blockIdx.x * blockDim.x + threadIdx.x;
int small = __syncthreads_count(i < records && in[i] < 10);
int any = __syncthreads_or(threadIdx.x == 7), all = __syncthreads_and(threadIdx.x != 7);
if (i < records) out[i] = small + 100 * any + 1000 * all;
"""
LOCALS = """
float kept[64];  // must survive the switch to other stacks
int i = blockIdx.x * blockDim.x + threadIdx.x;
for (int k = 0; k < 64; k++) kept[k] = i + k;
for (int round = 0; round < 5; round++) __syncthreads();
float sum = 0;
for (int k = 0; k < 64; k++) sum += kept[k];
if (i < records) out[i] = sum;
"""
GRID_ATOMICS = """
int i = blockIdx.x * blockDim.x + threadIdx.x;
__shared__ float largest;
if (threadIdx.x == 0) largest = -1;
__syncthreads();
if (i < records) atomicMax(&largest, in[i]);
__syncthreads();
unsigned wrapped = 5;
for (int k = 0; k < 3; k++) atomicInc(&wrapped, 6);  // 6, 0, 1
int swapped = 1;
atomicCAS(&swapped, 1, 40);
if (i < records) out[i] = largest + 1000 * wrapped + swapped * 10000;
"""


def expected_block_sum(values: Floats) -> Floats:
    sums = np.zeros(-(-len(values) // 256) * 256, np.float32)
    sums[: len(values)] = values
    return np.repeat(sums.reshape(-1, 256).sum(1), 256)[: len(values)]


def per_warp(values: Floats) -> Floats:
    padded = np.zeros(-(-len(values) // 256) * 256, np.float32)
    padded[: len(values)] = values
    return padded.reshape(-1, 32)


def expected_warp_sum(values: Floats) -> Floats:
    return np.repeat(per_warp(values).sum(1), 32)[: len(values)]


def expected_half_warps(values: Floats) -> Floats:
    halves = per_warp(values).reshape(-1, 2, 16).sum(2) * [1, -1]
    return np.repeat(halves.ravel(), 16)[: len(values)]


def expected_shuffle_down(values: Floats) -> Floats:
    out = []
    for warp in per_warp(values):
        for lane in range(32):
            down = warp[lane + 3] if lane + 3 < 32 else warp[lane]
            up = warp[lane - 2] if lane % 8 >= 2 else warp[lane]
            out.append(down * 10000 + up * 100 + warp[0])
    return np.array(out[: len(values)], np.float32)


def expected_ballot(values: Floats) -> Floats:
    first = np.arange(len(values)) < 32
    return expected_warp_sum(values % 2) + 100 * first + 1000


def expected_votes(values: Floats) -> Floats:
    return expected_block_sum((values < 10).astype(np.float32)) + 100


def expected_maximum(values: Floats) -> Floats:
    blocks = np.split(values, range(256, len(values), 256))
    largest = np.concatenate([np.full(len(block), block.max()) for block in blocks])
    return largest + 1000 + 400000


def expected_early_exit(values: Floats) -> Floats:
    stay = np.arange(len(values)) % 256 % 3 != 0
    return np.where(stay, 256 - 86, 0).astype(np.float32)


def expected_locals(values: Floats) -> Floats:
    return np.arange(len(values), dtype=np.float32) * 64 + 64 * 63 // 2


CASES = {
    "block_sum": (BLOCK_SUM, expected_block_sum),
    "dynamic_sum": (DYNAMIC_SUM, expected_block_sum),
    "warp_sum": (WARP_SUM, expected_warp_sum),
    "shuffle_down": (SHUFFLE_DOWN, expected_shuffle_down),
    "ballot": (BALLOT, expected_ballot),
    "early_exit": (EARLY_EXIT, expected_early_exit),
    "half_warps": (HALF_WARPS, expected_half_warps),
    "votes": (VOTES, expected_votes),
    "locals": (LOCALS, expected_locals),
    "maximum": (GRID_ATOMICS, expected_maximum),
}


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require_tool("g++", package="g++")


class Rig:
    """A kernel on the CPU device, in this process."""

    def __init__(
        self, folder: Path, body: str, *, before: str = "", compiler: str = "", **keys: float
    ) -> None:
        signature = 'extern "C" __global__ void test(const float *in, float *out, int records)'
        source = f"{before}\n{signature}\n{{\n{body}\n}}\n"
        settings = {"max_batch": 1000, "block": 256, "shared_bytes": 1024, **keys}
        bundle = write_bundle(folder, "test", source, settings)
        plan = make_plan(bundle, compiler=compiler)
        layout = ArenaLayout(in_bytes=4, out_bytes=4, max_batch=plan.max_batch, slots=2)
        self.arena = Arena.create(layout, name="test")
        self.arena.close()  # the memory stays
        self.device = CpuDevice(plan)
        self.device.attach([self.arena.memory(slot) for slot in range(2)])

    def run(self, values: Floats) -> Floats:
        np.frombuffer(self.arena.inputs(0), np.float32)[: len(values)] = values
        self.device.begin(0, len(values))
        self.device.finish(0)
        return np.frombuffer(self.arena.outputs(0), np.float32)[: len(values)].copy()


@pytest.mark.parametrize("compiler", COMPILERS, ids=["native", "portable"])
@pytest.mark.parametrize("case", CASES)
def test_kernel_means_what_cuda_says(tmp_path: Path, case: str, compiler: str) -> None:
    body, expected = CASES[case]
    rig = Rig(tmp_path, body, compiler=compiler)
    rng = np.random.default_rng(5)
    for count in (256, 1, 31, 300, 1000):
        values = rng.integers(0, 50, count).astype(np.float32)
        np.testing.assert_array_equal(rig.run(values), expected(values), err_msg=f"{count} records")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("out[1 << 30] = 1;", FaultCode.ILLEGAL_ADDRESS, "illegal memory access"),
        ("if (threadIdx.x == 9) *(volatile int *)8 = 1;", FaultCode.ILLEGAL_ADDRESS, "thread (9, 0, 0)"),
        ("__trap();", FaultCode.LAUNCH_FAILED, "__trap()"),
        ("assert(records == 0);", FaultCode.ASSERT, "an assertion failed"),
        ("volatile int zero = 0; out[1] = records / zero;", FaultCode.LAUNCH_FAILED, "integer division by zero"),
        (
            "if (threadIdx.x & 1) __syncthreads(); else __syncwarp(0xffffffffu);",
            FaultCode.LAUNCH_FAILED, "a barrier that not all threads reach",
        ),
        ("__syncthreads(); out[0] = deep(records);", FaultCode.LAUNCH_FAILED, "stack overflowed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compiler", COMPILERS, ids=["native", "portable"])
def test_fault_is_named_and_the_next_launch_would_work(
    tmp_path: Path, body: str, code: FaultCode, words: str, compiler: str
) -> None:
    deep = (
        "__device__ __noinline__ float deep(int n) {\n"
        "    volatile float a[64]; a[n & 63] = n; return n == -1 ? 0 : deep(n + 1) + a[n & 63]; }"
    )
    guarded = f"if (in[0] == 1) {{ {body} }}\nout[threadIdx.x] = 5;"
    rig = Rig(tmp_path, guarded, before=deep, compiler=compiler)
    for _ in range(2):
        with pytest.raises(DeviceFault) as caught:
            rig.run(np.array([1, 0, 0], np.float32))
        assert caught.value.code is code
        assert words in caught.value.reason
        assert rig.run(np.array([0, 0, 0], np.float32)).tolist() == [5, 5, 5]


def test_big_batch_is_shared_by_two_threads_and_every_block_runs_once(tmp_path: Path) -> None:
    count = SHARE_FROM_BYTES // 4 + 77
    body = (
        "int i = blockIdx.x * blockDim.x + threadIdx.x; __syncthreads();\n"
        "if (i < records) atomicAdd(&out[i], in[i] + 1);"
    )
    rig = Rig(tmp_path, body, max_batch=count)
    outputs = np.frombuffer(rig.arena.outputs(0), np.float32)
    values = np.arange(count, dtype=np.float32)
    for _ in range(20):
        outputs[:] = 0
        np.testing.assert_array_equal(rig.run(values), values + 1)


def test_headers_a_cuda_source_includes_are_there(tmp_path: Path) -> None:
    before = "\n".join(
        f"#include <{name}>"
        for name in (
            "cuda_runtime.h", "device_launch_parameters.h", "math_constants.h", "assert.h",
            "cassert", "cstdint", "math.h",
        )
    )  # fmt: skip
    body = "assert(records > 0); float4 v = make_float4(1, 2, 3, CUDART_PI_F); out[0] = v.x + rsqrtf(4.0f) + __expf(0.0f);"
    rig = Rig(tmp_path, body, before=before)
    assert rig.run(np.zeros(1, np.float32)).tolist() == [2.5]


def test_arithmetic_is_cudas(tmp_path: Path) -> None:
    checks = [
        "__popc(0xf0f0u) == 8", "__clz(1) == 31", "__ffs(8) == 4", "__brev(1u) == 0x80000000u",
        "__umulhi(0x80000000u, 4u) == 2u", "__byte_perm(0x33221100u, 0x77665544u, 0x7531u) == 0x77553311u",
        "__funnelshift_l(0x80000000u, 1u, 1) == 3u", "__float2int_rz(-2.7f) == -2", "__float2int_rn(2.5f) == 2",
        "__float2int_rz(1e20f) == 2147483647", '__float2int_rz(nanf("")) == 0', "__float2uint_rz(-5.0f) == 0",
        "__saturatef(3.0f) == 1.0f", "min(3, 4u) == 3", 'max(2.0f, nanf("")) == 2.0f',
        "__float_as_uint(1.0f) == 0x3f800000u", "__mul24(0x1000001, 2) == 2", "__sad(3, 10, 1u) == 8u",
        "sizeof(float3) == 12", "alignof(float4) == 16", "alignof(double2) == 16", "sizeof(uchar4) == 4",
        "sizeof(dim3) == 12", "warpSize == 32", "blockDim.x == 256 && gridDim.y == 1",
    ]  # fmt: skip
    body = "\n".join(f"if (!({check})) out[0] = {n + 1};" for n, check in enumerate(checks))
    rig = Rig(tmp_path, f"if (threadIdx.x == 0) {{ out[0] = 0; {body} }}")
    failed = int(rig.run(np.zeros(1, np.float32))[0])
    assert failed == 0, checks[failed - 1]


def test_entry_without_c_linkage_is_refused_as_cuda_would(tmp_path: Path) -> None:
    source = "__global__ void plain(const float *in, float *out, int records) {}"
    bundle = make_bundle(tmp_path, name="plain", source=source)
    with pytest.raises(CompileFailed, match='declare `plain` as extern "C"'):
        CpuDevice(make_plan(bundle))


def test_device_says_what_it_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "out[0] = 1;")
    assert (rig.device.description, rig.device.runs_host_code) == ("CPU", True)
