from __future__ import annotations

from functools import partial

from broker.store_batch import ROW_BYTES
from broker.store_recorder import Recorder
from tests.store_records import (
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
)


def test_recorder_calls_back_at_once_when_nothing_is_pending() -> None:
    told: list[bool] = []
    Recorder().when_durable(told.append)
    assert told == [True]


def test_recorder_keeps_callers_waiting_while_something_is_pending() -> None:
    told: list[bool] = []
    recorder = Recorder()
    recorder.put_message(a_message())
    recorder.when_durable(told.append)
    assert told == []
    assert recorder.pending_rows == 1
    assert recorder.pending_bytes == len(a_message().data) + ROW_BYTES


def test_recorder_keeps_the_order_even_if_what_was_pending_has_gone() -> None:
    told: list[str] = []
    recorder = Recorder()
    recorder.put_message(a_message())
    recorder.when_durable(lambda _: told.append("first"))
    recorder.drop_message(1)
    assert recorder.pending_rows == 0
    recorder.when_durable(lambda _: told.append("second"))
    assert told == []


def test_recorder_notes_every_kind_of_row() -> None:
    recorder = Recorder()
    for call in (
        partial(recorder.put_session, a_session()),
        partial(recorder.drop_session, 2),
        partial(recorder.put_subscription, a_subscription()),
        partial(recorder.drop_subscription, 1, "b"),
        partial(recorder.put_message, a_message()),
        partial(recorder.drop_message, 2),
        partial(recorder.put_queued, a_queued()),
        partial(recorder.drop_queued, 1, 2),
        partial(recorder.settle, 1, 1),
        partial(recorder.put_released, 1, [1]),
        partial(recorder.put_received, 1, [1]),
        partial(recorder.drop_received, 1, [2]),
        partial(recorder.put_retained, a_retained()),
        partial(recorder.drop_retained, "b"),
        partial(recorder.put_delayed, a_delayed()),
        partial(recorder.drop_delayed, 2),
    ):
        before = recorder.pending_rows
        call()
        assert recorder.pending_rows == before + 1, call
