from __future__ import annotations

import gc
import re
import socket
from pathlib import Path

import pytest

from broker.daemon import (
    FULL_COLLECTION_AFTER,
    main,
    new_decision_id,
    split_address,
    tame_garbage_collector,
)
from broker.store import StoreError
from certs.settings import SettingsError
from gpu.bundle import shipped_bundle
from gpu.errors import BundleInvalid
from tests.pki import TestPki
from transport.errors import AddressInUse


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:8883", ("127.0.0.1", 8883)), ("[::1]:0", ("::1", 0))]
)
def test_address_is_split(text: str, address: tuple[str, int]) -> None:
    assert split_address("listen_mqtts", text) == address


@pytest.mark.parametrize("text", ["8883", "localhost", "localhost:mqtt", ""])
def test_address_that_is_none_names_its_key(text: str) -> None:
    with pytest.raises(SettingsError, match="listen_mqtts"):
        split_address("listen_mqtts", text)


def test_decision_ids_are_unguessable_and_of_one_form() -> None:
    ids = {new_decision_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"d-[0-9a-f]{12}", each) for each in ids)


def config_in(folder: Path, extra: str = "", *, port: int = 0) -> Path:
    """A broker's file, with certificates, beside which nothing else is missing."""
    pki = TestPki(folder)
    broker = pki.broker()
    config = folder / "broker.toml"
    config.write_text(
        f"""
broker_id = "broker"
listen_mqtts = "127.0.0.1:{port}"
listen_wss = "127.0.0.1:0"
listen_metrics = "127.0.0.1:0"
certificate = "{broker.cert}"
key = "{broker.key}"
anchor = "{pki.anchor}"
ca = "{pki.ca}"
trust_domain = "stockade.local"
controller_rpc = "127.0.0.1:1"
{extra}
"""
    )
    return config


def test_broker_whose_port_is_taken_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        config = config_in(tmp_path, 'ready_file = "ready.json"', port=port)
        with pytest.raises(AddressInUse, match=str(port)):
            main(config)
    assert not (tmp_path / "ready.json").exists()


def test_broker_with_two_kernels_of_one_name_does_not_start(tmp_path: Path) -> None:
    zscore = shipped_bundle("zscore")
    config = config_in(tmp_path, f'kernel_bundles = ["{zscore}", "{zscore}"]')
    with pytest.raises(BundleInvalid, match="rename one"):
        main(config)


def test_broker_whose_store_is_none_does_not_start_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "messages.db").write_text("no store")
    config = config_in(tmp_path, '[store]\npath = "messages.db"\nencrypt = false')
    with pytest.raises(StoreError, match=r"messages\.db"):
        main(config)
    assert (tmp_path / "messages.db").read_text() == "no store"


def test_broker_with_a_wrong_configuration_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text('broker_id = "b"\n')
    with pytest.raises(SettingsError, match="listen_mqtts"):
        main(config)


def test_collector_no_longer_looks_at_what_is_here_for_good() -> None:
    before = gc.get_threshold()
    try:
        tame_garbage_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (*before[:2], FULL_COLLECTION_AFTER)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
