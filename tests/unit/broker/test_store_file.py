from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import StoreConfig
from broker.faults import Faults
from broker.store import Store, StoreError
from broker.store_file import open_store
from certs.settings import SettingsError
from vault.errors import VaultError


def opened(config: StoreConfig | None) -> Store | None:
    return open_store(config, note_commit=lambda _seconds, _rows: None, faults=Faults())


def open_and_close(config: StoreConfig) -> None:
    store = opened(config)
    assert store is not None
    store.close()


def config_in(folder: Path) -> StoreConfig:
    return StoreConfig(path=folder / "messages.db", key=folder / "messages.key")


def test_without_a_table_there_is_no_store() -> None:
    assert opened(None) is None


def test_first_start_makes_a_key_nobody_else_can_read(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    open_and_close(config)
    assert config.key is not None
    assert config.key.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(config.key.read_text())) == 32
    before = config.key.read_bytes()
    open_and_close(config)
    assert config.key.read_bytes() == before, "made once"


def test_two_stores_have_two_keys(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        open_and_close(config_in(folder))
        keys.append((folder / "messages.key").read_bytes())
    assert keys[0] != keys[1]


def test_key_that_is_missing_beside_a_store_is_never_made_anew(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    open_and_close(config)
    assert config.key is not None
    config.key.unlink()
    with pytest.raises(SettingsError, match="backup"):
        opened(config)
    assert not config.key.exists()


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "abc", "é" * 32])
def test_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    config = config_in(tmp_path)
    assert config.key is not None
    config.key.write_text(text)
    config.key.chmod(0o600)
    with pytest.raises(SettingsError, match="64 hexadecimal digits"):
        opened(config)
    assert not config.path.exists()


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    assert config.key is not None
    config.key.write_text("ab" * 32)
    config.key.chmod(0o644)
    with pytest.raises(VaultError):
        opened(config)


def test_store_of_another_key_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    open_and_close(config)
    assert config.key is not None
    config.key.write_text("ab" * 32)
    with pytest.raises(StoreError):
        opened(config)


def test_encryption_without_a_key_never_becomes_none(tmp_path: Path) -> None:
    config = StoreConfig(path=tmp_path / "messages.db")
    with pytest.raises(SettingsError, match=r"store\.key"):
        opened(config)
    assert not config.path.exists()


def test_store_is_not_encrypted_when_told_so_and_that_is_remembered(tmp_path: Path) -> None:
    plain = StoreConfig(path=tmp_path / "messages.db", encrypt=False)
    open_and_close(plain)
    open_and_close(plain)
    with pytest.raises(StoreError):
        opened(StoreConfig(path=plain.path, key=_new_key(tmp_path)))


def _new_key(folder: Path) -> Path:
    key = folder / "messages.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    return key
