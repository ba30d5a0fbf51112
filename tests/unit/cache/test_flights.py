from __future__ import annotations

import math

import trio
import trio.testing

from acl.decide import Decision, Outcome
from acl.rules import RuleSet
from cache.authority import Answers
from cache.errors import AuthorityUnavailable
from cache.flights import Failure, Flights
from cache.limits import CacheLimits
from cache.stats import CacheStats
from tests.unit.acl.builders import a_request, a_rule
from tests.unit.cache.fakes import RuleAuthority, new_ids

ALLOWED = a_request(resource="topic.telemetry.cpu")


def an_authority() -> RuleAuthority:
    return RuleAuthority(RuleSet([a_rule()], epoch=3))


def flights_to(authority: RuleAuthority, **limits: float) -> tuple[Flights, CacheStats]:
    stats = CacheStats()
    bounds = CacheLimits(**limits)  # type: ignore[arg-type] # by name
    return Flights(authority, bounds, stats, new_ids()), stats


async def ask_many(flights: Flights, names: list[str]) -> list[Decision | Failure]:
    answers: dict[int, Decision | Failure] = {}

    async def one(position: int, name: str) -> None:
        answers[position] = await flights.ask(a_request(resource=f"topic.telemetry.{name}"))

    async with trio.open_nursery() as nursery:
        for position, name in enumerate(names):
            nursery.start_soon(one, position, name)
    return [answers[position] for position in range(len(names))]


async def test_lone_question_is_sent_at_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    start = trio.current_time()
    answer = await flights.ask(ALLOWED)
    assert isinstance(answer, Decision)
    assert answer.allowed
    assert answer.epoch == 3
    assert answer.id == "d-000000000001"
    assert trio.current_time() == start
    assert len(flights) == 0


async def test_questions_collect_while_a_request_is_under_way(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.delay_s = 0.1
    flights, stats = flights_to(authority, max_batch_questions=100)
    await nursery.start(flights.run)
    async with trio.open_nursery() as askers:
        askers.start_soon(flights.ask, ALLOWED)
        await trio.testing.wait_all_tasks_blocked()
        askers.start_soon(ask_many, flights, [f"t{n}" for n in range(250)])
    assert [len(batch) for batch in authority.batches] == [1, 100, 100, 50]
    assert (stats.batches, stats.questions, stats.largest_batch) == (4, 251, 100)


async def test_same_question_asked_by_many_flies_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.delay_s = 0.1
    flights, stats = flights_to(authority)
    await nursery.start(flights.run)
    answers = await ask_many(flights, ["same"] * 50)
    assert sum(map(len, authority.batches)) == 1
    assert stats.joined == 49
    assert all(answer is answers[0] for answer in answers)


async def test_one_question_too_many_fails_at_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.gate = trio.Event()
    flights, stats = flights_to(authority, max_waiting_questions=10)
    await nursery.start(flights.run)
    nursery.start_soon(ask_many, flights, [f"t{n}" for n in range(10)])
    await trio.testing.wait_all_tasks_blocked()
    assert len(flights) == 10
    answer = await flights.ask(a_request(resource="topic.telemetry.more"))
    assert answer == Failure("too many questions are waiting for the controller")
    assert stats.overflows == 1
    authority.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(flights) == 0


async def test_unavailable_authority_fails_its_batch_and_only_that(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.failure = AuthorityUnavailable("no contact")
    flights, stats = flights_to(authority)
    await nursery.start(flights.run)
    assert await flights.ask(ALLOWED) == Failure("the controller is unavailable: no contact")
    authority.failure = None
    assert isinstance(await flights.ask(ALLOWED), Decision)
    assert stats.authority_failures == 1


async def test_bug_of_the_authority_is_a_failure_that_names_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.failure = ZeroDivisionError("by zero")
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    failure = await flights.ask(ALLOWED)
    assert failure == Failure("error while asking the controller: ZeroDivisionError: by zero")


async def test_answers_that_do_not_fit_the_questions_are_none(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.judge = lambda _requests: Answers(3, ())
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    failure = await flights.ask(ALLOWED)
    assert failure == Failure("the controller is unavailable: 1 questions got 0 answers")


async def test_request_that_hangs_fails_after_the_deadline_and_the_next_is_sent(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.gate = trio.Event()
    flights, _ = flights_to(authority, question_deadline_s=2.0)
    await nursery.start(flights.run)
    start = trio.current_time()
    failure = await flights.ask(ALLOWED)
    assert failure == Failure("the controller is unavailable: no answer within 2 seconds")
    assert math.isclose(trio.current_time() - start, 2.0)
    authority.gate = None
    assert isinstance(await flights.ask(ALLOWED), Decision)


async def test_decision_that_claims_a_newer_epoch_than_its_batch_counts_as_the_older(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.judge = lambda requests: Answers(
        3, tuple(Decision(Outcome.ALLOW, "r", "", 9, id="d-own") for _ in requests)
    )
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    answer = await flights.ask(ALLOWED)
    assert isinstance(answer, Decision)
    assert (answer.epoch, answer.id) == (3, "d-own")


async def test_question_that_nobody_waits_for_is_not_sent(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.delay_s = 1.0
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    nursery.start_soon(flights.ask, ALLOWED)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.1):
        await flights.ask(a_request(resource="topic.telemetry.left"))
    assert len(flights) == 1
    await trio.sleep(5)
    assert [len(batch) for batch in authority.batches] == [1]


async def test_asker_that_leaves_does_not_end_the_flight_of_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.delay_s = 1.0
    flights, _ = flights_to(authority)
    await nursery.start(flights.run)
    answers: list[Decision | Failure] = []

    async def patient() -> None:
        answers.append(await flights.ask(ALLOWED))

    async with trio.open_nursery() as askers:
        askers.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.1):
            await flights.ask(ALLOWED)
    assert isinstance(answers[0], Decision)
    assert len(authority.batches) == 1


async def test_stop_gives_everybody_who_waits_a_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    authority = an_authority()
    authority.gate = trio.Event()
    flights, _ = flights_to(authority)
    answers: list[Decision | Failure] = []

    async def asker(name: str) -> None:
        answers.append(await flights.ask(a_request(resource=f"topic.telemetry.{name}")))

    async with trio.open_nursery() as askers, trio.open_nursery() as running:
        await running.start(flights.run)
        for name in ("flying", "pending"):
            askers.start_soon(asker, name)
            await trio.testing.wait_all_tasks_blocked()
        running.cancel_scope.cancel()
    assert len(answers) == 2
    assert all(isinstance(answer, Failure) and "stopped" in answer.reason for answer in answers)
    late = await flights.ask(ALLOWED)
    assert isinstance(late, Failure)
    assert "stopped" in late.reason


async def test_fail_all_answers_at_once_and_abandons_the_request_under_way(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = an_authority()
    authority.gate = trio.Event()
    flights, _ = flights_to(authority, question_deadline_s=1000)
    await nursery.start(flights.run)
    answers: list[Decision | Failure] = []

    async def asker() -> None:
        answers.append(await flights.ask(ALLOWED))

    nursery.start_soon(asker)
    await trio.testing.wait_all_tasks_blocked()
    flights.fail_all("gone")
    await trio.testing.wait_all_tasks_blocked()
    assert answers == [Failure("gone")]
    authority.gate = None
    start = trio.current_time()
    assert isinstance(await flights.ask(ALLOWED), Decision)
    assert trio.current_time() == start
