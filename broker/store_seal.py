"""How the body of a row is protected: sealed with AES-256-GCM, or only guarded by a checksum.

*Rules of this file*: either way a row opens only in its own place (table and keys), so a flipped bit in a key is found
like one in a body. What names something a client chose (topic, filter) is a tag in a key and readable only in a body.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from vault.aead import Opener, SealBroken, Sealer, number_of
from vault.derivation import derive_key, keyed_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS_PURPOSE = b"stockade store: rows"
_TAGS_PURPOSE = b"stockade store: names in keys"
_CHECK_PURPOSE = b"stockade store: is it the right key"
_CRC_BYTES = 4


class RowBroken(Exception):  # noqa: N818 - named by whose fault it is (style 11)
    """A row is not what was written in this place."""


class Seal(Protocol):
    """Protects bodies of rows."""

    def seal(self, body: bytes, place: bytes) -> bytes:
        """Protect a body; `place` is not stored."""
        ...

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Verify and return a body.

        Raises:
            RowBroken: it is not what was written in this place.
        """
        ...

    def tag(self, name: str) -> bytes:
        """What stands for a name in a key."""
        ...


class Checked(Seal):
    """A CRC-32: finds what a disk spoils, hides nothing, stops nobody."""

    @override
    def seal(self, body: bytes, place: bytes) -> bytes:
        return body + _checksum(body, place)

    @override
    def open(self, sealed: bytes, place: bytes) -> bytes:
        body, found = sealed[:-_CRC_BYTES], sealed[-_CRC_BYTES:]
        if found != _checksum(body, place):
            raise RowBroken("a checksum is wrong")
        return body

    @override
    def tag(self, name: str) -> bytes:
        return keyed_tag(b"", name.encode())


class Encrypted(Seal):
    """AES-256-GCM under a key of this life of the process, see `vault.aead`.

    Attributes:
        number: of this life.
        salt: of this life.
        seen: the lives whose rows were opened.
    """

    def __init__(
        self, key: bytes, *, file_salt: bytes, number: int, salts: Mapping[int, bytes]
    ) -> None:
        """Begin a life.

        Args:
            key: the store's.
            file_salt: of this file, the same for ever.
            number: of this life, in no row yet.
            salts: of the lives before, by number.
        """
        self._sealer = Sealer(key, purpose=_ROWS_PURPOSE, number=number)
        self.number, self.salt = number, self._sealer.salt
        self._opener = Opener(
            key, purpose=_ROWS_PURPOSE, salts={**salts, number: self._sealer.salt}
        )
        self._tag_key = derive_key(key, salt=file_salt, purpose=_TAGS_PURPOSE)
        self.seen: set[int] = set()

    @override
    def seal(self, body: bytes, place: bytes) -> bytes:
        return self._sealer.seal(body, place)

    @override
    def open(self, sealed: bytes, place: bytes) -> bytes:
        try:
            body = self._opener.open(sealed, place)
        except SealBroken as error:
            raise RowBroken(str(error)) from error
        self.seen.add(number_of(sealed))
        return body

    @override
    def tag(self, name: str) -> bytes:
        return keyed_tag(self._tag_key, name.encode())


def key_check(key: bytes, file_salt: bytes) -> bytes:
    """What a file holds to tell a wrong key from damage; says nothing of the key."""
    return keyed_tag(derive_key(key, salt=file_salt, purpose=_CHECK_PURPOSE), b"")


def _checksum(body: bytes, place: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(place)).to_bytes(_CRC_BYTES)
