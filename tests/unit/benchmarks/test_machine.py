"""What the figures are quoted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine import filesystem_of

MOUNTS = """/dev/a / ext4 rw 0 0
tmp /tmp tmpfs rw 0 0
/dev/b /tmp/disk xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/disk/x", "xfs"), ("/tmpx", "ext4")],
)
def test_filesystem_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind


def test_filesystem_without_mounts_is_unknown() -> None:
    assert filesystem_of(Path("/x"), "") == "unknown"
