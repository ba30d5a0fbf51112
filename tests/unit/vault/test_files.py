from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vault.errors import FileExposed, FileUnusable
from vault.files import (
    MAX_PRIVATE_FILE_BYTES,
    make_private_directory,
    read_private,
    read_public,
    verify_directory,
    write_private,
    write_public,
)

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_private_file_is_written_with_mode_0600_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    assert mode(path) == 0o600
    assert read_private(path) == b"secret"
    assert names(tmp_path) == ["key"]


def test_private_file_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"secret")
        os.umask(0o777)
        write_private(tmp_path / "other", b"secret")
        write_public(tmp_path / "public", b"text")
    finally:
        os.umask(before)
    assert [mode(tmp_path / n) for n in ("key", "other", "public")] == [0o600, 0o600, 0o644]


def test_private_file_replaces_an_exposed_one_by_a_private_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_private(path, b"new")
    assert mode(path) == 0o600
    assert read_private(path) == b"new"


def test_public_file_is_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    write_public(path, b"text")
    assert mode(path) == 0o644
    assert read_public(path) == b"text"


@pytest.mark.parametrize("exposed", [0o640, 0o604, 0o620, 0o601, 0o660, 0o777])
def test_private_read_refuses_a_file_others_can_use_and_says_what_to_do(
    tmp_path: Path, exposed: int
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(exposed)
    with pytest.raises(FileExposed, match=f"chmod 600 {path}") as caught:
        read_private(path)
    assert "secret" not in str(caught.value)
    assert read_public(path) == b"secret"


def test_private_read_accepts_a_read_only_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o400)
    assert read_private(path) == b"secret"


def test_private_read_checks_the_file_a_link_leads_to(tmp_path: Path) -> None:
    target, link = tmp_path / "key", tmp_path / "link"
    target.write_bytes(b"secret")
    link.symlink_to(target)
    target.chmod(0o644)
    with pytest.raises(FileExposed):
        read_private(link)
    target.chmod(0o600)
    assert read_private(link) == b"secret"


def test_private_read_refuses_a_file_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    if os.geteuid() == 0:  # root may give files away; anybody else plays another user
        os.chown(path, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(FileExposed, match="chown"):
        read_private(path)


def test_read_of_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileUnusable, match="no such file"):
        read_private(tmp_path / "absent")


def test_read_refuses_directories_and_pipes_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FileUnusable, match="not a regular file"):
            read_private(path)


def test_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"x" * MAX_PRIVATE_FILE_BYTES)
    assert len(read_private(path)) == MAX_PRIVATE_FILE_BYTES
    write_private(path, b"x" * (MAX_PRIVATE_FILE_BYTES + 1))
    with pytest.raises(FileUnusable, match="longer than"):
        read_private(path)
    with pytest.raises(FileUnusable, match="longer than 4 bytes"):
        read_public(path, max_bytes=4)


def test_write_into_a_missing_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileUnusable, match="cannot write"):
        write_private(tmp_path / "absent" / "key", b"secret")


def test_write_that_fails_leaves_the_old_content_and_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    write_private(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileUnusable, match="no space left"):
        write_private(path, b"new")
    monkeypatch.undo()
    assert read_private(path) == b"old"
    assert names(tmp_path) == ["key"]


def test_write_over_a_directory_fails_and_leaves_no_leftovers(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(FileUnusable, match="cannot replace"):
        write_private(tmp_path / "key", b"new")
    assert names(tmp_path) == ["key"]


def test_private_directory_is_created_with_mode_0700(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    make_private_directory(tmp_path / "a" / "b")


def test_private_directory_refuses_one_that_others_can_enter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    with pytest.raises(FileExposed, match="chmod 700"):
        make_private_directory(tmp_path / "a")


def test_private_directory_refuses_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileUnusable, match="file exists"):
        make_private_directory(tmp_path / "a")


def test_directory_check_refuses_what_others_can_write_into(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    directory.chmod(0o755)
    verify_directory(directory)
    for exposed in (0o775, 0o757, 0o1777):
        directory.chmod(exposed)
        with pytest.raises(FileExposed, match="chmod go-w"):
            verify_directory(directory)


def test_directory_check_refuses_files_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileUnusable, match="not a directory"):
        verify_directory(tmp_path / "file")
    with pytest.raises(FileUnusable, match="no such file"):
        verify_directory(tmp_path / "absent")
