"""The border of the command line: exit codes, one line per error, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("up", "broker", "controller", "acl", "config", "version")


def stockade(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as an operator does."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        env={**os.environ, "COLUMNS": "200", **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.slow
def test_help_names_every_command() -> None:
    shown = stockade("--help")
    assert shown.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in shown.stdout


@pytest.mark.slow
def test_version_is_a_command() -> None:
    shown = stockade("version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("stockade ")


@pytest.mark.slow
def test_wrong_usage_is_exit_code_two() -> None:
    shown = stockade("version", "--wrong")
    assert shown.returncode == 2
    assert "--wrong" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("daemon", ["broker", "controller"])
def test_missing_configuration_is_one_line_and_exit_code_one(daemon: str, tmp_path: Path) -> None:
    shown = stockade(daemon, "--config", str(tmp_path / "missing.toml"))
    assert shown.returncode == 1
    assert "missing.toml" in shown.stderr
    assert shown.stderr.startswith("error: ")
    assert len(shown.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_unusable_folder_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shown = stockade("up", "--dir", str(tmp_path / "file"))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("error: cannot use")
    assert len(shown.stderr.strip().splitlines()) == 1
