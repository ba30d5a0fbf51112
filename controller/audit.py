"""Where the controller reports what must be provable later; the log itself is another room's.

The composition root hands in a sink. Without one, events go to the structured log, so that none is ever dropped
because nobody wired it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Mapping


class AuditSink(Protocol):
    """Takes one event; never raises, never waits."""

    def record(
        self,
        *,
        kind: str,
        principal: str,
        action: str,
        resource: str,
        outcome: str,
        reason: str,
        details: Mapping[str, str],
    ) -> None:
        """Record one event.

        Args:
            kind: e.g. `acl.rule_added`, `authorization.denied`.
            principal: who did it.
            action: the operation's name, lower case.
            resource: the resource's text.
            outcome: `allow`, `deny` or `error`.
            reason: why.
            details: further fields; no secrets.
        """
        ...


class AuditTrail(AuditSink, Protocol):
    """A sink that the daemon also runs and closes."""

    async def run(self) -> None:
        """Do what the sink must do regularly, until cancelled."""
        ...

    def close(self) -> None:
        """Write what is held back."""
        ...


class LogTrail:
    """Events as lines of the structured log."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("stockade.audit")

    def record(
        self,
        *,
        kind: str,
        principal: str,
        action: str,
        resource: str,
        outcome: str,
        reason: str,
        details: Mapping[str, str],
    ) -> None:
        """Log one event."""
        self._log.info(
            kind,
            principal=principal,
            action=action,
            resource=resource,
            outcome=outcome,
            reason=reason,
            **details,
        )

    async def run(self) -> None:
        """Nothing is held back, so only wait to be cancelled."""
        await trio.sleep_forever()

    def close(self) -> None:
        """Nothing is held back."""
