"""The hash that the negative filter stands on: keyed, so that nobody outside can choose its collisions.

Theory of operation: with a hash whose key is public, names that pass the filter are found offline and
every one of them costs a question to the controller; with a secret key they cannot be. CPython's
`hash` of a text is SipHash under a secret random key, new in every process, and cached in the text, so
it is used wherever the process has that key. It has none when PYTHONHASHSEED fixes it (or the build
uses another algorithm); then a keyed BLAKE2b does the same work, slower. Neither outlives the process,
so what is built with them is never stored or sent.
"""

from __future__ import annotations

import os
import secrets
import sys
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    FilterKey = tuple[str, int, tuple[str, ...]]
    Hasher = Callable[[FilterKey], int]

KEY_BYTES: Final = 16  # SipHash's own key length


def hash_is_keyed(environment: Mapping[str, str]) -> bool:
    """Whether `hash` of a text is keyed with a secret in this process.

    Args:
        environment: of the process, for PYTHONHASHSEED.
    """
    if not sys.hash_info.algorithm.startswith("siphash") or not sys.flags.hash_randomization:
        return False
    return sys.flags.ignore_environment == 1 or environment.get("PYTHONHASHSEED") in (
        None,
        "",
        "random",
    )


def blake2_hasher(secret: bytes) -> Hasher:
    """Return a hash of filter keys under `secret`, the same in every process that knows it."""

    def hasher(key: FilterKey) -> int:
        # repr is unambiguous for texts and integers: quotes inside a text are escaped
        digest = blake2b(repr(key).encode(errors="surrogatepass"), digest_size=8, key=secret)
        return int.from_bytes(digest.digest(), "big")

    return hasher


def process_hasher(environment: Mapping[str, str] = os.environ) -> Hasher:
    """Return the fastest keyed hash of this process.

    The environment is read here and not in the configuration because this is a fact about the running
    interpreter, and getting it wrong would silently remove the key.
    """
    return hash if hash_is_keyed(environment) else blake2_hasher(secrets.token_bytes(KEY_BYTES))
