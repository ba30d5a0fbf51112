from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from certs.directory_lock import locked
from certs.errors import DirectoryUnusable

if TYPE_CHECKING:
    from pathlib import Path


def test_lock_is_for_one_at_a_time_and_says_so(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(DirectoryUnusable, match="another process is at work"),
        locked(tmp_path, attempts=2, pause_s=0.001),
    ):
        pytest.fail("two hold the lock")
    with locked(tmp_path, attempts=1):
        pass


def test_lock_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path, attempts=1):
        pass


def test_lock_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_lock_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DirectoryUnusable, match="cannot open directory"), locked(path):
            pytest.fail("locked what is no directory")
