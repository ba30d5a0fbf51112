from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from broker.daemon import main, new_decision_id, split_address
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


def test_broker_whose_port_is_taken_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    broker = pki.broker()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "broker.toml"
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
ready_file = "ready.json"
"""
        )
        with pytest.raises(AddressInUse, match=str(port)):
            main(config)
    assert not (tmp_path / "ready.json").exists()


def test_broker_with_two_kernels_of_one_name_does_not_start(tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    broker = pki.broker()
    zscore = shipped_bundle("zscore")
    config = tmp_path / "broker.toml"
    config.write_text(
        f"""
broker_id = "broker"
listen_mqtts = "127.0.0.1:0"
listen_wss = "127.0.0.1:0"
listen_metrics = "127.0.0.1:0"
certificate = "{broker.cert}"
key = "{broker.key}"
anchor = "{pki.anchor}"
ca = "{pki.ca}"
trust_domain = "stockade.local"
controller_rpc = "127.0.0.1:1"
kernel_bundles = ["{zscore}", "{zscore}"]
"""
    )
    with pytest.raises(BundleInvalid, match="rename one"):
        main(config)


def test_broker_with_a_wrong_configuration_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text('broker_id = "b"\n')
    with pytest.raises(SettingsError, match="listen_mqtts"):
        main(config)
