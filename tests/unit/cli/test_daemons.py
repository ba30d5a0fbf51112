"""The daemons' commands hand over the configuration and give back the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import typer

import broker as broker_room
import controller as controller_room
from cli import daemons

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.audit import ControllerAudit


class Daemon(ModuleType):
    """A daemon that ends at once with exit code 7; remembers nothing but what it was given."""

    given: Path | None = None

    def main(
        self,
        config: Path,
        *,
        open_audit: Callable[[Path], ControllerAudit] | None = None,
        configure_logging: Callable[[bool], None] | None = None,
    ) -> int:
        """What both daemons offer."""
        self.given = config
        assert (open_audit is None) == (configure_logging is None)
        if open_audit is not None:
            open_audit(config.with_name("audit.jsonl")).close()
        return 7


@pytest.mark.parametrize("room", [broker_room, controller_room], ids=lambda room: room.__name__)
def test_daemon_command_gives_back_the_exit_code(
    room: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = room.__name__
    daemon = Daemon(f"{name}.daemon")
    monkeypatch.setitem(sys.modules, f"{name}.daemon", daemon)
    monkeypatch.setattr(room, "daemon", daemon, raising=False)
    command = {"broker": daemons.broker, "controller": daemons.controller}[name]
    with pytest.raises(typer.Exit) as left:
        command(tmp_path / "daemon.toml")
    assert left.value.exit_code == 7
    assert daemon.given == tmp_path / "daemon.toml"
