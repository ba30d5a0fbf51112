"""One member put together: what it refuses before anything listens."""

from __future__ import annotations

import secrets
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from certs.errors import CertsError
from controller.commands import RuleDraft
from controller.config import ControllerConfig
from controller.datadir import DataDirectory
from controller.errors import BootstrapMissing
from controller.member import Member
from tests.pki import TestPki
from tests.unit.controller.parts import Recorder

RULE = RuleDraft(id="a", principal="admin", resource="acl.**", operations="all")


def config_in(folder: Path, *rules: RuleDraft) -> ControllerConfig:
    issued = TestPki(folder).controller()
    return ControllerConfig(
        node_id="c1",
        data_dir=folder / "data",
        rpc_listen="127.0.0.1:0",
        api_listen="127.0.0.1:0",
        certificate=issued.cert,
        key=issued.key,
        anchor=issued.anchor,
        bootstrap_policy=rules,
    )


async def bootstrap(config: ControllerConfig, audit: Recorder) -> None:
    with DataDirectory(config.data_dir) as directory:
        member = Member(
            config,
            directory,
            audit=audit,
            clock=lambda: 1000.0,
            timer=time.perf_counter,
            new_id=partial(secrets.token_hex, 6),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(member.log.run)
            await member.bootstrap()
            nursery.cancel_scope.cancel()


async def test_member_bootstraps_once_and_records_it(tmp_path: Path) -> None:
    config, audit = config_in(tmp_path, RULE), Recorder()
    await bootstrap(config, audit)
    await bootstrap(config, audit)
    await bootstrap(msgspec.structs.replace(config, bootstrap_policy=()), audit)
    assert [event["kind"] for event in audit.events] == ["acl.bootstrapped"]


async def test_member_without_any_policy_is_refused(tmp_path: Path) -> None:
    with pytest.RaisesGroup(BootstrapMissing, flatten_subgroups=True):
        await bootstrap(config_in(tmp_path), Recorder())


async def test_member_with_a_refused_policy_stays_empty(tmp_path: Path) -> None:
    config = config_in(tmp_path, msgspec.structs.replace(RULE, operations="fly"))
    for _ in range(2):
        with pytest.RaisesGroup(
            pytest.RaisesExc(BootstrapMissing, match="`fly` is no operation"),
            flatten_subgroups=True,
        ):
            await bootstrap(config, Recorder())


async def test_member_with_an_unusable_key_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path, RULE)
    config.key.chmod(0o644)
    with pytest.raises(CertsError):
        await bootstrap(config, Recorder())
