"""The one door to PyCUDA: a kernel on a CUDA device.

Theory of operation: one thread, the worker's main thread, owns the context and every object made in it; a context is
bound to a thread, and an object dropped in another one leaks. Each slot has a stream, an event and two device
buffers, made once: cuMemAlloc takes 100 us and cuMemFree waits for the device, so neither is on the way of a
batch. `begin` only enqueues (clear the output, copy in, launch, copy out, clear the input, record); `finish` waits for
the event. The shared memory of the slots is page-locked, so copies are asynchronous and the broker's bytes go to the
device without another copy.

Traps this file knows (all were run into): PyCUDA's `register_host_memory` ends the process with SIGSEGV, so the driver
is called through ctypes; the driver must be loaded with RTLD_GLOBAL before PyCUDA is imported, which is linked
against nothing; CUDA errors are sticky, so after one the context is never used again and the process ends.
"""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from gpu.device import DeviceFault, SlotMemory
from gpu.errors import CompileFailed, CompilerMissing, DeviceUnavailable, FaultCode, ToolchainError
from gpu.host_compiler import MAX_MESSAGE_CHARS
from gpu.kernel_cache import KernelCache, key_of
from gpu.plan import WorkerPlan

PAGE_BYTES: Final = 4096
NVCC_SECONDS: Final = 30.0  # for its version only

_MEANINGS: Final = {
    FaultCode.ILLEGAL_ADDRESS: "illegal memory access",
    FaultCode.TIMEOUT: "the device's own time limit was reached",
    FaultCode.ASSERT: "an assertion failed",
    FaultCode.LAUNCH_FAILED: "the launch failed",
}


# ---- PyCUDA, as far as it is used here ------------------------------------------------------------------------


class _Stream(Protocol):
    pass


class _Event(Protocol):
    def record(self, stream: _Stream, /) -> None: ...
    def synchronize(self) -> None: ...


class _Allocation(Protocol):
    def __int__(self) -> int: ...


class _Function(Protocol):
    def prepare(self, arguments: str, /) -> None: ...
    def prepared_async_call(
        self,
        grid: tuple[int, int],
        block: tuple[int, int, int],
        stream: _Stream,
        *arguments: int,
        shared_size: int = 0,
    ) -> None: ...


class _Module(Protocol):
    def get_function(self, name: str, /) -> _Function: ...


class _Context(Protocol):
    def pop(self) -> None: ...


class _CudaDevice(Protocol):
    def name(self) -> str: ...
    def compute_capability(self) -> tuple[int, int]: ...
    def make_context(self) -> _Context: ...


class _DeviceType(Protocol):
    def __call__(self, ordinal: int, /) -> _CudaDevice: ...
    def count(self) -> int: ...


class _EventFlags(Protocol):
    DISABLE_TIMING: int


class _Driver(Protocol):
    """`pycuda.driver`."""

    Error: type[Exception]
    CompileError: type[Exception]
    Device: _DeviceType
    event_flags: _EventFlags

    def init(self) -> None: ...
    def Stream(self) -> _Stream: ...  # noqa: N802 - PyCUDA's name
    def Event(self, flags: int, /) -> _Event: ...  # noqa: N802 - PyCUDA's name
    def mem_alloc(self, nbytes: int, /) -> _Allocation: ...
    def module_from_buffer(self, image: bytes, /) -> _Module: ...
    def memset_d8_async(
        self, dest: _Allocation, value: int, count: int, stream: _Stream, /
    ) -> None: ...
    def memcpy_htod_async(
        self, dest: _Allocation, source: memoryview, stream: _Stream, /
    ) -> None: ...
    def memcpy_dtoh_async(
        self, dest: memoryview, source: _Allocation, stream: _Stream, /
    ) -> None: ...


class _Compiler(Protocol):
    """`pycuda.compiler`."""

    def compile(
        self,
        source: str,
        *,
        nvcc: str,
        options: list[str],
        no_extern_c: bool,
        arch: str,
        cache_dir: bool,
    ) -> bytes: ...


