"""The command `up` as a command: its options; the system it starts is proved in tests/e2e/test_up.py."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cli.failure import CommandFailed
from cli.folder import make_folder, sole_user
from cli.up import command, program, serve

if TYPE_CHECKING:
    from pathlib import Path


def test_up_refuses_a_folder_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="--dir"):
        command(folder=tmp_path / "file")


async def test_up_takes_an_old_report_away_even_when_it_fails(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "system")
    ready = tmp_path / "ready.json"
    ready.write_text("{}")
    with sole_user(folder), pytest.raises(BaseExceptionGroup) as caught:
        await serve(folder, ready, bench=False, any_port=True)
    assert caught.group_contains(CommandFailed)
    assert not ready.exists()


def test_printed_program_is_one_a_shell_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which(program()) is not None
