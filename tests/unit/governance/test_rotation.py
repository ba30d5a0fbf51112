from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from governance.rotation import RotatingFile


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def test_file_is_private_even_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch(mode=0o644)
    file = RotatingFile(path, max_bytes=4096, keep=1)
    file.append(b"line")
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_file_never_exceeds_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = RotatingFile(path, max_bytes=100, keep=2)
    for n in range(100):
        file.append(b"%09d" % n)
    file.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(p.stat().st_size <= 100 for p in tmp_path.iterdir())
    kept = lines_of(tmp_path / names[2]) + lines_of(tmp_path / names[1]) + lines_of(path)
    assert kept == [b"%09d" % n for n in range(100 - len(kept), 100)]


def test_file_that_keeps_none_starts_anew(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a", max_bytes=20, keep=0)
    for n in range(10):
        file.append(b"%09d" % n)
    file.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert lines_of(tmp_path / "a")[-1] == b"%09d" % 9


def test_torn_line_of_a_crash_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"whole":1}\n{"tor')
    file = RotatingFile(path, max_bytes=4096, keep=1)
    assert file.last_line() == b'{"whole":1}'
    file.append(b"next")
    file.close()
    assert lines_of(path) == [b'{"whole":1}', b'{"tor', b"next"]


def test_last_line_is_found_in_the_old_file_after_a_rotation(tmp_path: Path) -> None:
    (tmp_path / "a.1").write_bytes(b"one\ntwo\n")
    (tmp_path / "a").touch()
    assert RotatingFile(tmp_path / "a", max_bytes=4096, keep=1).last_line() == b"two"


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        RotatingFile(tmp_path / "a", max_bytes=4096, keep=1).append(b"x")
    assert not (tmp_path / "victim").exists()


def test_short_write_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = RotatingFile(path, max_bytes=10_000_000, keep=1)
    file.append(b"first")
    # A file size limit of the process is the unprivileged twin of a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(OSError, match="large"):
            file.append(b"x" * 500)
        assert path.read_bytes() == b"first\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    file.append(b"x" * 500)
    file.sync()
    file.close()
    assert lines_of(path) == [b"first", b"x" * 500]


def test_closed_file_holds_no_descriptor(tmp_path: Path) -> None:
    fd_count = len(list(Path("/proc/self/fd").iterdir()))
    file = RotatingFile(tmp_path / "a", max_bytes=4096, keep=1)
    file.append(b"x")
    file.close()
    file.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == fd_count