class _CompileError(Protocol):
    stderr: str | None
    stdout: str | None


# ---- the device -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One slot on the device, and its host memory."""

    stream: _Stream
    event: _Event
    device_in: _Allocation
    device_out: _Allocation
    host_in: memoryview
    host_out: memoryview


class CudaDevice:
    """One kernel on the first CUDA device the process sees (CUDA_VISIBLE_DEVICES chooses another).

    Args:
        plan: what to build and how to launch it.

    Raises:
        DeviceUnavailable: no driver, no device, or no PyCUDA.
        CompilerMissing, CompileFailed, CacheUnsafe: the kernel cannot be built.

    Resource handling: holds a context until the process ends, which is how it must be given back after a fault.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self._library = load_driver(plan.libcuda)
        self._cuda = _pycuda()
        device = self._open_device()
        self._name = device.name()
        self._arch = "sm_{}{}".format(*device.compute_capability())
        try:
            self._context = device.make_context()
        except self._cuda.Error as error:
            raise DeviceUnavailable(f"no context on `{self._name}`: {error}") from error
        self._function = self._load(self._compile())
        self._places: list[_Place] = []
        self._pinned = True

    @property
    def description(self) -> str:
        """Device, architecture, and whether copies are asynchronous."""
        memory = "" if self._pinned else ", memory not page-locked: copies are slower"
        return f"{self._name} ({self._arch}{memory})"

    @property
    def runs_host_code(self) -> bool:
        """No: the device's own address space confines it."""
        return False

    def attach(self, slots: Sequence[SlotMemory]) -> None:
        """Page-lock the slots and make their buffers on the device."""
        try:
            self._places = [self._place(slot) for slot in slots]
        except self._cuda.Error as error:
            raise ToolchainError(
                f"`{self._name}` has no room for {len(slots)} batches of `{self._plan.kernel}` "
                f"({error}): lower `max_batch`"
            ) from error

    def begin(self, slot: int, records: int) -> None:
        """Enqueue the batch; errors show in `finish`."""
        plan, place, cuda = self._plan, self._places[slot], self._cuda
        in_bytes, out_bytes = records * plan.in_bytes, records * plan.out_bytes
        stream = place.stream
        try:
            # Device memory keeps what was in it: neither the callers before nor those after may see it.
            cuda.memset_d8_async(place.device_out, 0, out_bytes, stream)
            cuda.memcpy_htod_async(place.device_in, place.host_in[:in_bytes], stream)
            self._function.prepared_async_call(
                (plan.grid(records), 1),
                (plan.block, 1, 1),
                stream,
                int(place.device_in),
                int(place.device_out),
                records,
                shared_size=plan.shared_bytes,
            )
            cuda.memcpy_dtoh_async(place.host_out[:out_bytes], place.device_out, stream)
            cuda.memset_d8_async(place.device_in, 0, in_bytes, stream)
            place.event.record(stream)
        except cuda.Error as error:
            raise self._fault(error) from error

    def finish(self, slot: int) -> None:
        """Wait until the batch is done and its results are in shared memory.

        Raises:
            DeviceFault: it failed; the context is unusable from now on.
        """
        try:
            self._places[slot].event.synchronize()
        except self._cuda.Error as error:
            raise self._fault(error) from error

    def _open_device(self) -> _CudaDevice:
        cuda = self._cuda
        try:
            cuda.init()
            if cuda.Device.count() > 0:
                return cuda.Device(0)
        except cuda.Error as error:
            raise DeviceUnavailable(f"the CUDA driver has no usable device: {error}") from error
        raise DeviceUnavailable("the CUDA driver sees no device")

    def _compile(self) -> bytes:
        plan = self._plan
        nvcc = shutil.which(plan.nvcc, path=plan.path)
        if nvcc is None:
            raise CompilerMissing(
                f"`{plan.nvcc}` was not found, and CUDA kernels are compiled on this machine: "
                "install the CUDA toolkit, or set STOCKADE_NVCC to its compiler"
            )
        unit = (
            f'#line 1 "{plan.source_name}"\n{plan.source}\n#line 1 "kernel ABI"\n{plan.abi_check}'
        )
        cache = KernelCache(Path(plan.cache_dir))
        key = key_of((unit, nvcc, _version_of(nvcc), self._arch), suffix=".cubin")
        found = cache.find(key)
        if found:
            return found.read_bytes()
        image = self._run_nvcc(nvcc, unit)
        with tempfile.TemporaryDirectory(dir=cache.directory, prefix="build-") as work:
            built = Path(work) / "kernel.cubin"
            built.write_bytes(image)
            cache.put(key, built)
        return image

    def _run_nvcc(self, nvcc: str, unit: str) -> bytes:
        compiler = cast("_Compiler", importlib.import_module("pycuda.compiler"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # PyCUDA warns of every remark nvcc makes on its way to success
                return compiler.compile(
                    unit,
                    nvcc=nvcc,
                    options=["-std=c++17"],
                    no_extern_c=True,
                    arch=self._arch,
                    cache_dir=False,
                )
        except self._cuda.CompileError as error:
            said = cast("_CompileError", error)
            lines = (said.stderr or said.stdout or str(error)).strip()[:MAX_MESSAGE_CHARS]
            raise CompileFailed(f"`{self._plan.source_name}` does not compile:\n{lines}") from error

    def _load(self, image: bytes) -> _Function:
        try:
            function = self._cuda.module_from_buffer(image).get_function(self._plan.entry)
            function.prepare("PPi")
        except self._cuda.Error as error:
            raise CompileFailed(
                f"`{self._plan.source_name}` cannot be loaded on `{self._name}` ({error}): "
                f'is `{self._plan.entry}` declared extern "C"?'
            ) from error
        return function

    def _place(self, slot: SlotMemory) -> _Place:
        cuda = self._cuda
        self._lock_pages(slot.input_address, slot.input_bytes)
        self._lock_pages(slot.output_address, slot.output_bytes)
        return _Place(
            stream=cuda.Stream(),
            event=cuda.Event(cuda.event_flags.DISABLE_TIMING),
            device_in=cuda.mem_alloc(slot.input_bytes),
            device_out=cuda.mem_alloc(slot.output_bytes),
            host_in=_memory_at(slot.input_address, slot.input_bytes),
            host_out=_memory_at(slot.output_address, slot.output_bytes),
        )

    def _lock_pages(self, address: int, nbytes: int) -> None:
        begin = address // PAGE_BYTES * PAGE_BYTES
        end = -(-(address + nbytes) // PAGE_BYTES) * PAGE_BYTES
        register = self._library.cuMemHostRegister_v2
        if register(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_uint(0)):
            self._pinned = False

    def _fault(self, error: Exception) -> DeviceFault:
        number: int = (
            self._library.cuCtxSynchronize()
        )  # PyCUDA's errors hold a text only; sticky ones repeat
        code = FaultCode.of(number)
        return DeviceFault(code, _MEANINGS.get(code, str(error)))


def load_driver(libcuda: str) -> ctypes.CDLL:
    """Load the CUDA driver so that PyCUDA, imported later, finds its functions.

    Raises:
        DeviceUnavailable: there is none.
    """
    try:
        return ctypes.CDLL(libcuda, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise DeviceUnavailable(f"no CUDA driver: {error}") from error


def _pycuda() -> _Driver:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # its dependencies' deprecations are not our operators' business
            return cast("_Driver", importlib.import_module("pycuda.driver"))
    except ImportError as error:
        raise DeviceUnavailable(
            f"PyCUDA cannot be imported ({error}): install the extra `gpu`, or run make gpu-deps"
        ) from error


def _version_of(nvcc: str) -> str:
    try:
        return subprocess.run(  # noqa: S603 - the operator's compiler
            [nvcc, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVCC_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerMissing(f"the CUDA compiler `{nvcc}` does not run: {error}") from error


def _memory_at(address: int, nbytes: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")
