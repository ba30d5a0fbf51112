"""The folder of a development system is private and used by one system at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.failure import CommandFailed
from cli.folder import make_folder, sole_user

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_is_made_private(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "new")
    assert folder.root.stat().st_mode & 0o077 == 0
    assert folder.controller_data.is_dir()
    assert folder.broker_data.is_dir()
    assert folder.broker_data.stat().st_mode & 0o077 == 0
    assert folder.log("broker").parent.is_dir()
    assert folder.audit("broker").parent.is_dir()


def test_folder_is_made_once_and_used_again(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "new") == make_folder(tmp_path / "new")


def test_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = type(tmp_path)("here")
    assert make_folder(relative).root == tmp_path / "here"


def test_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="--dir"):
        make_folder(tmp_path / "file")


def test_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with (
        sole_user(folder),
        pytest.raises(CommandFailed, match="another stockade"),
        sole_user(folder),
    ):
        pass
    with sole_user(folder):
        pass
