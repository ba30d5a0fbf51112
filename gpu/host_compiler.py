"""The door to the host's C++ compiler: CUDA source in, a shared object out, cached by everything it depends on.

Rules of this file: a compiled kernel is native code, so it is loaded only from a directory that nobody else can
write to; a cache key names all that may change the result: source, header files, flags, compiler and CPU.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from gpu.cuda_source import bind_dynamic_shared
from gpu.errors import CompileFailed, CompilerMissing
from gpu.kernel_cache import KernelCache, key_of

NATIVE: Final = Path(__file__).parent / "native"
COMPILERS: Final = ("g++", "clang++", "c++")
COMPILE_SECONDS: Final = (
    120.0  # a kernel takes 0.5 s, on a crowded machine some; templates gone wild, for ever
)
MAX_MESSAGE_CHARS: Final = (
    4000  # of a compiler's complaints: the first errors are the ones that matter
)

_FLAGS: Final = (
    "-std=c++17",  # nvcc 13's default
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-pthread",
    "-w",
    # The same answer on every CPU: no fused multiply-add unless the source asks for one.
    "-ffp-contract=off",
    "-fno-math-errno",
    # nvcc forgives what these make defined: type punning through pointers, signed overflow.
    "-fno-strict-aliasing",
    "-fwrapv",
    # The fault handler leaves by siglongjmp, which the fortified one refuses across stacks.
    "-U_FORTIFY_SOURCE",
    "-fdiagnostics-color=never",
    "-Wl,-Bsymbolic",
    "-Wl,-z,now",
)
_GNU_FLAGS: Final = (
    "-fno-gnu-unique",
    "-fmax-errors=20",
)  # unique symbols would keep a library from unloading
_CLANG_FLAGS: Final = ("-ferror-limit=20",)


def compile_kernel(
    source: str, *, name: str, entry: str, check: str, cache_dir: Path, compiler: str, path: str
) -> Path:
    """Compile one kernel for this CPU, or find it in the cache.

    Args:
        source: CUDA C++.
        name: file name for the compiler's messages.
        entry: the kernel to make launchable.
        check: source added behind it (the ABI check).
        cache_dir: private directory for compiled kernels; made when missing.
        compiler: command of a C++17 compiler; empty: look for one.
        path: `PATH` to look in and to give to the compiler.

    Returns:
        The shared object, which exports `stockade_serve_ENTRY`.

    Raises:
        CompilerMissing: there is no compiler.
        CompileFailed: it refused the source; holds its own lines.
        CacheUnsafe: somebody else could have put code into `cache_dir`.
    """
    command, version = find_compiler(compiler, path=path)
    unit = (
        f'#line 1 "{name}"\n{bind_dynamic_shared(source)}\n'
        f'#line 1 "kernel ABI"\n{check}STOCKADE_KERNEL({entry})\n'
    )
    flags = (*_FLAGS, *(_CLANG_FLAGS if "clang" in version else _GNU_FLAGS))
    cache = KernelCache(cache_dir)
    key = key_of((unit, *command, version, *flags, _cpu(), *_headers()), suffix=".so")
    return cache.find(key) or _build(
        unit, cache, key, name=name, command=(*command, *flags), path=path
    )


def find_compiler(compiler: str, *, path: str) -> tuple[tuple[str, ...], str]:
    """Return the compiler's command and its version text.

    Raises:
        CompilerMissing: none was found, or it does not run.
    """
    wanted = shlex.split(compiler)
    for command in (tuple(wanted),) if wanted else tuple((name,) for name in COMPILERS):
        program = shutil.which(command[0], path=path)
        if program is not None:
            full = (program, *command[1:])
            return full, _version_of(full, path=path)
    raise CompilerMissing(
        f"no C++ compiler ({compiler or ', '.join(COMPILERS)}) was found, and kernels for the CPU "
        "are compiled on this machine: apt install g++"
    )


def _version_of(command: tuple[str, ...], *, path: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603  the operator's compiler
            [*command, "--version"], env=_environment(path), capture_output=True, text=True,
            timeout=COMPILE_SECONDS, check=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerMissing(
            f"the C++ compiler `{command[0]}` does not run ({error}): apt install g++"
        ) from error
    return result.stdout.partition("\n")[0]


def _environment(path: str) -> dict[str, str]:
    return {"PATH": path, "LC_ALL": "C.UTF-8"}


def _headers() -> list[bytes]:
    return [path.read_bytes() for path in sorted(NATIVE.rglob("*")) if path.is_file()]


def _cpu() -> str:
    """What -march=native depends on: a cache directory may be shared by machines, or move with a disk."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    keep = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(keep)}))


def _build(
    unit: str, cache: KernelCache, key: str, *, name: str, command: tuple[str, ...], path: str
) -> Path:
    with tempfile.TemporaryDirectory(dir=cache.directory, prefix="build-") as work:
        source, result = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        source.write_text(unit)
        header = ("-include", str(NATIVE / "cuda_on_cpu.h"), f"-I{NATIVE / 'include'}")
        arguments = (*command, *header, "-x", "c++", str(source), "-o", str(result))
        try:
            done = subprocess.run(  # noqa: S603  the operator's compiler
                arguments, env=_environment(path) | {"TMPDIR": work}, cwd=work, capture_output=True,
                text=True, timeout=COMPILE_SECONDS, check=False, errors="replace",
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CompileFailed(
                f"`{name}` was not compiled within {COMPILE_SECONDS:.0f} s"
            ) from error
        if done.returncode:
            lines = done.stderr.strip() or f"the compiler ended with status {done.returncode}"
            raise CompileFailed(f"`{name}` does not compile:\n{lines[:MAX_MESSAGE_CHARS]}")
        return cache.put(key, result)
