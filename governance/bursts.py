"""Merging of repeated denials, so that a client that is refused in a loop cannot flood the log.

*Rules of this file.* The first denial of a kind is written at once: it is evidence even if the
process dies a moment later. Identical ones that follow within `BURST_WINDOW_S` become one event with
their number in `count`, given out when the window ends. A principal that is denied in ever *different*
ways (a topic scan) has `MAX_DISTINCT_DENIALS` written per window; what exceeds that is merged into one
event whose resource is empty. Without this a scan would rotate yesterday's evidence out of the files.
No denial is dropped: the counts add up to what happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from governance.events import AuditEvent, AuditOutcome

BURST_WINDOW_S = 1.0
"""How long identical denials are merged: the most by which a merged event is late."""

MAX_DISTINCT_DENIALS = 64
"""Different denials of one principal written per window: at some 400 bytes each 25 KB/s."""

MAX_OPEN_BURSTS = 4096
"""Most keys remembered (some 2 MB); beyond it the oldest burst is given out before its window ends."""

_OVERFLOW_REASON = "further denials of this principal, merged"

_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Burst:
    """Denials of one key since `opened`; `event` is the latest, `held` how many wait."""

    opened: float
    event: AuditEvent
    held: int = 0


@dataclass(slots=True)
class _Share:
    """What one principal used up of its distinct denials since `opened`."""

    opened: float
    used: int = 0


class BurstMerger:
    """Decides for every event what is written now; keeps the rest, bounded. Reads no clock."""

    def __init__(self) -> None:
        self._bursts: dict[_Key, _Burst] = {}  # in order of opening, therefore of falling due
        self._shares: dict[str, _Share] = {}

    @property
    def held(self) -> int:
        """Denials kept back at present."""
        return sum(burst.held for burst in self._bursts.values())

    def add(self, event: AuditEvent, now: float) -> list[AuditEvent]:
        """Take `event`; return what is to be written now, in order.

        Args:
            event: any event; only denials are merged.
            now: seconds of a clock that may be set back (then every window ends).
        """
        out = list(self.due(now))
        if event.outcome is not AuditOutcome.DENY:
            out.append(event)
            return out
        burst = self._bursts.get(_key(event))
        if burst is None and not self._has_share(event.principal, now):
            event = msgspec.structs.replace(
                event, resource="", reason=_OVERFLOW_REASON, rule_id="", decision_id="", details={}
            )
            burst = self._bursts.get(_key(event))
        if burst is not None:
            burst.event = event
            burst.held += event.count
            return out
        if len(self._bursts) >= MAX_OPEN_BURSTS:
            out.extend(self._close(next(iter(self._bursts))))
        self._bursts[_key(event)] = _Burst(now, event)
        out.append(event)
        return out

    def due(self, now: float) -> Iterator[AuditEvent]:
        """Give out the merged events whose window has ended at `now`."""
        while self._bursts:
            key, burst = next(iter(self._bursts.items()))
            if 0 <= now - burst.opened < BURST_WINDOW_S:
                break
            yield from self._close(key)
        while self._shares:
            principal, share = next(iter(self._shares.items()))
            if 0 <= now - share.opened < BURST_WINDOW_S:
                break
            del self._shares[principal]

    def drain(self) -> Iterator[AuditEvent]:
        """Give out everything that is held, whatever its window."""
        while self._bursts:
            yield from self._close(next(iter(self._bursts)))

    def _close(self, key: _Key) -> Iterator[AuditEvent]:
        burst = self._bursts.pop(key)
        if burst.held:
            yield msgspec.structs.replace(burst.event, count=burst.held)

    def _has_share(self, principal: str, now: float) -> bool:
        share = self._shares.get(principal)
        if share is None:
            if (
                len(self._shares) >= MAX_OPEN_BURSTS
            ):  # forgetting one only writes more, loses nothing
                del self._shares[next(iter(self._shares))]
            share = self._shares[principal] = _Share(now)
        share.used += 1
        return share.used <= MAX_DISTINCT_DENIALS


def _key(event: AuditEvent) -> _Key:
    return (event.kind, event.principal, event.action, event.resource, event.reason)
