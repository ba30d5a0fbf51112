"""Private keys sealed under a pass phrase: what lies on disk is useless without it.

*Rules of this file*: the header (format, name, derivation, salt, nonce) is authenticated with the
secret, so a renamed file, a weakened derivation or a changed byte does not open. Derivation
parameters come from a file an attacker may have written, therefore they are bounded before a byte
of memory is spent on them.

*Theory of operation*: Argon2id (RFC 9106) turns the pass phrase and a fresh salt into a key that is
used once: AES-256-GCM with a fresh 96-bit nonce seals the secret. The file is one JSON object, so an
operator can see whose key it is and how it is protected.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vault.errors import KeyFileInvalid, KeyFileLocked, PassphraseRefused

MIN_MEMORY_KIB: Final = 19_456  # OWASP's least for Argon2id (19 MiB with two passes)
MAX_MEMORY_KIB: Final = 1 << 20  # 1 GiB: a hostile file cannot make us swap
MIN_ITERATIONS: Final = 2  # with 19 MiB, OWASP
MAX_ITERATIONS: Final = 16
MAX_LANES: Final = 16
MIN_PASSPHRASE_BYTES: Final = 8  # shorter ones fall to guessing whatever the derivation costs
MAX_PASSPHRASE_BYTES: Final = 1_024
MAX_SECRET_BYTES: Final = 16_384  # an RSA-8192 key in PKCS#8 is below 5 KiB
MAX_SEALED_BYTES: Final = 32_768  # MAX_SECRET_BYTES in base64, and the header
MAX_NAME_BYTES: Final = 255
_SALT_BYTES: Final = 16  # RFC 9106, section 3.1
_NONCE_BYTES: Final = 12  # NIST SP 800-38D: the 96-bit case
_KEY_BYTES: Final = 32


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one guess of the pass phrase costs.

    Attributes:
        memory_kib: memory of one derivation.
        iterations: passes over that memory.
        lanes: parallel lanes.
    """

    memory_kib: int
    iterations: int
    lanes: int


STRONG: Final = Cost(
    memory_kib=65_536, iterations=3, lanes=4
)  # RFC 9106, second recommended option
QUICK: Final = Cost(memory_kib=19_456, iterations=2, lanes=1)  # enough for a random pass phrase


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["stockade-sealed-key-1"] = "stockade-sealed-key-1"
    name: str
    derivation: Literal["argon2id"] = "argon2id"
    cost: Cost
    salt: bytes
    cipher: Literal["aes-256-gcm"] = "aes-256-gcm"
    nonce: bytes


class _SealedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    header: _Header
    sealed: bytes


def seal_key(der: bytes, *, name: str, passphrase: bytes, cost: Cost = STRONG) -> bytes:
    """Seal a secret under a pass phrase.

    Blocks for the derivation (`STRONG`: 0.1 to 0.4 s of CPU): call it in a thread from Trio.

    Args:
        der: the secret, usually a PKCS#8 key; 1 to `MAX_SECRET_BYTES`.
        name: what the secret is called; the file only opens under the same name.
        passphrase: `MIN_PASSPHRASE_BYTES` to `MAX_PASSPHRASE_BYTES` bytes.
        cost: derivation parameters, within the bounds of this file.

    Returns:
        The content of the key file.

    Raises:
        PassphraseRefused: pass phrase, name or secret are empty, too short or too long.
        KeyFileInvalid: `cost` is out of bounds.
    """
    _verify_inputs(name, passphrase)
    if not 1 <= len(der) <= MAX_SECRET_BYTES:
        raise PassphraseRefused(
            f"a sealed secret has 1 to {MAX_SECRET_BYTES} bytes, not {len(der)}"
        )
    header = _Header(
        name=name, cost=cost, salt=os.urandom(_SALT_BYTES), nonce=os.urandom(_NONCE_BYTES)
    )
    cipher = AESGCM(_derive(header, passphrase))
    sealed = cipher.encrypt(header.nonce, der, msgspec.json.encode(header))
    return msgspec.json.encode(_SealedKey(header=header, sealed=sealed)) + b"\n"


def open_key(blob: bytes, *, name: str, passphrase: bytes) -> bytes:
    """Open what `seal_key` returned.

    Blocks as long as the sealing took: call it in a thread from Trio.

    Args:
        blob: the content of the key file.
        name: the name it was sealed under.
        passphrase: the pass phrase it was sealed under.

    Returns:
        The secret.

    Raises:
        KeyFileInvalid: `blob` is not a sealed key, or its derivation is out of bounds.
        KeyFileLocked: wrong pass phrase, wrong name, or the file was altered.
        PassphraseRefused: `passphrase` or `name` cannot have been used for sealing.
    """
    _verify_inputs(name, passphrase)
    document = _parse(blob)
    header = document.header
    if header.name != name:
        raise KeyFileLocked(
            f"this key file is called `{header.name}`, not `{name}`: restore the right file"
        )
    key = _derive(header, passphrase)
    try:
        return AESGCM(key).decrypt(header.nonce, document.sealed, msgspec.json.encode(header))
    except InvalidTag as error:
        raise KeyFileLocked(
            f"key `{name}` does not open: the pass phrase is wrong or the file was altered"
        ) from error


def _parse(blob: bytes) -> _SealedKey:
    if len(blob) > MAX_SEALED_BYTES:
        raise KeyFileInvalid(f"a sealed key has at most {MAX_SEALED_BYTES} bytes, not {len(blob)}")
    try:
        document = msgspec.json.decode(blob, type=_SealedKey)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileInvalid("this is not a sealed key") from error
    header = document.header
    if len(header.salt) != _SALT_BYTES or len(header.nonce) != _NONCE_BYTES:
        raise KeyFileInvalid("this is not a sealed key: salt or nonce have the wrong length")
    return document


def _derive(header: _Header, passphrase: bytes) -> bytes:
    cost = header.cost
    _verify_cost(cost)
    return Argon2id(
        salt=header.salt,
        length=_KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    ).derive(passphrase)


def _verify_cost(cost: Cost) -> None:
    for what, value, least, most in (
        ("memory_kib", cost.memory_kib, MIN_MEMORY_KIB, MAX_MEMORY_KIB),
        ("iterations", cost.iterations, MIN_ITERATIONS, MAX_ITERATIONS),
        ("lanes", cost.lanes, 1, MAX_LANES),
    ):
        if not least <= value <= most:
            raise KeyFileInvalid(
                f"key derivation: `{what}` is {value}, allowed are {least} to {most}"
            )


def _verify_inputs(name: str, passphrase: bytes) -> None:
    # printable also means encodable: half a surrogate pair is not
    if not (name.isprintable() and 1 <= len(name.encode()) <= MAX_NAME_BYTES):
        raise PassphraseRefused(f"the name of a key has 1 to {MAX_NAME_BYTES} printable bytes")
    if not MIN_PASSPHRASE_BYTES <= len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise PassphraseRefused(
            f"a pass phrase has {MIN_PASSPHRASE_BYTES} to {MAX_PASSPHRASE_BYTES} bytes"
        )
