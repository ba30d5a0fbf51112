"""Keys made from a key, one for each purpose, and keyed tags of names.

*Rules of this file*: a purpose is a constant of the caller's code, never data. Two purposes, or two salts, give two
keys that say nothing of each other.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32  # AES-256
SALT_BYTES: Final = 32  # RFC 5869, section 3.1: as long as the hash
TAG_BYTES: Final = 16  # two of 2^48 names share a tag with a chance of 2^-33


def derive_key(key: bytes, *, salt: bytes, purpose: bytes) -> bytes:
    """Derive a key for one purpose (HKDF with SHA-256, RFC 5869).

    Args:
        key: KEY_BYTES of full entropy; a pass phrase is none, see `vault.keystore`.
        salt: SALT_BYTES, random; need not be secret.
        purpose: what the key is for.

    Returns:
        KEY_BYTES.

    Raises:
        ValueError: key or salt have another length.
    """
    if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
        message = f"a key has {KEY_BYTES} bytes and a salt {SALT_BYTES}"
        raise ValueError(message)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(key)


def keyed_tag(key: bytes, name: bytes) -> bytes:
    """Return what a name can be found by without being read (keyed BLAKE2b, RFC 7693).

    Args:
        key: up to 64 bytes; with an empty one everybody can make the tag.
        name: any bytes.

    Returns:
        TAG_BYTES.
    """
    return hashlib.blake2b(name, key=key, digest_size=TAG_BYTES).digest()
