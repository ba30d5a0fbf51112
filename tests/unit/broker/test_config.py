from __future__ import annotations

from pathlib import Path

import pytest

from acl.model import PrincipalKind
from broker.config import BrokerConfig, load_config, principal_mapper
from certs.settings import SettingsError

MINIMAL = """
broker_id = "b1"
listen_mqtts = "127.0.0.1:0"
listen_wss = "127.0.0.1:0"
listen_metrics = "127.0.0.1:0"
certificate = "broker.pem"
key = "broker.key"
anchor = "issuing.pem"
ca = "ca.pem"
trust_domain = "stockade.local"
controller_rpc = "127.0.0.1:7443"
"""


def config_of(tmp_path: Path, extra: str = "") -> BrokerConfig:
    path = tmp_path / "broker.toml"
    path.write_text(MINIMAL + extra)
    return load_config(path)


def test_config_resolves_paths_beside_its_file(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert config.certificate == tmp_path / "broker.pem"
    assert config.stale_after_s == 30.0
    assert config.audit_file is None


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="audit_file"):
        config_of(tmp_path, 'audit_flie = "x"\n')


@pytest.mark.parametrize(
    "extra",
    [
        "stale_after_s = 0\n",
        "stale_after_s = 2\n",  # shorter than the controller's proofs are apart
        "kernel_wait_s = 1000\n",
        "[limits]\nmax_packet_bytes = 10\n",
        "[limits]\nmax_connections = 0\n",
        "[limits]\nmax_connections_per_principal = 0\n",
        "[limits]\nreceive_maximum = 70000\n",
        "[limits]\nmax_handshakes = 0\n",
        'kernel_backend = "tpu"\n',
        '[[principal_rules]]\nname = "r"\nfrom = "san.ip"\nmatch = "{id}"\n',
        '[[principal_rules]]\nname = "r"\nfrom = "san.uri"\nmatch = "spiffe://{id}"\n',
    ],
)
def test_value_that_would_weaken_a_bound_is_refused(tmp_path: Path, extra: str) -> None:
    with pytest.raises(SettingsError):
        config_of(tmp_path, extra)


def test_principal_rules_default_to_spiffe(tmp_path: Path) -> None:
    mapper = principal_mapper(config_of(tmp_path))
    assert [rule.source for rule in mapper.rules] == ["san.uri"] * len(mapper.rules)


def test_principal_rules_are_the_operators_when_given(tmp_path: Path) -> None:
    rule = '[[principal_rules]]\nname = "mail"\nfrom = "san.email"\nmatch = "{id}@example.org"\nkind = "user"\n'
    (only,) = principal_mapper(config_of(tmp_path, rule)).rules
    assert (only.name, only.kind) == ("mail", PrincipalKind.USER)
