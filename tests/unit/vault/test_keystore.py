from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from vault.errors import KeyFileInvalid, KeyFileLocked, PassphraseRefused, VaultError
from vault.keystore import (
    MAX_ITERATIONS,
    MAX_LANES,
    MAX_MEMORY_KIB,
    MAX_PASSPHRASE_BYTES,
    MAX_SEALED_BYTES,
    MAX_SECRET_BYTES,
    MIN_ITERATIONS,
    MIN_MEMORY_KIB,
    QUICK,
    STRONG,
    Cost,
    open_key,
    seal_key,
)

SECRET = b"the bytes of a key"
PASS = b"correct horse battery"


@pytest.fixture(scope="module")
def blob() -> bytes:
    return seal_key(SECRET, name="root", passphrase=PASS, cost=QUICK)


def test_keystore_opens_what_it_sealed(blob: bytes) -> None:
    assert open_key(blob, name="root", passphrase=PASS) == SECRET


def test_keystore_default_cost_opens_too() -> None:
    strong = seal_key(SECRET, name="root", passphrase=PASS)
    assert json.loads(strong)["header"]["cost"]["memory_kib"] == STRONG.memory_kib == 65_536
    assert open_key(strong, name="root", passphrase=PASS) == SECRET


def test_keystore_file_shows_the_name_and_hides_the_secret(blob: bytes) -> None:
    header = json.loads(blob)["header"]
    assert header["name"] == "root"
    assert header["format"] == "stockade-sealed-key-1"
    assert SECRET not in blob
    assert PASS not in blob


def test_keystore_never_repeats_salt_or_nonce(blob: bytes) -> None:
    other = json.loads(seal_key(SECRET, name="root", passphrase=PASS, cost=QUICK))
    first = json.loads(blob)
    assert first["header"]["salt"] != other["header"]["salt"]
    assert first["header"]["nonce"] != other["header"]["nonce"]
    assert first["sealed"] != other["sealed"]


def test_keystore_refuses_the_wrong_passphrase(blob: bytes) -> None:
    with pytest.raises(KeyFileLocked, match="does not open"):
        open_key(blob, name="root", passphrase=PASS + b"!")


def test_keystore_refuses_a_renamed_key(blob: bytes) -> None:
    with pytest.raises(KeyFileLocked, match="is called `root`, not `issuing`"):
        open_key(blob, name="issuing", passphrase=PASS)
    with pytest.raises(KeyFileLocked, match="does not open"):
        open_key(blob.replace(b'"root"', b'"issuing"'), name="issuing", passphrase=PASS)


def test_keystore_refuses_a_changed_but_allowed_derivation(blob: bytes) -> None:
    weaker = blob.replace(b'"iterations":2', b'"iterations":3')
    assert weaker != blob
    with pytest.raises(KeyFileLocked):
        open_key(weaker, name="root", passphrase=PASS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory_kib", 8),
        ("memory_kib", MIN_MEMORY_KIB - 1),
        ("memory_kib", MAX_MEMORY_KIB + 1),
        ("memory_kib", 1 << 40),
        ("iterations", MIN_ITERATIONS - 1),
        ("iterations", MAX_ITERATIONS + 1),
        ("lanes", 0),
        ("lanes", -1),
        ("lanes", MAX_LANES + 1),
    ],
)
def test_keystore_bounds_the_derivation_before_it_runs(blob: bytes, key: str, value: int) -> None:
    document = json.loads(blob)
    document["header"]["cost"][key] = value
    with pytest.raises(KeyFileInvalid, match=f"`{key}` is {value}"):
        open_key(json.dumps(document).encode(), name="root", passphrase=PASS)


def test_keystore_does_not_seal_with_a_cost_it_would_not_open() -> None:
    with pytest.raises(KeyFileInvalid, match="memory_kib"):
        seal_key(
            SECRET,
            name="root",
            passphrase=PASS,
            cost=Cost(memory_kib=1024, iterations=2, lanes=1),
        )


@pytest.mark.parametrize(
    "change",
    [
        {"format": "stockade-sealed-key-2"},
        {"derivation": "scrypt"},
        {"cipher": "aes-256-cbc"},
        {"salt": "AAAA"},
        {"nonce": "AAAA"},
        {"nonce": 5},
        {"extra": 1},
    ],
)
def test_keystore_refuses_headers_it_does_not_know(blob: bytes, change: dict[str, object]) -> None:
    document = json.loads(blob)
    document["header"] |= change
    with pytest.raises(KeyFileInvalid):
        open_key(json.dumps(document).encode(), name="root", passphrase=PASS)


@pytest.mark.parametrize("sealed", ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAA"])
def test_keystore_refuses_a_cut_secret(blob: bytes, sealed: str) -> None:
    document = json.loads(blob) | {"sealed": sealed}
    with pytest.raises(KeyFileLocked):
        open_key(json.dumps(document).encode(), name="root", passphrase=PASS)


def test_keystore_refuses_a_file_that_is_too_long(blob: bytes) -> None:
    with pytest.raises(KeyFileInvalid, match="at most"):
        open_key(blob + b" " * MAX_SEALED_BYTES, name="root", passphrase=PASS)


@pytest.mark.parametrize("passphrase", [b"", b"short", b"x" * (MAX_PASSPHRASE_BYTES + 1)])
def test_keystore_refuses_passphrases_out_of_bounds(blob: bytes, passphrase: bytes) -> None:
    with pytest.raises(PassphraseRefused):
        seal_key(SECRET, name="root", passphrase=passphrase, cost=QUICK)
    with pytest.raises(PassphraseRefused):
        open_key(blob, name="root", passphrase=passphrase)


@pytest.mark.parametrize(
    ("secret", "name"),
    [
        (b"", "root"),
        (b"x" * (MAX_SECRET_BYTES + 1), "root"),
        (b"x", ""),
        (b"x", "n" * 256),
        (b"x", "\ud800"),
    ],
)
def test_keystore_refuses_secrets_and_names_out_of_bounds(secret: bytes, name: str) -> None:
    with pytest.raises(PassphraseRefused):
        seal_key(secret, name=name, passphrase=PASS, cost=QUICK)


def test_keystore_seals_the_largest_secret_within_the_file_bound() -> None:
    sealed = seal_key(b"x" * MAX_SECRET_BYTES, name="n" * 255, passphrase=PASS, cost=QUICK)
    assert len(sealed) <= MAX_SEALED_BYTES
    assert len(open_key(sealed, name="n" * 255, passphrase=PASS)) == MAX_SECRET_BYTES


@given(st.binary(max_size=200))
def test_keystore_garbage_is_a_vault_error_only(garbage: bytes) -> None:
    with pytest.raises(VaultError):
        open_key(garbage, name="root", passphrase=PASS)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_keystore_any_changed_bit_is_refused(blob: bytes, data: st.DataObject) -> None:
    document = msgspec.json.decode(blob, type=dict[str, object])
    sealed = bytearray(msgspec.convert(document["sealed"], bytes))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    document["sealed"] = bytes(sealed)
    with pytest.raises(KeyFileLocked):
        open_key(msgspec.json.encode(document), name="root", passphrase=PASS)
