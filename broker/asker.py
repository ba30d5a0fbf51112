"""Whoever asks the guard: a session or an HTTP connection, as far as the policy is concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from acl.model import Principal
    from cache.connection import ConnectionCache


class Asker(Protocol):
    """A connection with a principal."""

    @property
    def principal(self) -> Principal:
        """Who it is."""
        ...

    @property
    def cache(self) -> ConnectionCache:
        """Its L1."""
        ...

    @property
    def peer(self) -> str:
        """Its address, for the audit log."""
        ...
