"""A kernel bundle: a directory with `kernel.toml` and one CUDA source, read into a value that cannot be wrong.

Rules of this file: everything is checked here, at the border; a wrong bundle is refused with the file, the key
and what to do. A bundle's source comes from the operator, never from a client.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from typing_extensions import override

from certs.settings import SettingsError, parse_settings
from gpu.cuda_source import find_kernels
from gpu.errors import BundleInvalid

MANIFEST_NAME: Final = "kernel.toml"
MAX_MANIFEST_BYTES: Final = 64 * 1024  # a page of settings, not a data file
MAX_SOURCE_BYTES: Final = (
    1024 * 1024
)  # far above any hand-written kernel; bounds what a compiler is given
MAX_RECORD_BYTES: Final = (
    1024 * 1024
)  # one message's payload; the broker's packets are bounded as well
MAX_BATCH_BYTES: Final = (
    64 * 1024 * 1024
)  # a slot's region; times slots times kernels is what the host gives
MAX_BLOCK_THREADS: Final = (
    1024  # CUDA C++ Programming Guide, technical specifications per compute capability
)
MAX_SHARED_BYTES: Final = 48 * 1024  # the same: what every device gives without opting in

Dtype = Literal[
    "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"
]
_C_TYPES: Final[Mapping[str, str]] = {
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
}


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Dtype
    shape: Annotated[
        list[Annotated[int, msgspec.Meta(ge=1, le=MAX_RECORD_BYTES)]],
        msgspec.Meta(min_length=1, max_length=8),
    ]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # The name is a topic level and an access-rule segment at once, so it holds no separator of either.
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.+-]{1,32}$")]
    description: Annotated[str, msgspec.Meta(max_length=200)] = ""
    entry: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    input: _Record
    output: _Record
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    max_delay_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    threads_per_record: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK_THREADS)] = 1
    block: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK_THREADS)] = 128
    shared_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SHARED_BYTES)] = 0
    deadline_ms: Annotated[float, msgspec.Meta(ge=1, le=60_000)] = 1000.0
    memory_mb: Annotated[int, msgspec.Meta(ge=16, le=65536)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLayout:
    """One record of a kernel's input or output: what a payload must be.

    Args:
        dtype: name of one element's type, which numpy knows; little-endian.
        shape: the record's shape; at least one dimension.
        nbytes: bytes of one record.
        c_type: the element's type in CUDA C.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    nbytes: int
    c_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBundle:
    """A kernel as the operator shipped it, verified.

    Args:
        name: how callers name it (`kernel/NAME`).
        version: the operator's version text.
        description: one line.
        entry: the `extern "C" __global__` function.
        source: CUDA C++ source.
        source_name: its file name, for compilers' messages.
        input: layout of an input record.
        output: layout of an output record.
        max_batch: records in one launch at most.
        max_delay_s: seconds the first record of a batch waits for company.
        threads_per_record: threads that share a record.
        block: threads a block; a multiple of `threads_per_record`.
        shared_bytes: dynamic shared memory of a block.
        deadline_s: seconds a launch may take before its worker is ended.
        memory_bytes: what a worker may allocate beyond what it has when it is ready.
        digest: SHA-256 of manifest and source, in hexadecimal.
    """

    name: str
    version: str
    description: str
    entry: str
    source: str
    source_name: str
    input: RecordLayout
    output: RecordLayout
    max_batch: int
    max_delay_s: float
    threads_per_record: int
    block: int
    shared_bytes: int
    deadline_s: float
    memory_bytes: int
    digest: str

    @override
    def __repr__(self) -> str:
        return (
            f"KernelBundle({self.name} {self.version}, {self.input.dtype}{list(self.input.shape)} -> "
            f"{self.output.dtype}{list(self.output.shape)}, digest {self.digest[:12]})"
        )

    @property
    def signature(self) -> str:
        """The declaration that the kernel ABI asks of the source."""
        return (
            f'extern "C" __global__ void {self.entry}'
            f"(const {self.input.c_type} *in, {self.output.c_type} *out, int records)"
        )


def shipped_bundle(name: str) -> Path:
    """Return the directory of a bundle that comes with Stockade (`zscore`)."""
    return Path(__file__).parent / "kernels" / name


