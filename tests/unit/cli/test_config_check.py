"""`stockade config check` says what a daemon would say, and finds out which daemon a file is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer

from certs.settings import SettingsError
from cli.config_check import BROKER, CONTROLLER, check, daemon_of
from cli.failure import CommandFailed

if TYPE_CHECKING:
    from pathlib import Path

BROKER_FILE = """
broker_id = "b"
trust_domain = "stockade.local"
listen_mqtts = "127.0.0.1:0"
listen_wss = "127.0.0.1:0"
listen_metrics = "127.0.0.1:0"
certificate = "b.pem"
key = "b.key"
anchor = "issuing.pem"
ca = "ca.pem"
controller_rpc = "127.0.0.1:7443"
"""


def write(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "daemon.toml"
    path.write_text(text)
    return path


def test_daemon_is_found_by_the_keys(tmp_path: Path) -> None:
    assert daemon_of(write(tmp_path, BROKER_FILE)) == BROKER
    assert daemon_of(write(tmp_path, 'api_listen = "127.0.0.1:0"\n')) == CONTROLLER


def test_file_that_could_be_anybodys_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="--for broker"):
        daemon_of(write(tmp_path, 'colour = "red"\n'))


def test_file_that_is_no_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="cannot read"):
        daemon_of(write(tmp_path, "broker_id ="))


def test_check_takes_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(write(tmp_path, BROKER_FILE))
    assert capsys.readouterr().out.startswith("ok: ")


def test_check_names_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="audit_file"):
        check(write(tmp_path, BROKER_FILE + 'audit_flie = "a"\n'))


def test_check_refuses_a_daemon_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="neither"):
        check(write(tmp_path, BROKER_FILE), daemon="console")
