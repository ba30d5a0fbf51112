"""What can go wrong with a secret at rest, named by whose fault it is."""

from __future__ import annotations


class VaultError(Exception):
    """Base of every error of this room; the message says what to do and holds no secret."""


class FileUnusable(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """The operating system refuses to read or write a file."""


class FileExposed(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """A private file could be read or replaced by other users of this machine."""


class KeyFileInvalid(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """The bytes are not a sealed key, or ask for a derivation outside the bounds."""


class KeyFileLocked(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """The pass phrase does not open this key, or the file was altered or renamed."""


class PassphraseRefused(VaultError):  # noqa: N818 - named by whose fault it is (style 11)
    """Our own caller offers a pass phrase, name or secret that must not be used for sealing."""
