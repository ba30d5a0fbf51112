"""Errors of our own, contained: one session's bug must not cost the others their broker.

*Rules of this file*: only for loops that serve all sessions in turn; a connection's own task ends with its error, which
the listener contains. What is caught is counted and logged with its traceback, once a second at most.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from typing_extensions import override

from mqtt.errors import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.session import Session

log = structlog.get_logger("stockade.broker.faults")

TELL_S = 1.0  # seconds between two that are logged


class Faults:
    """Counts and tells.

    Attributes:
        count: errors contained.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        """Start with none.

        Args:
            clock: seconds, monotonic.
        """
        self._clock = clock
        self._told_at = -inf
        self.count = 0

    @override
    def __repr__(self) -> str:
        return f"<Faults {self.count}>"

    @contextmanager
    def contained(self, doing: str, session: Session | None = None) -> Generator[None]:
        """Let nothing out but a cancellation.

        Args:
            doing: what is being done, for the log.
            session: whose; its client is disconnected, because nobody knows what it is owed now.
        """
        try:
            yield
        except Exception:
            self.count += 1
            if self._clock() - self._told_at >= TELL_S:
                self._told_at = self._clock()
                log.exception(
                    "internal error",
                    doing=doing,
                    session=repr(session),
                    count=self.count,
                )
            if session is not None and session.connection is not None:
                session.connection.end(ReasonCode.UNSPECIFIED_ERROR, "internal error")
