"""The controller as the caches see it: the link, with the time of every batch of questions measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acl.model import AccessRequest
    from cache.authority import Answered


class Asked(Protocol):
    """Whoever answers questions: `controller.link.ControllerLink`."""

    async def ask(self, requests: Sequence[AccessRequest]) -> Answered:
        """Decide every request by one snapshot of the rules."""
        ...


class MeasuredAuthority:
    """Passes questions on and says how long each batch took."""

    def __init__(self, note: Callable[[float], None]) -> None:
        """Start without a link; `attach` gives it one.

        Args:
            note: told the seconds of every batch, answered or failed.
        """
        self._note = note
        self._link: Asked | None = None

    def attach(self, link: Asked) -> None:
        """Use `link` from now on: the link needs the guard's callbacks, which need the caches first."""
        self._link = link

    async def ask(self, requests: Sequence[AccessRequest]) -> Answered:
        """Ask the link.

        Raises:
            RuntimeError: there is no link yet; the caches turn any exception into a denial.
        """
        if self._link is None:
            message = "no link to the controller yet"
            raise RuntimeError(message)
        started = trio.current_time()
        try:
            return await self._link.ask(requests)
        finally:
            self._note(trio.current_time() - started)
