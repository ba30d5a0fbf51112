"""The files `stockade up` writes are files the daemons take."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.config import BrokerConfig, BrokerLimits, load_config as load_broker_config
from certs.development import DevelopmentPki, create_development_pki
from cli.configs import (
    BENCH_LIMITS,
    render_broker_config,
    render_controller_config,
    shipped_bundles,
)
from cli.folder import SystemFolder, make_folder
from cli.policy import first_rules, render_policy
from cli.ports import Ports
from controller.config import load_config as load_controller_config

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> tuple[SystemFolder, DevelopmentPki]:
    """A folder with its certificates."""
    folder = make_folder(tmp_path_factory.mktemp("system"))
    return folder, create_development_pki(folder.pki, clients=("sensor",), now=NOW)


def broker_config_of(
    system: tuple[SystemFolder, DevelopmentPki], *, bench: bool = False
) -> BrokerConfig:
    """The broker's file, written and read."""
    folder, pki = system
    text = render_broker_config(
        folder, pki, Ports(mqtts=0), controller_rpc="127.0.0.1:1", bench=bench
    )
    folder.broker_config.write_text(text)
    return load_broker_config(folder.broker_config)


def test_broker_file_is_one_the_broker_takes(system: tuple[SystemFolder, DevelopmentPki]) -> None:
    config = broker_config_of(system)
    assert config.listen_mqtts == "127.0.0.1:0"
    assert config.controller_rpc == "127.0.0.1:1"
    assert [Path(bundle).name for bundle in config.kernel_bundles] == ["zscore"]


def test_broker_keeps_sessions_and_messages_sealed_in_its_own_folder(
    system: tuple[SystemFolder, DevelopmentPki],
) -> None:
    folder, _ = system
    store = broker_config_of(system).store
    assert store is not None
    assert store.encrypt
    assert store.key is not None
    assert store.path.parent == store.key.parent == folder.broker_data
    assert store.sync == "always"


def test_bench_raises_what_one_client_may_have_and_nothing_else(
    system: tuple[SystemFolder, DevelopmentPki],
) -> None:
    plain, bench = broker_config_of(system), broker_config_of(system, bench=True)
    assert plain.limits == BrokerLimits()
    assert {name: getattr(bench.limits, name) for name in BENCH_LIMITS} == BENCH_LIMITS
    assert all(BENCH_LIMITS[name] > getattr(plain.limits, name) for name in BENCH_LIMITS)
    assert replace(bench, limits=plain.limits) == plain


def test_controller_file_is_one_the_controller_takes(
    system: tuple[SystemFolder, DevelopmentPki],
) -> None:
    folder, pki = system
    folder.controller_config.write_text(render_controller_config(folder, pki, Ports()))
    folder.policy.write_text(render_policy(first_rules(bench=True)))
    config = load_controller_config(folder.controller_config)
    assert {rule.id for rule in config.first_rules} == {rule.id for rule in first_rules(bench=True)}


def test_file_says_how_to_run_it_by_hand(system: tuple[SystemFolder, DevelopmentPki]) -> None:
    folder, pki = system
    text = render_controller_config(folder, pki, Ports())
    assert f"stockade controller --config {folder.controller_config}" in text


def test_shipped_bundles_are_folders_with_a_manifest() -> None:
    assert all((Path(bundle) / "kernel.toml").is_file() for bundle in shipped_bundles())
