from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from vault.aead import MAX_NUMBER, OVERHEAD_BYTES, Opener, SealBroken, Sealer, number_of
from vault.errors import VaultError

KEY, OTHER = b"k" * 32, b"o" * 32
PURPOSE = b"test values"


def opener(*sealers: Sealer, key: bytes = KEY, purpose: bytes = PURPOSE) -> Opener:
    return Opener(key, purpose=purpose, salts={each.number: each.salt for each in sealers})


@given(text=st.binary(max_size=200), associated=st.binary(max_size=40))
def test_aead_opens_what_it_sealed(text: bytes, associated: bytes) -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=7)
    sealed = sealer.seal(text, associated)
    assert len(sealed) == len(text) + OVERHEAD_BYTES
    assert number_of(sealed) == 7
    assert opener(sealer).open(sealed, associated) == text


def test_aead_refuses_every_flipped_bit_and_every_cut() -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=1)
    sealed = sealer.seal(b"text", b"row 1")
    reader = opener(sealer)
    for position in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[position] ^= 1 << bit
            with pytest.raises(SealBroken):
                reader.open(bytes(altered), b"row 1")
        with pytest.raises(SealBroken):
            reader.open(sealed[:position], b"row 1")


def test_aead_refuses_a_value_in_another_place() -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=1)
    with pytest.raises(SealBroken, match="altered or moved"):
        opener(sealer).open(sealer.seal(b"text", b"row 1"), b"row 2")


def test_aead_refuses_another_key_or_purpose() -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=1)
    sealed = sealer.seal(b"text", b"")
    with pytest.raises(SealBroken):
        opener(sealer, key=OTHER).open(sealed, b"")
    with pytest.raises(SealBroken):
        opener(sealer, purpose=b"else").open(sealed, b"")


def test_aead_errors_are_the_rooms() -> None:
    with pytest.raises(VaultError):
        opener().open(b"", b"")


def test_sealer_never_uses_a_nonce_twice() -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=MAX_NUMBER)
    assert len({sealer.seal(b"", b"")[:12] for _ in range(1_000)}) == 1_000


def test_sealers_of_one_number_have_keys_of_their_own() -> None:
    """An older copy of a store that is brought back must not continue under the old key."""
    one, two = (Sealer(KEY, purpose=PURPOSE, number=1) for _ in range(2))
    assert one.salt != two.salt
    first, second = one.seal(b"same", b""), two.seal(b"same", b"")
    assert first[:12] == second[:12]
    assert first != second
    with pytest.raises(SealBroken):
        opener(one).open(second, b"")


def test_opener_knows_several_sealers_apart() -> None:
    one, two = (Sealer(KEY, purpose=PURPOSE, number=number) for number in (1, 2))
    reader = opener(one, two)
    assert reader.open(one.seal(b"a", b""), b"") == b"a"
    assert reader.open(two.seal(b"b", b""), b"") == b"b"


def test_aead_shows_no_key() -> None:
    sealer = Sealer(KEY, purpose=PURPOSE, number=1)
    assert repr(sealer) == "<Sealer 1, 0 sealed>"
    assert repr(opener(sealer)) == "<Opener of 1 sealers>"
