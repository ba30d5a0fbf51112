"""Tools a test needs from outside Python: skipped when missing on a desk, a failure in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(command: str, *, package: str) -> str:
    """Return the path of `command`, or skip the test; in CI (CI=true) a missing tool is a failure.

    Args:
        command: the executable's name.
        package: the Debian or npm package that `make deps` installs it from.
    """
    path = shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"`{command}` is missing: install `{package}` (as root: make deps)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
