"""The measures of connections: how fast they are made, and what a silent one takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.idle import files_allowed
from benchmarks.results import Figure, Note
from benchmarks.sampling import Idle, measure_idle

if TYPE_CHECKING:
    from benchmarks.suite import Suite
    from benchmarks.targets import Target

CONNECTIONS = "connections"
RATE_REGION = (
    "connections opened one after the other by one process, each with a full TLS 1.3 handshake with both "
    "certificates and until the broker has accepted the client; the client's own work included"
)
CPU_REGION = "user and system time of all processes of the broker while they are opened"
MEMORY_REGION = (
    "growth of the resident memory of all processes of the broker by that many silent connections of one client, "
    "divided by them; taken first, when the brokers are fresh, and so only once"
)


def measure_memory(suite: Suite) -> None:
    """Memory of an idle connection: before all other measures."""
    wanted = suite.plan.idle
    name = f"{wanted:,} idle connections: memory"
    if wanted > files_allowed():
        why = f"a process may open {files_allowed():,} more files here: raise `ulimit -Hn`"
        suite.notes.append(Note(measure=name, target="generator", why=why, group=CONNECTIONS))
        return

    def sample(target: Target) -> None:
        idle = measure_idle(target, wanted)
        if idle.refused:
            note = Note(measure=name, target=target.name, why=idle.refused, group=CONNECTIONS)
            suite.notes.append(note)
        else:
            suite.figures.append(
                _figure(name, target.name, "KiB", MEMORY_REGION, [idle.bytes_each / 1024])
            )

    suite.in_turns(name, CONNECTIONS, sample, rounds=1)


def measure_rate(suite: Suite) -> None:
    """Connections a second, and the broker's CPU time for one."""
    taken: dict[str, list[Idle]] = {}

    def sample(target: Target) -> None:
        taken.setdefault(target.name, []).append(measure_idle(target, suite.plan.connects))

    name = "connections opened"
    suite.in_turns(name, CONNECTIONS, sample)
    for target, samples in taken.items():
        rates = [one.per_s for one in samples]
        suite.figures.append(_figure(name, target, "/s", RATE_REGION, rates))
        costs = [one.broker_cpu_ms for one in samples]
        suite.figures.append(
            _figure(f"{name}: broker CPU", target, "ms/connection", CPU_REGION, costs)
        )


def _figure(measure: str, target: str, unit: str, region: str, samples: list[float]) -> Figure:
    return Figure(
        measure=measure,
        target=target,
        unit=unit,
        better="higher" if unit == "/s" else "lower",
        region=region,
        samples=tuple(samples),
        group=CONNECTIONS,
    )
