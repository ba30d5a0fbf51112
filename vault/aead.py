"""Many small values sealed with AES-256-GCM, safe for as many as will ever be written.

*Rules of this file.*

- A nonce is never used twice under a key: that would give away both texts and the key that authenticates
  (NIST SP 800-38D, section 8). Nobody can hand a `Sealer` its key: it draws a salt of its own, and so has a key
  nobody sealed with before.
- Whoever opens says what the value is (`associated`): one that was moved to another place does not open.

*Theory of operation.* Random 96-bit nonces would bound a key to 2^32 values (SP 800-38D, section 8.3): a busy store
writes those in some weeks. So nonces are made by the deterministic construction (section 8.2.1): a number and a
counter. A counter needs a memory, and one that is restored from a backup forgets what it counted. Therefore nothing
is remembered: each `Sealer` begins with a new random salt, HKDF makes a new key of it, and the counter starts at 0. Its owner
keeps number and salt, beside the values, so that an `Opener` finds the key of each. An older copy of the store that
is brought back gets a new salt, hence a new key, as every start does.

A sealed value is `number (4) | counter (8) | text | tag (16)`; the first twelve bytes are the nonce.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

from vault.derivation import SALT_BYTES, derive_key
from vault.errors import VaultError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER_BYTES: Final = 4
_COUNTER_BYTES: Final = 8
_NONCE_BYTES: Final = _NUMBER_BYTES + _COUNTER_BYTES  # SP 800-38D: the 96-bit case
_TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = _NONCE_BYTES + _TAG_BYTES
MAX_NUMBER: Final = (1 << 8 * _NUMBER_BYTES) - 1


class SealBroken(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """The value was altered, moved, or sealed under another key."""


class Sealer:
    """Seals values under a key that no other sealer has. Not for several threads at once.

    Attributes:
        number: which of its owner's sealers; the first bytes of everything it seals.
        salt: what an `Opener` needs beside the number; not secret.
    """

    def __init__(self, key: bytes, *, purpose: bytes, number: int) -> None:
        """Draw a salt and derive a key.

        Args:
            key: KEY_BYTES, the owner's.
            purpose: what the values are.
            number: 0 to MAX_NUMBER; may come again once no value carries it any more.
        """
        self.number = number
        self.salt = os.urandom(SALT_BYTES)
        self._prefix = number.to_bytes(_NUMBER_BYTES)
        self._cipher = AESGCM(derive_key(key, salt=self.salt, purpose=purpose))
        self._counter = 0

    @override
    def __repr__(self) -> str:
        return f"<Sealer {self.number}, {self._counter} sealed>"

    def seal(self, text: bytes, associated: bytes) -> bytes:
        """Seal a value.

        Args:
            text: the value.
            associated: where it belongs; authenticated, not stored.

        Returns:
            OVERHEAD_BYTES more than the text.

        Raises:
            OverflowError: after 2^64 values; nothing is sealed.
        """
        # INVARIANT: the counter moves before the cipher runs, so a nonce that may have been used is not used again.
        counter, self._counter = self._counter, self._counter + 1
        nonce = self._prefix + counter.to_bytes(_COUNTER_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, associated)


class Opener:
    """Opens what sealers of one owner sealed, each known by number and salt."""

    def __init__(self, key: bytes, *, purpose: bytes, salts: Mapping[int, bytes]) -> None:
        """Derive the keys.

        Args:
            key: the owner's.
            purpose: as it was for the sealers.
            salts: of each number.
        """
        self._ciphers = {
            number.to_bytes(_NUMBER_BYTES): AESGCM(derive_key(key, salt=salt, purpose=purpose))
            for number, salt in salts.items()
        }

    @override
    def __repr__(self) -> str:
        return f"<Opener of {len(self._ciphers)} sealers>"

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Verify and open a value.

        Raises:
            SealBroken: it is not what was sealed for this place.
        """
        cipher = self._ciphers.get(sealed[:_NUMBER_BYTES])
        if cipher is None or len(sealed) < OVERHEAD_BYTES:
            raise SealBroken("a sealed value is cut off, or names a key that is not known")
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
        except InvalidTag as error:
            raise SealBroken("a sealed value was altered or moved") from error


def number_of(sealed: bytes) -> int:
    """Which sealer sealed it, as far as the value itself says."""
    return int.from_bytes(sealed[:_NUMBER_BYTES])
