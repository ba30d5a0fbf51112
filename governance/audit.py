"""The audit log: every denial and every administrative change, as one JSON line each.

*Rules of this file.* `record` never raises and never waits for anything but a write to the page
cache: evidence must not stop the data path, and a full disk must not open or close it. What could not
be written yet waits in a bounded backlog; what the backlog cannot hold is counted as lost, said in the
operator's log, and visible as a gap of the sequence numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
import trio
from typing_extensions import override

from governance.bursts import BURST_WINDOW_S, BurstMerger
from governance.events import AuditEvent, AuditOutcome, AuditRecord, bounded
from governance.rotation import RotatingFile

__all__ = ["AuditEvent", "AuditLog", "AuditOutcome", "AuditRecord", "AuditStats"]

DEFAULT_MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest file: some 150,000 events, still opened by any editor."""

DEFAULT_FILES_KEPT = 9
"""Old files kept beside the current one: 640 MB in all with the default size."""

MIN_FILE_BYTES = 4096
"""Smallest useful bound; below it every event would rotate."""

RECENT_EVENTS = 1024
"""Events kept in memory for whoever asks what happened last (some 1 MB)."""

MAX_BACKLOG_BYTES = 1024 * 1024
"""Most that waits while the file cannot be written: some 2,500 events."""

RETRY_S = 1.0
"""Pause between attempts to write a file that failed, and between complaints about it."""

_log = structlog.get_logger("stockade.audit")


@dataclass(slots=True, kw_only=True)
class AuditStats:
    """Plain counters, read by metrics.

    Attributes:
        recorded: events handed to `record`, runs and bursts counted with their `count`.
        written: lines on file (or in the ring alone, when there is no file).
        failures: failed attempts to write.
        lost: lines dropped because the backlog was full.
    """

    recorded: int = 0
    written: int = 0
    failures: int = 0
    lost: int = 0


class AuditLog:
    """Numbers events, keeps the last of them, writes them to a rotating file of JSON lines.

    *Resource handling*: owns its file; `close` (or leaving the `with` block) writes what is held
    back and waits for the disk.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], float],
        max_bytes: int = DEFAULT_MAX_FILE_BYTES,
        keep: int = DEFAULT_FILES_KEPT,
    ) -> None:
        """Open nothing yet but read the last sequence number of an existing file.

        Args:
            path: the file, `None` for memory only; its directory must exist.
            clock: seconds since the Unix epoch.
            max_bytes: size at which the file is rotated, >= `MIN_FILE_BYTES`.
            keep: old files kept, >= 0.

        Raises:
            ValueError: a bound makes no sense.
        """
        if max_bytes < MIN_FILE_BYTES or keep < 0:
            raise ValueError(f"audit: max_bytes must be >= {MIN_FILE_BYTES} and keep >= 0")
        self._clock = clock
        self._file = None if path is None else RotatingFile(path, max_bytes=max_bytes, keep=keep)
        self._merger = BurstMerger()
        self._recent: deque[AuditRecord] = deque(maxlen=RECENT_EVENTS)
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._retry_at = float("-inf")
        self._closed = False
        self.stats = AuditStats()
        self._sequence = self._last_sequence()

    @override
    def __repr__(self) -> str:
        return f"<AuditLog {self._file or 'in memory'} sequence={self._sequence} {self.stats}>"

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def recent(self) -> tuple[AuditRecord, ...]:
        """The last `RECENT_EVENTS` records, oldest first."""
        return tuple(self._recent)

    def record(self, event: AuditEvent) -> None:
        """Take `event`. Repeated denials are merged (see `governance.bursts`). Never raises."""
        self.stats.recorded += event.count
        now = self._clock()
        self._put(self._merger.add(bounded(event), now), now)

    def tick(self) -> None:
        """Write merged events whose time has come, and what an earlier failure left."""
        now = self._clock()
        self._put(self._merger.due(now), now)
        self._drain(now)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Call `tick` once a burst window, for ever. *Cancellation*: at any time; nothing is lost."""
        task_status.started()
        while True:
            await trio.sleep(BURST_WINDOW_S)
            self.tick()

    def close(self) -> None:
        """Write everything held back, wait for the disk, close. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._put(self._merger.drain(), self._clock())
        self._retry_at = float("-inf")  # the last chance is not to be missed for a pause
        self._drain(self._clock())
        self._lose(len(self._backlog))
        if self._file is not None:
            try:
                self._file.sync()
            except OSError as error:
                self._fail(error, self._clock())
            self._file.close()

    def _put(self, events: Iterable[AuditEvent], now: float) -> None:
        for event in events:
            self._sequence += 1
            record = AuditRecord(sequence=self._sequence, time=_rfc3339(now), event=event)
            self._recent.append(record)
            if event.outcome is AuditOutcome.DENY:
                _mirror(event)
            if self._file is None:
                self.stats.written += 1
                continue
            line = _line(record)
            self._backlog.append(line)
            self._backlog_bytes += len(line)
        while self._backlog_bytes > MAX_BACKLOG_BYTES:
            self._lose(1)
        self._drain(now)

    def _drain(self, now: float) -> None:
        if self._file is None or 0 < self._retry_at - now <= RETRY_S:
            return
        while self._backlog:
            try:
                self._file.append(self._backlog[0])
            except OSError as error:
                self._fail(error, now)
                return
            self._backlog_bytes -= len(self._backlog.popleft())
            self.stats.written += 1

    def _fail(self, error: OSError, now: float) -> None:
        self.stats.failures += 1
        self._retry_at = now + RETRY_S
        _log.error(
            "audit_write_failed",
            reason=f"{error.strerror or error}: free the disk or correct the path of the audit file",
            waiting=len(self._backlog),
            lost=self.stats.lost,
        )

    def _lose(self, lines: int) -> None:
        for _ in range(lines):
            self._backlog_bytes -= len(self._backlog.popleft())
            self.stats.lost += 1

    def _last_sequence(self) -> int:
        if self._file is None:
            return 0
        try:
            return msgspec.json.decode(self._file.last_line() or b"{}", type=_Place).sequence
        except (OSError, msgspec.DecodeError) as error:
            # Not fatal: the numbers start anew, which an auditor sees at once.
            _log.warning("audit_sequence_unknown", reason=str(error))
            return 0


class _Place(msgspec.Struct):
    """As much of a line as tells its number."""

    sequence: int = 0


def _line(record: AuditRecord) -> bytes:
    """One flat JSON object: sequence and time first, then the fields of the event."""
    place = {"sequence": record.sequence, "time": record.time}
    return msgspec.json.encode(place)[:-1] + b"," + _encode_event(record.event)[1:]


def _encode_event(event: AuditEvent) -> bytes:
    fields = {"kind": event.kind, "outcome": event.outcome.value, "count": event.count}
    rest = {k: v for k, v in msgspec.structs.asdict(event).items() if v and k not in fields}
    return msgspec.json.encode(fields | rest)


def _mirror(event: AuditEvent) -> None:
    _log.info(
        "denied",
        kind=event.kind,
        principal=event.principal,
        action=event.action,
        resource=event.resource,
        reason=event.reason,
        decision_id=event.decision_id,
        peer=event.peer,
        count=event.count,
    )


def _rfc3339(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
