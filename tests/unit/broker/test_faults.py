from __future__ import annotations

import sys

import pytest
import trio
from structlog.testing import capture_logs

from broker.faults import TELL_S, Faults
from mqtt.errors import ReasonCode
from tests.unit.broker.test_session import House


def fail() -> None:
    raise ValueError("a bug")


def test_error_is_counted_and_told_and_goes_no_further() -> None:
    faults = Faults(lambda: 0.0)
    with capture_logs() as logs, faults.contained("do this"):
        fail()
    assert faults.count == 1
    assert [(each["event"], each["doing"]) for each in logs] == [("internal error", "do this")]


def test_client_of_the_session_is_disconnected() -> None:
    session, line = House().online("viewer")
    with capture_logs(), Faults(lambda: 0.0).contained("send", session):
        fail()
    assert line.endings == [ReasonCode.UNSPECIFIED_ERROR]


def test_many_errors_are_counted_and_told_once_a_second() -> None:
    now = 0.0
    faults = Faults(lambda: now)
    with capture_logs() as logs:
        for _ in range(3):
            with faults.contained("do this"):
                fail()
        now = TELL_S
        with faults.contained("do this"):
            fail()
    assert faults.count == 4
    assert [each["count"] for each in logs] == [1, 4]


async def test_cancellation_is_not_contained() -> None:
    faults = Faults()
    with trio.move_on_after(0) as scope, faults.contained("wait"):
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert faults.count == 0


def test_what_succeeds_is_nothing() -> None:
    faults = Faults(lambda: 0.0)
    with faults.contained("do this"):
        pass
    assert faults.count == 0
    with pytest.raises(SystemExit), faults.contained("do this"):
        sys.exit()
