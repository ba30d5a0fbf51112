"""Symmetric cryptography and the key store: the one door to AEAD ciphers and key derivation.

Knows: sealing bytes under a pass phrase or a key, key files, their modes and atomic replacement.
Never: holds a default secret, writes a key in the clear unless the caller says `Unsafe` by name.
Doors: `cryptography` (AEAD, KDF).
"""

from __future__ import annotations
