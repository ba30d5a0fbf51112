"""What can go wrong between a connection and the authority."""

from __future__ import annotations


class CacheError(Exception):
    """Base of the room."""


class AuthorityUnavailable(CacheError):  # noqa: N818 - says what is wrong, as in every room
    """The authority cannot be asked, or gave no usable answer; whoever asked is denied."""


class LimitsInvalid(CacheError):  # noqa: N818 - says what is wrong, as in every room
    """A bound is not positive, or two bounds contradict each other; a mistake in the configuration."""


class PrincipalMismatch(CacheError):  # noqa: N818 - says what is wrong, as in every room
    """A question about one principal was put through the connection of another; a bug of the caller."""
