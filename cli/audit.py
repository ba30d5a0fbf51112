"""The controller's audit events and log lines into governance's forms; the two rooms meet only here.

The controller is handed both, so that it need not know how evidence is kept or what a log line looks like.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from governance.audit import AuditEvent, AuditLog, AuditOutcome
from governance.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OUTCOMES = {outcome.value: outcome for outcome in AuditOutcome}


class ControllerAudit:
    """An audit log that takes the controller's events."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

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
        """Record one act; never raises.

        Args:
            kind: what happened, e.g. `acl.rule_added`.
            principal: who.
            action: the operation.
            resource: on what.
            outcome: `allow` or `deny`; anything else is recorded as an error.
            reason: why.
            details: further facts.
        """
        self._log.record(
            AuditEvent(
                kind=kind,
                principal=principal,
                action=action,
                resource=resource,
                outcome=OUTCOMES.get(outcome, AuditOutcome.ERROR),
                reason=reason,
                details=dict(details),
            )
        )

    async def run(self) -> None:
        """Write merged events as their time comes, until cancelled."""
        await self._log.run()

    def close(self) -> None:
        """Write what is held back and wait for the disk."""
        self._log.close()


def open_audit(path: Path) -> ControllerAudit:
    """Open the controller's audit log.

    Args:
        path: the file of JSON lines; rotated by size.
    """
    return ControllerAudit(AuditLog(path, clock=time.time))  # noqa: TID251 - the clock itself, handed on


def log_as(json: bool) -> None:  # noqa: FBT001 - the controller calls it with its key `log_json`
    """Log to standard error, in the same form as the broker.

    Args:
        json: one JSON object a line instead of text.
    """
    configure_logging(json=json, level="info")
