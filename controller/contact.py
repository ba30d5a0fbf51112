"""Whether a broker may trust its copy of the policy: how old is the newest proof that it is true?

A proof is an echo: the broker sends a number, and the controller repeats it together with its epoch. The policy was
at that epoch after the number was sent, so the age of the proof counts from there. A frame that waited in a buffer,
or a process that was stopped for a while, proves nothing newer than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

# Numbers sent and not echoed; two are usual. The oldest are forgotten first, which only makes proofs rarer.
MAX_UNECHOED = 64


class Contact:
    """Keeps the age of the newest proof and tells when contact is won and lost."""

    def __init__(self, *, stale_after_s: float, on_contact: Callable[[bool, str], None]) -> None:
        """Begin without contact.

        Args:
            stale_after_s: contact is lost when the newest proof is older, in seconds.
            on_contact: told (True, "") and (False, reason).
        """
        self._stale_after_s = stale_after_s
        self._on_contact = on_contact
        self._sent: dict[int, float] = {}
        self._number = 0
        self._proved_at = float("-inf")
        self._here = False
        self._changed = trio.Event()
        self.problem = "not connected yet"

    @property
    def here(self) -> bool:
        """Whether there is contact."""
        return self._here

    @property
    def proved_at(self) -> float:
        """When the policy here was last proved to be true (`trio.current_time`); -inf: never."""
        return self._proved_at

    async def wait(self) -> None:
        """Wait until there is contact."""
        await trio.lowlevel.checkpoint()
        while not self._here:
            await self._changed.wait()

    def forget_numbers(self) -> None:
        """Begin a new connection: what was sent on the old one cannot be echoed."""
        self._sent.clear()

    def next_number(self) -> int:
        """Return a new number, about to be sent."""
        self._number += 1
        self._sent[self._number] = trio.current_time()
        if len(self._sent) > MAX_UNECHOED:
            del self._sent[next(iter(self._sent))]
        return self._number

    def take_echo(self, number: int) -> None:
        """Take an echo; one that is unknown or was taken before proves nothing."""
        sent_at = self._sent.get(number)
        if sent_at is not None:
            self._sent = {n: at for n, at in self._sent.items() if n > number}
            self.prove(sent_at)

    def prove(self, at: float) -> None:
        """Note that the policy here was true at `at` (`trio.current_time`)."""
        self._proved_at = max(self._proved_at, at)
        if not self._here and self._left_s() > 0:
            self._set(here=True, reason="")

    async def watch(self) -> None:
        """Lose contact when the proof grows too old; runs until cancelled."""
        self._on_contact(False, self.problem)  # noqa: FBT003 - the callback's two values are named in its docstring
        while True:
            if not self._here:
                await self.wait()
            elif (left := self._left_s()) > 0:
                await trio.sleep(left)
            else:
                reason = f"no sign of the controller for {self._stale_after_s:g} s ({self.problem})"
                self._set(here=False, reason=reason)

    def _left_s(self) -> float:
        return self._proved_at + self._stale_after_s - trio.current_time()

    def _set(self, *, here: bool, reason: str) -> None:
        self._here = here
        self._on_contact(here, reason)
        self._changed.set()
        self._changed = trio.Event()
