"""Stands in for nvcc: compiles CUDA source to a shared object that the simulated driver loads as a cubin.

Understands the calls that `gpu.cuda_device` and PyCUDA make: `--version`, and `--cubin ... kernel.cu`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpu.cuda_source import bind_dynamic_shared, find_kernels
from gpu.host_compiler import NATIVE


def main(arguments: list[str]) -> int:
    if "--version" in arguments:
        sys.stdout.write("nvcc of the simulated driver, release 13.0\n")
        return 0
    source = Path(arguments[-1])
    text = source.read_text()
    exports = "".join(f"STOCKADE_KERNEL({name})\n" for name in find_kernels(text))
    unit = source.with_suffix(".cpp")
    unit.write_text(f'#line 1 "{source.name}"\n{bind_dynamic_shared(text)}\n{exports}')
    command = [
        "g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-w", "-fno-gnu-unique",
        "-fno-strict-aliasing", "-fwrapv", "-U_FORTIFY_SOURCE", "-Wl,-Bsymbolic",
        "-include", str(NATIVE / "cuda_on_cpu.h"), f"-I{NATIVE / 'include'}",
        str(unit), "-o", str(source.with_suffix(".cubin")),
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
