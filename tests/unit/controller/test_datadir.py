"""The data directory: private, and for one process at a time."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from controller.datadir import DataDirectory, create_private_file
from controller.errors import DataDirectoryInUse, DataDirectoryUnusable


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_directory_is_private(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "b") as directory:
        assert mode_of(directory.path) == 0o700
        assert mode_of(directory.path / "lock") == 0o600


def test_data_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(DataDirectoryUnusable, match="chmod 700"):
        DataDirectory(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DataDirectoryUnusable, match="cannot use"):
        DataDirectory(tmp_path / "x")


def test_data_directory_is_used_by_one_process(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as directory:
        again = (
            "import pathlib, sys\n"
            "from controller.datadir import DataDirectory\n"
            "from controller.errors import DataDirectoryInUse\n"
            "try: DataDirectory(pathlib.Path(sys.argv[1]))\n"
            "except DataDirectoryInUse as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", again, str(directory.path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert "is used by another controller (process" in done.stdout
        with pytest.raises(DataDirectoryInUse):
            DataDirectory(directory.path)
    DataDirectory(tmp_path / "d").close()


def test_data_directory_close_may_be_repeated(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "d")
    directory.close()
    directory.close()
    assert "closed" in repr(directory)


def test_private_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    path.chmod(0o644)
    with pytest.raises(DataDirectoryUnusable, match="chmod 600"):
        create_private_file(path)


def test_private_file_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(DataDirectoryUnusable, match="cannot open"):
        create_private_file(tmp_path / "link")
