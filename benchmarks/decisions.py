"""What a decision costs at each level, as nanoseconds and as a multiple of one `dict.get`.

`python -m benchmarks.decisions` prints the table; `measure()` returns it. The bare `dict.get` runs in every
round beside the cases, so that the multiples hold on a noisy machine where nanoseconds do not.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import trio

from acl.decide import decide
from acl.model import AccessRequest, Effect, Operation, Principal, Resource
from acl.rules import AclRule, RuleSet
from benchmarks.machine import describe_machine
from cache.authority import Answers
from cache.authorizer import Authorizer
from cache.connection import ConnectionCache
from cache.limits import CacheLimits
from cache.negative import GrantFilter

ROUNDS = 31
TOPICS = 1000
REPEATS = 5
"""Passes over all topics in a sample, where a second pass is like the first."""

ROOM = 1_000_000
"""Entries of L2: more than all rounds put there, so that what should hit does."""

FEW_RULES, MANY_RULES = 100, 100_000
REFERENCE = "dict.get (reference)"
SENSOR = Principal("sensor")
WRITE = Operation.WRITE


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        name: what was measured.
        timed: what lies between the two readings of the clock.
        operations: in one sample.
        samples: how many samples, one a round.
        median_ns: of the samples, each divided by its operations, less the empty loop.
        p10_ns: tenth percentile of the same.
        p90_ns: ninetieth percentile of the same.
        ratio: median of (sample / the reference's sample of the same round).
    """

    name: str
    timed: str
    operations: int
    samples: int
    median_ns: float
    p10_ns: float
    p90_ns: float
    ratio: float


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure: `prepare` makes ready outside the timed region, `run` is the timed region."""

    name: str
    timed: str
    operations: int
    run: Callable[[], None]
    prepare: Callable[[], None] | None = None


class LocalAuthority:
    """The decider without a network; what a question costs beside it is not measured here."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules

    async def ask(self, requests: Sequence[AccessRequest]) -> Answers:
        await trio.lowlevel.checkpoint()
        return Answers(self._rules.epoch, tuple(decide(self._rules, item) for item in requests))


def demo_rules(count: int) -> RuleSet:
    """The demonstration's sort of rules among `count` others: literals, wildcards, patterned principals, denies."""
    rules = [_rule("telemetry", "sensor", "topic.telemetry.**", Operation.WRITE)]
    for number in range(count - 1):
        area = f"area-{number % 977}"
        resource, principal = f"topic.{area}.device-{number}.in", f"service-{number // 20}"
        effect = Effect.ALLOW
        match number % 20:
            case 0 | 1 | 2:
                resource = f"topic.{area}.device-{number}.**"
            case 3:
                resource = f"topic.*.device-{number}.out"
            case 4:
                resource = f"topic.{area}.app-{number}-*.in"
            case 5:
                effect = Effect.DENY
            case 6 if number % 1000 == 6:
                principal = f"service-{number // 1000}*"
            case _:
                pass
        rules.append(_rule(f"r{number}", principal, resource, Operation.ALL, effect))
    return RuleSet(rules, epoch=1)


def _rule(
    rule_id: str,
    principal: str,
    resource: str,
    operations: Operation,
    effect: Effect = Effect.ALLOW,
) -> AclRule:
    return AclRule(
        id=rule_id, principal=principal, resource=resource, operations=operations, effect=effect
    )


def measure(*, rounds: int = ROUNDS) -> list[Figure]:
    """Measure all cases, interleaved, one sample of each in every round."""
    cases = list(_cases())
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:  # warm-up
        _sample(case, 0.0)
    with _without_garbage_collection():
        for number in range(rounds):
            empty_ns = _empty_loop_ns()
            turn = number % len(cases)
            for case in cases[turn:] + cases[:turn]:
                samples[case.name].append(_sample(case, empty_ns))
    return [_figure(case, samples[case.name], samples[REFERENCE]) for case in cases]


def _sample(case: Case, empty_ns: float) -> float:
    """Nanoseconds of CPU an operation, less the loop around it."""
    if case.prepare is not None:
        case.prepare()
    start = time.process_time_ns()
    case.run()
    return (time.process_time_ns() - start) / case.operations - empty_ns


def _figure(case: Case, samples: list[float], reference: list[float]) -> Figure:
    deciles = statistics.quantiles(samples, n=10)
    return Figure(
        name=case.name,
        timed=case.timed,
        operations=case.operations,
        samples=len(samples),
        median_ns=statistics.median(samples),
        p10_ns=deciles[0],
        p90_ns=deciles[-1],
        ratio=statistics.median(a / b for a, b in zip(samples, reference, strict=True)),
    )


def _empty_loop_ns() -> float:
    keys = [None] * TOPICS
    start = time.process_time_ns()
    for _ in range(50):
        for _key in keys:
            pass
    return (time.process_time_ns() - start) / (50 * TOPICS)


