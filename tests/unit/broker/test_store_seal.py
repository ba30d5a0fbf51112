from __future__ import annotations

import pytest

from broker.store_seal import Checked, Encrypted, RowBroken, Seal, key_check

KEY, SALT = b"k" * 32, b"s" * 32


def encrypted(
    number: int = 1, salts: dict[int, bytes] | None = None, key: bytes = KEY
) -> Encrypted:
    return Encrypted(key, file_salt=SALT, number=number, salts=salts or {})


SEALS = pytest.mark.parametrize("seal", [Checked(), encrypted()], ids=["checked", "encrypted"])


@SEALS
def test_seal_opens_what_it_sealed(seal: Seal) -> None:
    for body in (b"", b"body", bytes(100_000)):
        assert seal.open(seal.seal(body, b"row 1"), b"row 1") == body


@SEALS
def test_seal_finds_every_flipped_bit_cut_and_move(seal: Seal) -> None:
    sealed = seal.seal(b"body", b"row 1")
    for position in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[position] ^= 1 << bit
            with pytest.raises(RowBroken):
                seal.open(bytes(altered), b"row 1")
        with pytest.raises(RowBroken):
            seal.open(sealed[:position], b"row 1")
    with pytest.raises(RowBroken):
        seal.open(sealed, b"row 2")


@SEALS
def test_seal_tags_names_alike_and_apart(seal: Seal) -> None:
    assert seal.tag("a/b") == seal.tag("a/b")
    assert len({seal.tag(name) for name in ("a", "b", "a/b", "é")}) == 4


def test_encrypted_opens_what_earlier_lives_sealed() -> None:
    first = encrypted(1)
    sealed = first.seal(b"body", b"row")
    second = encrypted(2, {1: first.salt})
    assert second.open(sealed, b"row") == b"body"
    assert second.open(second.seal(b"new", b"row"), b"row") == b"new"
    assert second.seen == {1, 2}
    with pytest.raises(RowBroken):
        encrypted(3).open(sealed, b"row")


def test_encrypted_tags_need_the_key() -> None:
    assert encrypted(1).tag("a") == encrypted(2).tag("a")
    assert encrypted().tag("a") != encrypted(key=b"o" * 32).tag("a")
    assert encrypted().tag("a") != Checked().tag("a")


def test_encrypted_hides_the_body() -> None:
    assert b"secret" not in encrypted().seal(b"secret", b"row")


def test_key_check_tells_keys_and_files_apart() -> None:
    assert len({key_check(KEY, SALT), key_check(b"o" * 32, SALT), key_check(KEY, b"t" * 32)}) == 3
    assert key_check(KEY, SALT) == key_check(KEY, SALT)
