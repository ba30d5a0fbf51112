"""Tools a test needs from outside Python: skipped when missing on a desk, a failure in CI."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def require_tool(command: str, *, package: str) -> str:
    """Return the path of `command`, or skip the test; in CI (CI=true) a missing tool is a failure.

    Args:
        command: the executable's name.
        package: the Debian or npm package that `make deps` installs it from.
    """
    path = shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        _miss(f"`{command}` is missing: install `{package}` (as root: make deps)")
    return path


def require_file(path: Path, *, package: str) -> Path:
    """Return `path` if that file is there, or skip the test; in CI (CI=true) a missing file is a failure.

    Args:
        path: a header, or a library in another language.
        package: the Debian or npm package that `make deps` installs it from.
    """
    if not path.is_file():
        _miss(f"`{path.name}` is missing: install `{package}` (as root: make deps)")
    return path


def _miss(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
