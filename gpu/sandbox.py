"""What a worker gives up before it runs a kernel. On the CPU a kernel is native code with the worker's rights.

Theory of operation: `bind_to_parent` at the start, so that no worker outlives its broker; `drop` once the kernel
is built and loaded: from then on no new process, no file, no socket, no more memory than its bundle asked for.
On Linux x86-64 and aarch64 a seccomp filter allows just what a loaded kernel and the Python loop around it need;
all other system calls fail with EPERM. The CUDA driver opens devices and starts threads whenever it likes, so its
workers get the limits only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h, as the next ones
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2

# Address space beyond the bundle's own: stacks of two host threads (64 MiB each) and Python's arenas.
OVERHEAD_BYTES: Final = 192 * 1024 * 1024
MAX_OPEN_FILES: Final = 64

# What remains allowed, with its numbers: (x86-64, aarch64), from asm/unistd.h.
_ALLOWED: Final = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "lseek": (8, 62),
    "ioctl": (16, 29),  # isatty of the log; no descriptor of a device is open
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "poll": (7, None),
    "ppoll": (271, 73),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_TGKILL: Final = (234, 131)  # only to oneself: abort()
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h


def bind_to_parent(parent: int) -> None:
    """Die with the process `parent`.

    Raises:
        ProcessLookupError: it is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        raise ProcessLookupError("the broker is gone")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold callers' payloads


def drop(*, memory_bytes: int | None, filter_calls: bool) -> str:
    """Give up what a running kernel does not need; there is no way back.

    Args:
        memory_bytes: what may still be allocated; None: no limit (the CUDA driver reserves address space at will).
        filter_calls: install the seccomp filter.

    Returns:
        What holds now, for the log: `limits` or `limits, seccomp`.
    """
    if memory_bytes is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, used + OVERHEAD_BYTES + memory_bytes)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    if filter_calls:
        _lower(resource.RLIMIT_NPROC, 0)
        _lower(resource.RLIMIT_FSIZE, 1024 * 1024)  # the log, which is sealed at less
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return "limits, seccomp" if filter_calls and _filter_calls() else "limits"


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _prctl(option: int, argument: int, extra: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = (ctypes.c_ulong(value) for value in (argument, extra, 0, 0))
    if libc.prctl(option, *values):
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _filter_calls() -> bool:
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        return False
    code = ctypes.create_string_buffer(_filter(machine, os.getpid()))
    instructions = len(code) // 8
    program = ctypes.create_string_buffer(struct.pack("@HP", instructions, ctypes.addressof(code)))
    try:
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))
    except OSError:  # a kernel built without seccomp; the limits still hold, and the caller is told
        return False
    return True


def _filter(machine: str, pid: int) -> bytes:
    """Return the classic BPF program (linux/filter.h, struct seccomp_data)."""
    column = 0 if machine == "x86_64" else 1
    load, equal, ret = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM

    def instruction(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("=HBBI", code, true, false, value)

    parts = [
        instruction(load, 0, 0, 4),  # the architecture
        instruction(equal, 1, 0, _AUDIT_ARCH[machine]),
        instruction(ret, 0, 0, refuse),
        instruction(load, 0, 0, 0),  # the call's number
    ]
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            parts += [instruction(equal, 0, 1, number), instruction(ret, 0, 0, allow)]
    parts += [
        instruction(equal, 0, 3, _TGKILL[column]),
        instruction(load, 0, 0, 16),  # its first argument, the process
        instruction(equal, 0, 1, pid),
        instruction(ret, 0, 0, allow),
        instruction(ret, 0, 0, refuse),
    ]
    return b"".join(parts)
