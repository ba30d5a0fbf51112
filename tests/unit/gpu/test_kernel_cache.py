from __future__ import annotations

from pathlib import Path

import pytest

from gpu.errors import CacheUnsafe
from gpu.kernel_cache import KernelCache, key_of


def test_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "a" / "b")
    assert cache.directory.stat().st_mode & 0o777 == 0o700


def test_entry_is_found_after_it_was_put(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "cache")
    assert cache.find("x.so") is None
    built = cache.directory / "building"
    built.write_bytes(b"code")
    assert cache.put("x.so", built) == cache.find("x.so")
    assert not built.exists()


def test_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(CacheUnsafe, match="chmod go-w"):
        KernelCache(shared)


def test_entry_that_others_can_write_to_is_not_loaded(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "cache")
    planted = cache.directory / "x.so"
    planted.write_bytes(b"code")
    planted.chmod(0o666)
    with pytest.raises(CacheUnsafe, match=r"x\.so"):
        cache.find("x.so")


def test_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnsafe, match="cannot be made"):
        KernelCache(tmp_path / "file" / "cache")


def test_key_tells_parts_apart() -> None:
    assert key_of(["ab", "c"], suffix=".so") != key_of(["a", "bc"], suffix=".so")
    assert key_of(["a", b"b"], suffix=".so").endswith(".so")
