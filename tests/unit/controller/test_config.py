"""The settings file of the controller."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from certs.settings import SettingsError
from controller.config import ControllerConfig, load_config, parse_address

BASE = """
node_id = "c1"
data_dir = "data"
rpc_listen = "127.0.0.1:7400"
api_listen = "[::1]:0"
certificate = "c.pem"
key = "c.key"
anchor = "issuing.pem"
"""
RULE = 'principal = "admin"\nresource = "acl.**"\noperations = "all"\n'


def write(folder: Path, text: str, name: str = "controller.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_config_reads_with_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, BASE))
    assert config.data_dir == tmp_path / "data"
    assert config.trust_domain == "stockade.local"
    assert config.first_rules == ()
    assert config.audit_file is None


def test_config_takes_the_bootstrap_policy_inline(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, f"{BASE}[[bootstrap_policy]]\n{RULE}"))
    assert [rule.resource for rule in config.first_rules] == ["acl.**"]


def test_config_takes_the_bootstrap_policy_from_a_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path, f"[[rules]]\n{RULE}id = 'x'\n[[rules]]\n{RULE}", "policy.toml")
    config = load_config(write(tmp_path, f'{BASE}bootstrap_policy = "policy.toml"\n'))
    assert [rule.id for rule in config.first_rules] == ["x", ""]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("data_dri = 1\n", "did you mean `data_dir`?"),
        (
            f"[[bootstrap_policy]]\n{RULE}efect = 'deny'\n",
            "did you mean `bootstrap_policy.effect`?",
        ),
        (
            "[[bootstrap_policy]]\nprincipal='a'\nresource='acl.**'\noperations='fly'\n",
            "bootstrap rule 1: `fly`",
        ),
        (
            f"[[bootstrap_policy]]\n{RULE}id='a'\n[[bootstrap_policy]]\n{RULE}id='a'\n",
            "id `a` is there twice",
        ),
        ('bootstrap_policy = "absent.toml"\n', "cannot read"),
    ],
)
def test_config_refuses_and_says_where(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_config(write(tmp_path, BASE + extra))


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        (
            "rpc_listen",
            'rpc_listen = "localhost"',
            "key `rpc_listen`: `localhost` is no `host:port`",
        ),
        ("api_listen", 'api_listen = "localhost:99999"', "the port is a number"),
        ("node_id", 'node_id = ""', "1 to 64 characters"),
    ],
)
def test_config_refuses_values_that_cannot_work(
    tmp_path: Path, key: str, line: str, message: str
) -> None:
    text = "\n".join(line if old.startswith(key) else old for old in BASE.splitlines())
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_config(write(tmp_path, text))


def test_config_refuses_a_bootstrap_policy_no_command_can_carry(tmp_path: Path) -> None:
    rules = "".join(f"[[rules]]\n{RULE}description = '{'x' * 4000}'\n" for _ in range(40))
    write(tmp_path, rules, "policy.toml")
    with pytest.raises(SettingsError, match="too large"):
        load_config(write(tmp_path, f'{BASE}bootstrap_policy = "policy.toml"\n'))


def test_config_documents_every_key() -> None:
    text = ControllerConfig.__doc__ or ""
    for field in msgspec.structs.fields(ControllerConfig):
        assert f"        {field.name}: " in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:1", ("localhost", 1)),
        ("[::1]:0", ("::1", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_address_parses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":1", "host", "host:", "host:x", "host:-1", "host:65536", "::1:5", "h:²"]
)
def test_address_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|port is a number"):
        parse_address(text)
