"""Policy updates as a broker takes them over, put together from frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.errors import RemoteProtocolError

if TYPE_CHECKING:
    from controller.wire import Policy

# As many grants as there can be rules (`controller.state.MAX_RULES`).
MAX_GRANTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUpdate:
    """A new policy epoch.

    Attributes:
        epoch: the epoch; without `reset` always one more than the update before.
        reset: `grants` is the whole list; forget what was before.
        grants: (principal pattern, resource pattern) pairs of allow rules; without `reset` the new ones only.
    """

    epoch: int
    reset: bool
    grants: tuple[tuple[str, str], ...]


class PolicyAssembler:
    """Collects the parts of one update after the other on one connection; the first must be a reset."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._parts: list[Policy] = []

    def add(self, part: Policy) -> PolicyUpdate | None:
        """Take one frame.

        Returns:
            The update, when this was its last part.

        Raises:
            RemoteProtocolError: the part does not follow what came before.
        """
        if self._parts:
            first = self._parts[0]
            if (part.epoch, part.reset) != (first.epoch, first.reset):
                raise RemoteProtocolError("a policy was interrupted by another")
        elif self._epoch is None:
            if not part.reset:
                raise RemoteProtocolError("the controller did not send its whole policy first")
        elif part.reset or part.epoch != self._epoch + 1:
            raise RemoteProtocolError(f"policy {part.epoch} does not follow {self._epoch}")
        self._parts.append(part)
        if sum(len(each.grants) for each in self._parts) > MAX_GRANTS:
            raise RemoteProtocolError(f"a policy of more than {MAX_GRANTS} grants")
        if part.more:
            return None
        grants = tuple(grant for each in self._parts for grant in each.grants)
        self._parts.clear()
        self._epoch = part.epoch
        return PolicyUpdate(epoch=part.epoch, reset=part.reset, grants=grants)
