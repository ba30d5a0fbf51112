"""What can go wrong with certificates, named by whose fault it is."""

from __future__ import annotations


class CertsError(Exception):
    """Base of every error of this room; the message says what to do where that is known."""


class CertificateInvalid(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """The peer's certificate must not be accepted.

    Attributes:
        reason: a short label for metrics and audit, one of a small fixed set.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class PrincipalRefused(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """No principal, or no single one, can be read from a certificate that is otherwise valid.

    Attributes:
        reasons: one line for every mapping rule, in order.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class RuleInvalid(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """A principal mapping rule of our own configuration is wrong."""


class CertificateUnusable(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """One of our own certificate files cannot be used."""


class KeyUnusable(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """One of our own private keys cannot be used: unreadable, exposed, locked or not the pair."""


class IssueRefused(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """Our own caller asks an authority for a certificate it must not issue."""


class DirectoryUnusable(CertsError):  # noqa: N818 - named by whose fault it is (style 11)
    """The directory of a PKI is incomplete, exposed, busy or not writable."""
