"""The state machine the log drives, and who is told when the policy changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.commands import Result
    from controller.state import PolicyChange, State


class Replica:
    """Applies committed commands to the state and reports changes of policy.

    Listeners run inside the tick that applies the command, before whoever submitted it gets the answer. They only
    queue; one that raised would stop this member (fail-stop), so it must not.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._listeners: list[Callable[[PolicyChange], None]] = []

    def on_change(self, listener: Callable[[PolicyChange], None]) -> None:
        """Call `listener` for every change of policy from now on."""
        self._listeners.append(listener)

    def apply(self, command: bytes) -> Result:
        """Apply one command; see `State.apply`."""
        result, change = self._state.apply(command)
        if change is not None:
            for listener in self._listeners:
                listener(change)
        return result

    def dump(self) -> bytes:
        """Return the whole state."""
        return self._state.dump()

    def restore(self, image: bytes) -> None:
        """Replace the state by one that `dump` returned."""
        self._state.restore(image)
