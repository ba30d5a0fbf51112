"""What is prepared for a development system; that it runs is proved in tests/e2e/test_up.py."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.failure import CommandFailed
from cli.folder import make_folder, sole_user
from cli.ports import FREE
from cli.system import client_files, prepare_system, run_system

if TYPE_CHECKING:
    from cli.ready import Ready


def test_prepare_makes_what_the_daemons_need(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    plan = prepare_system(folder, bench=False, ports=FREE)
    controller = tomllib.loads(folder.controller_config.read_text())
    assert all(Path(controller[key]).is_file() for key in ("certificate", "key", "anchor"))
    assert Path(controller["bootstrap_policy"]) == folder.policy
    assert set(client_files(plan.pki)) == {"sensor", "viewer", "admin"}


def test_prepare_adds_the_load_generator_when_asked(tmp_path: Path) -> None:
    plan = prepare_system(make_folder(tmp_path), bench=True, ports=FREE)
    assert "bench" in client_files(plan.pki)
    assert "bench-does-all" in plan.folder.policy.read_text()


def test_prepare_keeps_the_certificates_there_are(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    first = prepare_system(folder, bench=False, ports=FREE).pki.broker.certificate.read_bytes()
    assert (
        prepare_system(folder, bench=True, ports=FREE).pki.broker.certificate.read_bytes() == first
    )


def test_client_keys_are_private(tmp_path: Path) -> None:
    plan = prepare_system(make_folder(tmp_path), bench=False, ports=FREE)
    for files in client_files(plan.pki).values():
        assert Path(files.key).stat().st_mode & 0o077 == 0


async def test_run_refuses_a_folder_in_use_and_changes_nothing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)

    async def never(_: Ready) -> None:
        raise AssertionError

    with sole_user(folder), pytest.raises(CommandFailed, match="another stockade"):
        await run_system(folder, bench=False, ports=FREE, body=never)
    assert not folder.pki.exists()
    assert not folder.controller_config.exists()
