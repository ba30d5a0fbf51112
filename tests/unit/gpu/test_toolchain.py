from __future__ import annotations

from pathlib import Path

from gpu.toolchain import DEFAULT_PATH, Toolchain


def test_environment_names_the_tools() -> None:
    toolchain = Toolchain.of_environment(
        {
            "HOME": "/home/op",
            "CXX": "clang++ -m64",
            "PATH": "/opt/bin",
            "STOCKADE_NVCC": "/opt/nvcc",
            "STOCKADE_LIBCUDA": "/opt/libcuda.so.1",
        }
    )
    assert toolchain.cache_dir == Path("/home/op/.cache/stockade/kernels")
    assert toolchain.compiler == "clang++ -m64"
    assert (toolchain.nvcc, toolchain.libcuda) == ("/opt/nvcc", "/opt/libcuda.so.1")
    assert toolchain.path == "/opt/bin"


def test_cache_follows_xdg_and_the_configured_directory_goes_first() -> None:
    environ = {"HOME": "/home/op", "XDG_CACHE_HOME": "/var/cache/op"}
    toolchain = Toolchain.of_environment(environ)
    assert toolchain.cache_dir == Path("/var/cache/op/stockade/kernels")
    configured = Toolchain.of_environment(environ, cache_dir=Path("/srv/kernels"))
    assert configured.cache_dir == Path("/srv/kernels")


def test_empty_environment_still_gives_usable_tools() -> None:
    toolchain = Toolchain.of_environment({})
    assert (toolchain.nvcc, toolchain.libcuda, toolchain.compiler) == ("nvcc", "libcuda.so.1", "")
    assert toolchain.path == DEFAULT_PATH
