"""The store's file and its key: what the `[store]` table of the configuration names."""

from __future__ import annotations

import binascii
import secrets
from typing import TYPE_CHECKING

from broker.store import Store, SyncMode
from certs.settings import SettingsError
from vault.files import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.config import StoreConfig
    from broker.faults import Faults

KEY_BYTES = 32  # AES-256


def open_store(
    config: StoreConfig | None, *, note_commit: Callable[[float, int], None], faults: Faults
) -> Store | None:
    """Open the store that a configuration names; None when it names none.

    Args:
        config: the `[store]` table.
        note_commit: told seconds and rows of every commit.
        faults: told of errors of those who are called back.

    Raises:
        SettingsError: the key file is not named, missing beside a store, or holds no key.
        VaultError: the key file cannot be read, or others can read it.
        StoreError: the store cannot be used; says what to do.
    """
    if config is None:
        return None
    return Store.open(
        config.path,
        key=_key_of(config),
        sync=SyncMode(config.sync),
        max_bytes=config.max_bytes,
        note_commit=note_commit,
        faults=faults,
    )


def _key_of(config: StoreConfig) -> bytes | None:
    """The key; None for a store that is not to be encrypted."""
    if not config.encrypt:
        return None
    if config.key is None:
        message = "`store.key` is missing: name a file for the key, or set `store.encrypt = false`"
        raise SettingsError(message)
    return _key(config.key, config.path)


def _key(path: Path, store: Path) -> bytes:
    """Read the key, or make one where there is no store it could belong to."""
    if not path.exists():
        if store.exists():
            message = f"`store.key`: `{path}` is missing, and `{store}` cannot be read without it: restore it from a backup"
            raise SettingsError(message)
        write_private(path, binascii.hexlify(secrets.token_bytes(KEY_BYTES)) + b"\n")
    try:
        key = binascii.unhexlify(read_private(path).strip())
    except binascii.Error as error:
        message = f"`store.key`: `{path}` does not hold {2 * KEY_BYTES} hexadecimal digits"
        raise SettingsError(message) from error
    if len(key) != KEY_BYTES:
        message = f"`store.key`: `{path}` does not hold {2 * KEY_BYTES} hexadecimal digits"
        raise SettingsError(message)
    return key
