"""What can go wrong with kernels, named by whose fault it is.

Rules of this file: a class per way a caller has to react, not per message; every message says what to do next
where that is known; a fault of a kernel is data as well as an exception, since callers get it as their answer.
"""

from __future__ import annotations

from enum import IntEnum


class GpuError(Exception):
    """The base of everything this room raises on purpose."""


class BundleInvalid(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """The operator's kernel bundle cannot be used; the message names the file, the key and the remedy."""


class ToolchainError(GpuError):
    """A kernel could not be built or loaded on this machine."""


class CompilerMissing(ToolchainError):  # noqa: N818 - named by whose fault it is (style 11)
    """No C++ compiler (or no nvcc) was found."""


class CompileFailed(ToolchainError):  # noqa: N818 - named by whose fault it is (style 11)
    """The compiler refused the kernel's source; the message holds the compiler's own lines."""


class CacheUnsafe(ToolchainError):  # noqa: N818 - named by whose fault it is (style 11)
    """The directory of compiled kernels could be written by somebody else, so nothing is loaded from it."""


class DeviceUnavailable(ToolchainError):  # noqa: N818 - named by whose fault it is (style 11)
    """There is no usable device for the backend that was asked for."""


class UnknownKernel(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """The caller named a kernel that this broker does not run."""


class PayloadRefused(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """The caller's payloads do not have the size of the kernel's input record."""


class KernelBusy(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """The kernel's queue stayed full for the whole time a caller may wait."""


class KernelNotReady(KernelBusy):
    """The kernel has no running worker; the message says why."""


class FaultCode(IntEnum):
    """Why a batch has no result. Values up to 99 are ours; the others are CUDA's own (cuda.h, CUresult)."""

    WORKER_DIED = 1
    DEADLINE = 2
    PROTOCOL = 3
    STOPPED = 4
    NOT_RESTARTED = 5
    DEVICE = 6
    ILLEGAL_ADDRESS = 700
    TIMEOUT = 702
    ASSERT = 710
    LAUNCH_FAILED = 719

    @classmethod
    def of(cls, number: int) -> FaultCode:
        """Return the code for a number that a device or a worker named; unknown ones are `DEVICE`."""
        try:
            return cls(number)
        except ValueError:
            return cls.DEVICE


class KernelFault(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """The kernel failed while it ran: this is the answer for every caller in that batch.

    Args:
        kernel: the kernel's name.
        code: why there is no result.
        reason: one line for the caller; holds no payload.
    """

    def __init__(self, kernel: str, code: FaultCode, reason: str) -> None:
        super().__init__(f"kernel `{kernel}`: {reason}")
        self.kernel = kernel
        self.code = code
        self.reason = reason


class WorkerBroken(GpuError):  # noqa: N818 - named by whose fault it is (style 11)
    """A worker process sent something it must not send; it is ended."""
