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
        "[limits]\nmax_queued_messages = 0\n",
        "[limits]\nmax_queued_session_bytes = 0\n",
        "[limits]\nmax_waiting_bytes = 0\n",
        "[limits]\nmax_waiting_bytes_per_principal = 0\n",
        "[limits]\nmax_message_age_s = -1\n",
        "[limits]\nmax_stored_messages = -1\n",
        "[limits]\nmax_stored_session_bytes = -1\n",
        "[limits]\nmax_stored_bytes_per_principal = -1\n",
        "[limits]\ntopic_alias_maximum = 65535\n",
        "[limits]\nmax_sessions = 0\n",
        "[limits]\nmax_sessions_per_principal = 0\n",
        "[limits]\nmax_session_expiry_s = 4294967295\n",  # 2^32 - 1: never
        "[limits]\nmax_retained_messages = -1\n",
        "[limits]\nmax_retained_bytes = -1\n",
        "[limits]\nmax_delayed_messages = -1\n",
        "[limits]\nmax_delayed_bytes = -1\n",
        "[mqtt]\nsys_interval_s = -1\n",
        "[mqtt]\nbusy_poll_us = -1\n",
        "[mqtt]\nbusy_poll_us = 1001\n",
        '[mqtt]\nshared_strategy = "random"\n',
        '[mqtt]\ndead_letters = "dead"\n',
        '[store]\nkey = "key"\n',
        '[store]\npath = "db"\nkey = "key"\nsync = "sometimes"\n',
        '[store]\npath = "db"\nkey = "key"\nmax_bytes = 1000\n',
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


def test_store_is_none_until_it_is_named(tmp_path: Path) -> None:
    assert config_of(tmp_path).store is None


def test_store_is_encrypted_and_synced_unless_told_otherwise(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[store]\npath = "messages.db"\nkey = "messages.key"\n')
    assert config.store is not None
    assert (config.store.encrypt, config.store.sync) == (True, "always")
    assert config.store.path == tmp_path / "messages.db"
    assert config.store.key == tmp_path / "messages.key"


def test_encrypted_store_needs_a_key_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"store\.key"):
        config_of(tmp_path, '[store]\npath = "messages.db"\n')


def test_store_without_encryption_needs_no_key(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[store]\npath = "messages.db"\nencrypt = false\n')
    assert config.store is not None
    assert not config.store.encrypt


@pytest.mark.parametrize("topic", ["dead/#", "dead/+/x", "$SYS/dead", "kernel/zscore", "t" * 300])
def test_dead_letter_topic_is_one_that_can_be_published_to(tmp_path: Path, topic: str) -> None:
    with pytest.raises(SettingsError, match="dead_letter_topic"):
        config_of(tmp_path, f'[mqtt]\ndead_letter_topic = "{topic}"\n')


def test_dead_letter_topic_may_have_levels(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[mqtt]\ndead_letter_topic = "dead/letters"\n')
    assert config.mqtt.dead_letter_topic == "dead/letters"