@contextmanager
def _without_garbage_collection() -> Generator[None, None, None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# -- cases -----------------------------------------------------------------------------------


def _cases() -> Generator[Case, None, None]:
    topics = [b"telemetry/device-%d/cpu" % number for number in range(TOPICS)]
    yield _reference(topics)
    yield from _cached_cases(topics)
    yield _filter_case()
    for count in (FEW_RULES, MANY_RULES):
        yield _decide_case(count)


def _reference(topics: list[bytes]) -> Case:
    table = {topic: object() for topic in topics}

    def run() -> None:
        get = table.get
        for _ in range(10 * REPEATS):
            for topic in topics:
                get(topic)

    return Case(
        name=REFERENCE,
        timed="get = table.get; get(topic) of 1,000 topics",
        operations=10 * REPEATS * len(topics),
        run=run,
    )


class _Warm:
    """An authorizer whose L1 and L2 hold every topic, and what is done with it."""

    def __init__(self, topics: list[bytes]) -> None:
        self.topics = topics
        self._unknown: list[bytes] = []
        self._turn = itertools.count()
        self._authorizer, self._connection = trio.run(_warm, topics)
        self.table = self._connection.table

    def flush(self) -> None:
        self._connection.flush()
        known = (self.table.get((int(WRITE), topic), 1, time.monotonic) for topic in self.topics)
        assert all(decision is not None for decision in known), "L2 lost a topic"

    def fill(self) -> None:
        self.flush()
        self.check_once()

    def inline(self) -> None:
        get = self._connection.writes.get
        topics = self.topics
        for _ in range(10 * REPEATS):
            for topic in topics:
                get(topic)

    def check(self) -> None:
        for _ in range(REPEATS):
            self.check_once()

    def check_once(self) -> None:
        check, connection = self._authorizer.check, self._connection
        for topic in self.topics:
            check(connection, WRITE, topic)

    def invent_topics(self) -> None:
        turn = next(self._turn)
        self._unknown = [b"never/granted-%d/%d" % (turn, number) for number in range(TOPICS)]

    def rule_out(self) -> None:
        check, connection = self._authorizer.check, self._connection
        for topic in self._unknown:
            check(connection, WRITE, topic)


def _cached_cases(topics: list[bytes]) -> Iterator[Case]:
    warm = _Warm(topics)
    yield Case(
        name="L1, inline",
        timed="connection.writes.get(topic)",
        operations=10 * REPEATS * TOPICS,
        prepare=warm.fill,
        run=warm.inline,
    )
    yield Case(
        name="L1, authorizer.check",
        timed="check() of a topic that L1 holds",
        operations=REPEATS * TOPICS,
        prepare=warm.fill,
        run=warm.check,
    )
    yield Case(
        name="L1 miss, L2 hit, L1 fill",
        timed="check() of a topic that L2 holds, after a flush of L1",
        operations=TOPICS,
        prepare=warm.flush,
        run=warm.check_once,
    )
    yield Case(
        name="L1 and L2 miss, L3 negative, both filled",
        timed="check() of a topic never asked for and never granted",
        operations=TOPICS,
        prepare=warm.invent_topics,
        run=warm.rule_out,
    )
    yield _table_case(warm)


def _table_case(warm: _Warm) -> Case:
    warm.fill()
    table = warm.table
    questions = [(int(WRITE), topic) for topic in warm.topics]

    def run() -> None:
        get, serial = table.get, 1
        for _ in range(REPEATS):
            for question in questions:
                get(question, serial, time.monotonic)

    return Case(
        name="L2 alone, hit",
        timed="table.get(question) of 1,000 ready questions",
        operations=REPEATS * len(questions),
        run=run,
    )


async def _warm(topics: list[bytes]) -> tuple[Authorizer, ConnectionCache]:
    """An authorizer whose L1 and L2 hold every topic."""
    rules = demo_rules(FEW_RULES)
    ids = itertools.count()
    authorizer = Authorizer(
        LocalAuthority(rules),
        limits=CacheLimits(
            l1_entries=4 * TOPICS, l2_entries_per_principal=ROOM, l2_bytes_per_shard=ROOM * 1024
        ),
        clock=time.monotonic,
        new_id=lambda: f"d-{next(ids):012x}",
    )
    authorizer.apply_policy(rules.epoch, rules.grants, reset=True)
    connection = authorizer.open(SENSOR)
    async with trio.open_nursery() as nursery:
        await nursery.start(authorizer.run)
        for topic in topics:
            decision = await authorizer.authorize(connection, WRITE, topic)
            assert decision.allowed
        nursery.cancel_scope.cancel()
    return authorizer, connection


def _filter_case() -> Case:
    grants = GrantFilter(demo_rules(10 * FEW_RULES).grants)
    plan = grants.plan(SENSOR)
    resources = [Resource.topic(f"never/granted/{number}") for number in range(TOPICS)]

    def run() -> None:
        maybe = grants.maybe_planned
        for _ in range(REPEATS):
            for resource in resources:
                maybe(plan, resource)

    return Case(
        name="L3 alone, negative",
        timed="maybe_planned() of a ready resource, never granted",
        operations=REPEATS * TOPICS,
        run=run,
    )


def _decide_case(count: int) -> Case:
    rules = demo_rules(count)
    requests = [
        AccessRequest(SENSOR, WRITE, Resource.topic(f"telemetry/device-{number}/cpu"))
        for number in range(TOPICS)
    ]
    assert decide(rules, requests[0]).allowed

    def run() -> None:
        for request in requests:
            decide(rules, request)

    return Case(
        name=f"decide(), {count:,} rules",
        timed="decide() of a ready request, allowed by a wildcard rule",
        operations=TOPICS,
        run=run,
    )


def main() -> None:
    """Print the machine and the table."""
    machine = describe_machine()
    print(
        f"{machine.cpu}, {machine.cores} cores, Python {machine.python}, Linux {machine.kernel},"
        f" commit {machine.commit[:12]}{' with changes' if machine.dirty else ''},"
        f" load before {machine.load_before}"
    )
    print(f"CPU time of the process, garbage collection off, {ROUNDS} interleaved rounds\n")
    figures = measure()
    print(f"{'case':42} {'median':>9} {'p10':>9} {'p90':>9} {'x dict.get':>11}   timed region")
    for figure in figures:
        print(
            f"{figure.name:42} {figure.median_ns:6.0f} ns {figure.p10_ns:6.0f} ns"
            f" {figure.p90_ns:6.0f} ns {figure.ratio:10.1f}x   {figure.timed}"
            f" ({figure.operations:,} a sample, {figure.samples} samples)"
        )


if __name__ == "__main__":
    main()
