"""Settings files: what a wrong key, a wrong type or a wrong file gets."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from certs.settings import MAX_SETTINGS_BYTES, SettingsError, load_settings


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    principal: str
    priority: int = 0


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node_id: str
    data_dir: Path
    audit_file: Path | None = None
    port: int = 1
    policy: str | list[Rule] = ""
    tables: dict[str, Rule] = {}


def write(folder: Path, text: str) -> Path:
    path = folder / "example.toml"
    path.write_text(text)
    return path


GOOD = 'node_id = "c1"\ndata_dir = "data"\n'


def test_settings_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD + 'audit_file = "/var/audit"\n'), Example)
    assert loaded.data_dir == tmp_path / "data"
    assert loaded.audit_file == Path("/var/audit")
    assert loaded.port == 1


def test_settings_accept_nested_tables(tmp_path: Path) -> None:
    text = GOOD + '[[policy]]\nprincipal = "a"\n[tables.x]\nprincipal = "b"\npriority = 3\n'
    loaded = load_settings(write(tmp_path, text), Example)
    assert loaded.policy == [Rule(principal="a")]
    assert loaded.tables["x"].priority == 3


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('audit_flie = "x"\n', "unknown key `audit_flie`: did you mean `audit_file`?"),
        ("zzz = 1\n", "unknown key `zzz`: known keys: audit_file, data_dir"),
        ('port = "no"\n', "key `port`: expected `int`, got `str`"),
        ("audit_file = 4\n", "key `audit_file`: expected a path"),
        (
            '[[policy]]\nprincipl = "a"\n',
            "unknown key `policy.principl`: did you mean `policy.principal`?",
        ),
        (
            "[tables.x]\npriorty = 1\n",
            "unknown key `tables.x.priorty`: did you mean `tables.x.priority`?",
        ),
        ("[tables.x]\npriority = 1\n", "missing required field `principal`"),
        ("this is not toml\n", "is not TOML"),
    ],
)
def test_settings_name_the_wrong_key(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, GOOD + extra), Example)
    assert message in str(caught.value)
    assert "example.toml" in str(caught.value)


def test_settings_missing_file_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "absent.toml", Example)


def test_settings_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="missing required field `data_dir`"):
        load_settings(write(tmp_path, 'node_id = "a"\n'), Example)


def test_settings_too_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (MAX_SETTINGS_BYTES + 10))
    with pytest.raises(SettingsError, match="larger than"):
        load_settings(path, Example)


def test_settings_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(path, Example)
