from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from acl.model import PrincipalKind
from broker.records import (
    DelayedRecord,
    MessageRecord,
    QueuedRecord,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
    WillRecord,
)
from broker.store_rows import Rows, Value
from broker.store_seal import Checked, Encrypted, RowBroken
from mqtt.packets import Version
from tests.store_records import KEY, a_message, a_session, a_subscription

ROWS = Rows(Encrypted(KEY, file_salt=bytes(32), number=1, salts={}))
CLEAR = Rows(Checked())

ids = st.integers(1, 2**63 - 1)
small = st.integers(0, 2**32 - 1)
moments = st.floats(0, 1e12)
names = st.text(max_size=20)
wills = st.none() | st.builds(WillRecord, packet=st.binary(max_size=40), delay_s=small)


def number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def text(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value


@given(
    st.builds(
        SessionRecord,
        session_id=ids,
        principal=names,
        principal_kind=st.sampled_from(PrincipalKind),
        client_id=names,
        expiry_s=small,
        ended_at=st.none() | moments,
        settled_below=ids,
        next_sequence=ids,
        will=wills,
    )
)
def test_rows_give_back_a_session(record: SessionRecord) -> None:
    key, body = ROWS.session(record)
    assert ROWS.open_session(number(key), text(body)) == record


@given(
    st.builds(
        SubscriptionRecord,
        session_id=ids,
        filter=names,
        qos=st.integers(0, 2),
        no_local=st.booleans(),
        retain_as_published=st.booleans(),
        identifier=st.none() | small,
    )
)
def test_rows_give_back_a_subscription(record: SubscriptionRecord) -> None:
    key, tag, body = ROWS.subscription(record)
    assert ROWS.open_subscription(number(key), text(tag), text(body)) == record


@given(
    st.builds(
        MessageRecord,
        message_id=ids,
        data=st.binary(max_size=200),
        count=small,
        version=st.sampled_from(Version),
        received_at=moments,
        expires_at=st.none() | moments,
        publisher=names,
        publisher_kind=st.sampled_from(PrincipalKind),
    )
)
def test_rows_give_back_a_message(record: MessageRecord) -> None:
    key, body = ROWS.message(record)
    assert ROWS.open_message(number(key), text(body)) == record


@given(
    st.builds(
        QueuedRecord,
        session_id=ids,
        sequence=ids,
        count=small,
        message_id=ids,
        first=small,
        qos=st.integers(1, 2),
        retain=st.booleans(),
        identifiers=st.lists(small, max_size=4).map(tuple),
        group=names,
    )
)
def test_rows_give_back_queued_messages(record: QueuedRecord) -> None:
    session, sequence, count, body = ROWS.queued(record)
    opened = ROWS.open_queued(number(session), number(sequence), number(count), text(body))
    assert opened == record


@given(st.builds(RetainedRecord, topic=names, message_id=ids))
def test_rows_give_back_a_retained_topic(record: RetainedRecord) -> None:
    tag, body = ROWS.retained(record)
    assert ROWS.open_retained(text(tag), text(body)) == record


@given(st.builds(DelayedRecord, message_id=ids, due_at=moments))
def test_rows_give_back_a_delayed_message(record: DelayedRecord) -> None:
    key, body = ROWS.delayed(record)
    assert ROWS.open_delayed(number(key), text(body)) == record


@given(ids, ids)
def test_rows_give_back_a_pair(first: int, second: int) -> None:
    *_, body = ROWS.pair("released", first, second)
    assert ROWS.open_pair("released", first, second, text(body)) == (first, second)


@pytest.mark.parametrize("rows", [ROWS, CLEAR], ids=["encrypted", "clear"])
def test_rows_open_only_in_their_own_place(rows: Rows) -> None:
    session, message = rows.session(a_session()), rows.message(a_message())
    released = rows.pair("released", 1, 2)
    for wrong in (
        lambda: rows.open_session(2, text(session[-1])),
        lambda: rows.open_message(2, text(message[-1])),
        lambda: rows.open_message(1, text(session[-1])),
        lambda: rows.open_pair("received", 1, 2, text(released[-1])),
        lambda: rows.open_pair("released", 2, 1, text(released[-1])),
        lambda: rows.open_delayed(1, text(message[-1])),
    ):
        with pytest.raises(RowBroken):
            wrong()


def test_rows_refuse_a_body_that_verifies_and_is_none() -> None:
    seal = Checked()
    with pytest.raises(RowBroken, match="does not hold what it should"):
        CLEAR.open_message(1, seal.seal(b"\xc1", b"message" + (1).to_bytes(8)))
    with pytest.raises(RowBroken, match="should not have"):
        CLEAR.open_pair("settled", 1, 1, seal.seal(b"x", b"settled" + (1).to_bytes(8) * 2))


def test_rows_refuse_a_name_its_row_is_not_found_by() -> None:
    record = a_subscription(1, "a")
    other = CLEAR.tag("b")
    seal = Checked()
    body = seal.open(
        text(CLEAR.subscription(record)[-1]), b"subscription" + (1).to_bytes(8) + CLEAR.tag("a")
    )
    moved = seal.seal(body, b"subscription" + (1).to_bytes(8) + other)
    with pytest.raises(RowBroken, match="found by"):
        CLEAR.open_subscription(1, other, moved)


def test_rows_show_no_name_of_a_client() -> None:
    session = ROWS.session(replace(a_session(client_id="visible"), principal="visible"))
    subscription = ROWS.subscription(a_subscription(1, "visible"))
    retained = ROWS.retained(RetainedRecord(topic="visible", message_id=1))
    for row in (session, subscription, retained):
        assert not any(b"visible" in value for value in row if isinstance(value, bytes))
