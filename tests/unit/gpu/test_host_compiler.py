from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpu.errors import CompileFailed, CompilerMissing
from gpu.host_compiler import compile_kernel, find_compiler
from gpu.toolchain import DEFAULT_PATH
from tests.needs import require_tool

SOURCE = 'extern "C" __global__ void f(const int *in, int *out, int n) { out[0] = in[0]; }\n'


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require_tool("g++", package="g++")


def build(
    cache: Path, source: str = SOURCE, *, compiler: str = "", path: str = DEFAULT_PATH
) -> Path:
    return compile_kernel(
        source, name="f.cu", entry="f", check="", cache_dir=cache, compiler=compiler, path=path
    )


def test_kernel_is_compiled_once_and_then_found(tmp_path: Path) -> None:
    first = build(tmp_path / "cache")
    built = first.stat().st_mtime_ns
    assert build(tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == built
    assert build(tmp_path / "cache", SOURCE + "\n") != first
    assert [path.suffix for path in first.parent.iterdir()] == [".so", ".so"], "nothing left over"


def test_other_flags_make_another_library(tmp_path: Path) -> None:
    portable = build(tmp_path / "cache", compiler="g++ -DSTOCKADE_PORTABLE_FIBERS")
    assert portable != build(tmp_path / "cache", compiler="g++")


def test_compile_error_shows_the_compilers_own_lines_at_the_authors_line(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed) as caught:
        build(tmp_path / "cache", "\n\n" + SOURCE.replace("in[0]", "ni[0]"))
    assert str(caught.value).startswith("`f.cu` does not compile:\n")
    assert "f.cu:3:73: error: " in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_endless_complaints_are_cut(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed) as caught:
        build(tmp_path / "cache", "".join(f"oops{n} x{n};\n" for n in range(5000)))
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("compiler", ["", "no-such-compiler"])
def test_missing_compiler_says_what_to_install(tmp_path: Path, compiler: str) -> None:
    with pytest.raises(CompilerMissing, match=r"apt install g\+\+"):
        build(tmp_path / "cache", compiler=compiler, path=str(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_compiler_that_does_not_run_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(CompilerMissing, match="does not run"):
        build(tmp_path / "cache", path=f"{tmp_path}{os.pathsep}{DEFAULT_PATH}")


def test_compiler_may_be_a_command_with_arguments() -> None:
    command, version = find_compiler("g++ -m64", path=DEFAULT_PATH)
    assert command[1:] == ("-m64",)
    assert Path(command[0]).is_absolute()
    assert version


def test_compiler_sees_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", str(tmp_path))
    (tmp_path / "math.h").write_text("#error not mine\n")
    build(tmp_path / "cache")
