from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from gpu.cuda_source import bind_dynamic_shared, find_kernels, without_comments


@pytest.mark.parametrize(
    ("source", "kernels"),
    [
        ('extern "C" __global__ void a(int *p) {}', ("a",)),
        ("__global__ void __launch_bounds__(128, 2) b(int n) {}", ("b",)),
        ("__global__ __launch_bounds__(64)\nvoid\nc (int n) {}", ("c",)),
        ("static __global__ void d() {} __global__ static void e() {}", ("d", "e")),
        ("// __global__ void no()\n/* __global__ void nor() */ __global__ void yes();", ("yes",)),
        ('const char *s = "__global__ void text(";', ()),
        ("__global__ void f(int); __global__ void f(int) {}", ("f",)),
        ("__device__ void helper() {}", ()),
    ],
)
def test_kernels_are_found_where_a_compiler_would_see_them(
    source: str, kernels: tuple[str, ...]
) -> None:
    assert find_kernels(source) == kernels


@given(st.text(alphabet="/*\n\"'\\ab ", max_size=60))
def test_comments_are_blanked_in_place(source: str) -> None:
    bare = without_comments(source)
    assert len(bare) == len(source)
    assert [i for i, c in enumerate(bare) if c == "\n"] == [
        i for i, c in enumerate(source) if c == "\n"
    ]


@pytest.mark.parametrize(
    ("declaration", "bound"),
    [
        ("extern __shared__ float s[];", "STOCKADE_DYNAMIC_SHARED(float, s);"),
        ("extern __shared__ unsigned char raw[];", "STOCKADE_DYNAMIC_SHARED(unsigned char, raw);"),
        ("extern __shared__ __align__(16) double2 v [ ] ;", "STOCKADE_DYNAMIC_SHARED(double2, v);"),
        ("extern __shared__ char *names[];", "STOCKADE_DYNAMIC_SHARED(char *, names);"),
        ("// extern __shared__ float s[];", "// extern __shared__ float s[];"),
        ("__shared__ float s[32];", "__shared__ float s[32];"),
    ],
)
def test_dynamic_shared_memory_is_bound(declaration: str, bound: str) -> None:
    assert bind_dynamic_shared(f"a\n{declaration}\nb") == f"a\n{bound}\nb"


def test_lines_stay_where_the_author_sees_them() -> None:
    source = "extern __shared__\n  float\n  s[];\nlast"
    assert bind_dynamic_shared(source).split("\n")[3] == "last"
