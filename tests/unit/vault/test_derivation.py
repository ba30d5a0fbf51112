from __future__ import annotations

import pytest

from vault.derivation import KEY_BYTES, SALT_BYTES, TAG_BYTES, derive_key, keyed_tag

KEY, SALT = bytes(range(KEY_BYTES)), bytes(SALT_BYTES)


def test_derivation_gives_other_keys_for_other_purposes_salts_and_keys() -> None:
    keys = {
        derive_key(KEY, salt=SALT, purpose=b"one"),
        derive_key(KEY, salt=SALT, purpose=b"two"),
        derive_key(KEY, salt=b"s" * SALT_BYTES, purpose=b"one"),
        derive_key(KEY[::-1], salt=SALT, purpose=b"one"),
    }
    assert len(keys) == 4
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert derive_key(KEY, salt=SALT, purpose=b"one") in keys


@pytest.mark.parametrize(("key", "salt"), [(KEY[1:], SALT), (KEY, SALT[1:]), (b"", SALT)])
def test_derivation_refuses_other_lengths(key: bytes, salt: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        derive_key(key, salt=salt, purpose=b"one")


def test_tag_depends_on_key_and_name() -> None:
    tags = {keyed_tag(KEY, b"a"), keyed_tag(KEY, b"b"), keyed_tag(b"", b"a")}
    assert len(tags) == 3
    assert {len(tag) for tag in tags} == {TAG_BYTES}