def load_bundle(directory: Path) -> KernelBundle:
    """Read and verify the bundle in `directory`.

    Args:
        directory: holds `kernel.toml` and `NAME.cu`, where NAME is the manifest's `name`.

    Raises:
        BundleInvalid: the bundle cannot be used; the message says what to do.
    """
    manifest_path = directory / MANIFEST_NAME
    text = _read_text(manifest_path, limit=MAX_MANIFEST_BYTES)
    manifest = _parse(text, manifest_path)
    source_path = directory / f"{manifest.name}.cu"
    source = _read_text(source_path, limit=MAX_SOURCE_BYTES)
    if manifest.entry not in find_kernels(source):
        raise BundleInvalid(
            f"`{source_path}` has no kernel `{manifest.entry}`: `entry` in `{MANIFEST_NAME}` "
            f'must name an `extern "C" __global__` function ({_found(source)})'
        )
    return KernelBundle(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        entry=manifest.entry,
        source=source,
        source_name=source_path.name,
        input=_layout(manifest.input, manifest.max_batch, manifest_path, "input"),
        output=_layout(manifest.output, manifest.max_batch, manifest_path, "output"),
        max_batch=manifest.max_batch,
        max_delay_s=manifest.max_delay_ms / 1000,
        threads_per_record=manifest.threads_per_record,
        block=manifest.block,
        shared_bytes=manifest.shared_bytes,
        deadline_s=manifest.deadline_ms / 1000,
        memory_bytes=manifest.memory_mb * 1024 * 1024,
        digest=hashlib.sha256(f"{text}\0{source}".encode()).hexdigest(),
    )


def load_bundles(directories: Iterable[Path]) -> tuple[KernelBundle, ...]:
    """Read several bundles; two of one name are refused.

    Raises:
        BundleInvalid: one of them cannot be used.
    """
    found: dict[str, Path] = {}
    bundles: list[KernelBundle] = []
    for directory in directories:
        bundle = load_bundle(directory)
        if bundle.name in found:
            raise BundleInvalid(
                f"`{directory}` and `{found[bundle.name]}` are both named `{bundle.name}`: rename one"
            )
        found[bundle.name] = directory
        bundles.append(bundle)
    return tuple(bundles)


def _found(source: str) -> str:
    names = find_kernels(source)
    return "found: " + ", ".join(f"`{name}`" for name in names) if names else "found none"


def _read_text(path: Path, *, limit: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        text = data.decode()
    except FileNotFoundError as error:
        raise BundleInvalid(
            f"`{path}` is missing: a bundle is a directory with `{MANIFEST_NAME}` and `NAME.cu`"
        ) from error
    except OSError as error:
        raise BundleInvalid(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BundleInvalid(f"`{path}` is not UTF-8 text") from error
    if len(data) > limit:
        raise BundleInvalid(f"`{path}` is longer than {limit} bytes")
    return text


def _parse(text: str, path: Path) -> _Manifest:
    try:
        manifest = parse_settings(text, _Manifest, path=path)
    except SettingsError as error:
        raise BundleInvalid(str(error)) from error
    if manifest.block % manifest.threads_per_record:
        raise BundleInvalid(
            f"`{path}`: `block` ({manifest.block}) must be a multiple of "
            f"`threads_per_record` ({manifest.threads_per_record})"
        )
    return manifest


def _layout(record: _Record, max_batch: int, path: Path, table: str) -> RecordLayout:
    nbytes = math.prod(record.shape) * np.dtype(record.dtype).itemsize
    if nbytes > MAX_RECORD_BYTES:
        raise BundleInvalid(
            f"`{path}`: one `{table}` record has {nbytes} bytes, more than {MAX_RECORD_BYTES}"
        )
    if nbytes * max_batch > MAX_BATCH_BYTES:
        raise BundleInvalid(
            f"`{path}`: `max_batch` of {max_batch} `{table}` records is {nbytes * max_batch} bytes, "
            f"more than {MAX_BATCH_BYTES}: lower `max_batch` to {MAX_BATCH_BYTES // nbytes} or less"
        )
    return RecordLayout(
        dtype=record.dtype, shape=tuple(record.shape), nbytes=nbytes, c_type=_C_TYPES[record.dtype]
    )
