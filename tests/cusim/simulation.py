"""The simulated CUDA driver for tests: built once, kept by its content, given out one folder a test."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpu.toolchain import DEFAULT_PATH, Toolchain
from tests.needs import require_tool

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HEADERS = ROOT / ".gpu-wheels" / "headers"
NOT_SUPPORTED = 801  # CUDA_ERROR_NOT_SUPPORTED


def require_pycuda() -> Path:
    """Return PyCUDA's extension module, or skip the test; in CI (CI=true) it is a failure."""
    spec = importlib.util.find_spec("pycuda")
    found = None if spec is None or spec.origin is None else Path(spec.origin).parent
    drivers = sorted(found.glob("_driver*.so")) if found else []
    if drivers and (HEADERS / "cuda.h").exists():
        return drivers[0]
    message = "PyCUDA or CUDA's headers are missing: make gpu-deps"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True)
class SimulatedCuda:
    """A driver with settings of its own.

    Args:
        folder: holds the library, `cusim.conf`, the compiler, and the kernel cache.
    """

    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "libcuda.so.1"

    @property
    def trace(self) -> list[str]:
        """Every driver call so far, in order."""
        return (self.folder / "trace").read_text().splitlines()

    @property
    def toolchain(self) -> Toolchain:
        return Toolchain(
            cache_dir=self.folder / "cache",
            nvcc=str(self.folder / "nvcc"),
            libcuda=str(self.library),
            path=DEFAULT_PATH,
        )


def make_simulation(folder: Path, **settings: str | int) -> SimulatedCuda:
    """Return a simulated driver in `folder`; settings as in settings.h."""
    extension = require_pycuda()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_library(extension), folder / "libcuda.so.1")
    values: dict[str, str | int] = {"trace": str(folder / "trace"), **settings}
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    (folder / "cusim.conf").write_text(lines)
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec {sys.executable} -P {HERE / "nvcc.py"} "$@"\n')
    nvcc.chmod(0o755)
    return SimulatedCuda(folder)


def _library(extension: Path) -> Path:
    require_tool("g++", package="g++")
    require_tool("nm", package="binutils")
    sources = [*sorted(HERE.glob("*.h")), HERE / "driver.cpp", Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    digest.update(extension.read_bytes())
    store = ROOT / ".pytest_cache" / "cusim" / digest.hexdigest()[:16]
    library = store / "libcuda.so.1"
    if not library.exists():
        store.mkdir(parents=True, exist_ok=True)
        _build(extension, store, library)
    return library


def _build(extension: Path, store: Path, library: Path) -> None:
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-pthread"]
    quiet = ["-Wall", "-Wextra", "-Wno-deprecated-declarations"]
    driver, stubs = store / f"driver.{os.getpid()}.o", store / f"stubs.{os.getpid()}.c"
    _run("g++", *flags, *quiet, f"-I{HEADERS}", "-c", str(HERE / "driver.cpp"), "-o", str(driver))
    missing = _symbols("--undefined-only", "-D", extension) - _symbols("--defined-only", driver)
    stubs.write_text(
        "".join(
            f'__attribute__((visibility("default"))) int {name}(void) {{ return {NOT_SUPPORTED}; }}\n'
            for name in sorted(missing)
        )
    )
    built = store / f"{os.getpid()}.so"
    _run("gcc", "-fPIC", "-c", str(stubs), "-o", f"{stubs}.o")
    _run(
        "g++", "-shared", "-pthread", "-Wl,-soname,libcuda.so.1", str(driver), f"{stubs}.o",
        "-ldl", "-o", str(built),
    )  # fmt: skip
    built.replace(library)


def _symbols(*arguments: str | Path) -> set[str]:
    """Return the names of the form `cu...` that nm lists."""
    listed = _run("nm", *map(str, arguments))
    names = {line.split()[-1].partition("@")[0] for line in listed.splitlines() if line.split()}
    return {name for name in names if name.startswith("cu")}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout
