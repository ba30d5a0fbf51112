from __future__ import annotations

import dataclasses

import pytest

from broker import records
from broker.records import Restored, RetainedRecord

ROWS = [
    each
    for each in vars(records).values()
    if dataclasses.is_dataclass(each) and isinstance(each, type)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_rows_are_immutable_and_named_by_keyword(row: type) -> None:
    parameters = row.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert not hasattr(row, "__dict__") or "__slots__" in vars(row)


def test_equal_rows_are_equal_and_different_ones_are_not() -> None:
    assert RetainedRecord(topic="a", message_id=1) == RetainedRecord(topic="a", message_id=1)
    assert RetainedRecord(topic="a", message_id=1) != RetainedRecord(topic="b", message_id=1)


def test_empty_store_gives_keys_from_one_on() -> None:
    empty = Restored()
    assert (empty.next_session_id, empty.next_message_id) == (1, 1)
    assert not any((empty.sessions, empty.messages, empty.queued, empty.retained, empty.delayed))
