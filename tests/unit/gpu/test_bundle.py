from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gpu.bundle import KernelBundle, load_bundle, load_bundles, shipped_bundle
from gpu.errors import BundleInvalid

MANIFEST = """
name = "scale"
version = "1.2"
entry = "scale"
max_batch = 8
[input]
dtype = "float32"
shape = [4, 2]
[output]
dtype = "uint8"
shape = [3]
"""
SOURCE = 'extern "C" __global__ void scale(const float *in, unsigned char *out, int records) {}\n'


def write(folder: Path, manifest: str = MANIFEST, source: str = SOURCE) -> Path:
    (folder / "kernel.toml").write_text(manifest)
    (folder / "scale.cu").write_text(source)
    return folder


def test_shipped_kernel_is_a_bundle() -> None:
    bundle = load_bundle(shipped_bundle("zscore"))
    assert (bundle.name, bundle.entry) == ("zscore", "zscore")
    assert (bundle.input.shape, bundle.input.nbytes) == ((64,), 256)
    assert (bundle.output.dtype, bundle.output.nbytes) == ("float32", 256)
    assert np.dtype(bundle.input.dtype) == np.float32
    assert bundle.block % bundle.threads_per_record == 0


def test_manifest_becomes_seconds_bytes_and_types(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, "max_delay_ms = 2.5\ndeadline_ms = 250\n" + MANIFEST))
    assert (bundle.max_delay_s, bundle.deadline_s) == (0.0025, 0.25)
    assert (bundle.input.nbytes, bundle.output.nbytes) == (32, 3)
    assert (bundle.input.c_type, bundle.output.c_type) == ("float", "unsigned char")
    assert bundle.signature == SOURCE.removesuffix(" {}\n")


def test_digest_changes_with_source_and_manifest(tmp_path: Path) -> None:
    first = load_bundle(write(tmp_path))
    assert load_bundle(write(tmp_path)).digest == first.digest
    assert load_bundle(write(tmp_path, source=SOURCE + "\n")).digest != first.digest
    assert load_bundle(write(tmp_path, MANIFEST + "\n")).digest != first.digest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_batch", "max_bach", "unknown key `max_bach`: did you mean `max_batch`?"),
        ("shape = [3]", "shap = [3]", "unknown key `output.shap`: did you mean `output.shape`?"),
        ("version", "zzz", "unknown key `zzz`: known keys: block, deadline_ms"),
        ('name = "scale"', 'name = "Sc/ale"', "key `name`: expected"),
        ("max_batch = 8", "max_batch = 0", "key `max_batch`: expected `int` >= 1"),
        ("max_batch = 8", 'max_batch = "8"', "key `max_batch`: expected `int`, got `str`"),
        ('dtype = "uint8"', 'dtype = "half"', "key `output.dtype`: invalid enum value 'half'"),
        ("shape = [3]", "shape = []", "key `output.shape`: expected"),
        ("shape = [3]", "shape = [0]", "key `output.shape[0]`: expected"),
        ("[input]", "block = 100\nthreads_per_record = 8\n[input]", "must be a multiple of"),
        ("[input]", "input", "is not TOML"),
        ('entry = "scale"', 'entry = "other"', "has no kernel `other`"),
        ("shape = [3]", "shape = [1048576, 2]", "one `output` record has 2097152 bytes"),
        ("max_batch = 8", "max_batch = 65536", None),
        ("shape = [3]", "shape = [1000000]", None),
    ],
)
def test_mistake_is_refused_by_the_key_with_what_to_do(
    tmp_path: Path, old: str, new: str, words: str | None
) -> None:
    assert old in MANIFEST
    write(tmp_path, MANIFEST.replace(old, new, 1))
    if words is None:
        load_bundle(tmp_path)
        return
    with pytest.raises(BundleInvalid) as caught:
        load_bundle(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_batch_too_large_for_a_slot_says_which_size_fits(tmp_path: Path) -> None:
    manifest = MANIFEST.replace("[4, 2]", "[262144]").replace("max_batch = 8", "max_batch = 100")
    with pytest.raises(BundleInvalid, match="lower `max_batch` to 64 or less"):
        load_bundle(write(tmp_path, manifest))


@pytest.mark.parametrize("missing", ["kernel.toml", "scale.cu"])
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BundleInvalid, match=f"{missing}` is missing"):
        load_bundle(tmp_path)


def test_source_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "scale.cu").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleInvalid, match="is not UTF-8"):
        load_bundle(tmp_path)


def test_endless_source_is_not_read_to_its_end(tmp_path: Path) -> None:
    write(tmp_path, source=SOURCE + " " * 1024 * 1024)
    with pytest.raises(BundleInvalid, match="longer than"):
        load_bundle(tmp_path)


def test_two_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write(folder)
    assert len(load_bundles(folders[:1])) == 1
    with pytest.raises(BundleInvalid, match="both named `scale`"):
        load_bundles(folders)


@given(text=st.text(max_size=200) | st.sampled_from(MANIFEST.splitlines()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_a_wrong_bundle_and_nothing_else(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "kernel.toml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BundleInvalid):
        load_bundle(tmp_path)


def test_repr_is_for_people(tmp_path: Path) -> None:
    bundle: KernelBundle = load_bundle(write(tmp_path))
    assert repr(bundle).startswith("KernelBundle(scale 1.2, float32[4, 2] -> uint8[3], digest ")
