"""Where compilers, the CUDA driver and compiled kernels are: decided once, at composition, then passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """The tools a worker may use.

    Args:
        cache_dir: compiled kernels; made with mode 0700, refused when others can write to it.
        compiler: C++ compiler for the CPU device; empty: the first of g++, clang++, c++ on `path`.
        nvcc: CUDA compiler for the CUDA device.
        libcuda: CUDA driver library, a path or a name for the loader.
        path: `PATH` for compilers.
    """

    cache_dir: Path
    compiler: str = ""
    nvcc: str = "nvcc"
    libcuda: str = "libcuda.so.1"
    path: str = DEFAULT_PATH

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], *, cache_dir: Path | None = None) -> Self:
        """Read what users set for tools of this kind: XDG_CACHE_HOME, CXX, PATH, STOCKADE_NVCC, STOCKADE_LIBCUDA.

        Args:
            environ: the environment, read by the composition root.
            cache_dir: the configured directory; None: `stockade/kernels` in the user's cache.
        """
        home = Path(environ.get("HOME") or "/nonexistent")
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
        return cls(
            cache_dir=cache_dir or cache / "stockade" / "kernels",
            compiler=environ.get("CXX", ""),
            nvcc=environ.get("STOCKADE_NVCC") or "nvcc",
            libcuda=environ.get("STOCKADE_LIBCUDA") or "libcuda.so.1",
            path=environ.get("PATH") or DEFAULT_PATH,
        )
