from __future__ import annotations

from dataclasses import replace

import pytest

from acl.model import Principal, PrincipalKind
from broker.messages import MAX_VARIANTS, Message, Messages, message_of
from broker.store_schema import StoreDamaged
from mqtt.convert import number
from mqtt.packets import Properties, Publish, Version
from mqtt.runs import Run, run_of
from tests.durable_rows import Rows

SENSOR = Principal("sensor", PrincipalKind.USER)


class Desk:
    """Where messages are taken over."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.rows = Rows()
        self.messages = Messages(self.rows, clock=lambda: self.now)

    def take(self, *, expiry_s: int | None = None, count: int = 1, qos: int = 1) -> Message:
        properties = Properties(message_expiry_interval=expiry_s)
        publish = Publish(topic="t", payload=b"x", qos=qos, properties=properties)
        run = run_of(publish, Version.V5)
        return self.messages.take(run.repeated(run.data * count, count), SENSOR)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def form(message: Message, *, now: float = 1_000.0) -> Run:
    return message.form(Version.V5, 1, (), retain=False, now=now)


def sent(run: Run) -> Publish:
    """What the subscriber gets of a form, under packet identifier 9 if it has one."""
    if not run.qos:
        return run.packet()
    return Run.parse(number(run, 0, [9], dup=False), run.version).packet()


# -- what is kept ----------------------------------------------------------------------------


def test_message_nobody_needs_is_not_stored(desk: Desk) -> None:
    message = desk.take()
    assert (message.stored_as, desk.messages.stored, desk.rows.messages) == (0, 0, {})


def test_message_is_stored_once_and_leaves_with_the_last_who_needs_it(desk: Desk) -> None:
    message = desk.take(count=3)
    for _ in range(2):
        desk.messages.need(message)
    (row,) = desk.rows.messages.values()
    assert (row.message_id, row.data, row.count) == (message.stored_as, message.run.data, 3)
    assert (row.received_at, row.expires_at) == (1_000.0, None)
    assert (row.publisher, row.publisher_kind) == ("sensor", PrincipalKind.USER)
    assert (desk.messages.stored, desk.messages.stored_bytes) == (1, len(message.run.data))
    desk.messages.release(message)
    assert desk.rows.messages
    desk.messages.release(message)
    assert not desk.rows.messages
    assert (desk.messages.stored, desk.messages.stored_bytes) == (0, 0)


def test_key_of_a_message_is_never_used_again(desk: Desk) -> None:
    message = desk.take()
    keys = []
    for _ in range(3):
        desk.messages.need(message)
        keys.append(message.stored_as)
        desk.messages.release(message)
    assert keys == [1, 2, 3]


def test_restored_message_keeps_its_key_and_is_not_written_again(desk: Desk) -> None:
    message = desk.take()
    desk.messages.restored(message, 7)
    message.needed_by = 1
    desk.messages.need(message)
    assert message.stored_as == 7
    assert not desk.rows.messages
    assert desk.messages.stored == 1


def test_messages_of_a_new_life_go_on_where_the_old_one_ended() -> None:
    messages = Messages(Rows(), clock=lambda: 0.0, next_id=41)
    message = messages.take(run_of(Publish(topic="t", payload=b"x", qos=1), Version.V5), SENSOR)
    messages.need(message)
    assert message.stored_as == 41


# -- what is needed in the store only ------------------------------------------------------------


def test_message_that_is_needed_in_the_store_only_leaves_it_with_the_last(desk: Desk) -> None:
    message = desk.take(count=3)
    size = len(message.run.data)
    for _ in range(3):
        desk.messages.need(message)
    for _ in range(2):
        desk.messages.spill(message)
    desk.messages.release(message)
    assert message.stored_as == 1, "two need it there"
    desk.messages.release_spilled(1)
    assert (list(desk.rows.messages), desk.messages.stored_bytes) == ([1], size)
    desk.messages.release_spilled(1)
    assert (desk.rows.messages, desk.messages.stored, desk.messages.stored_bytes) == ({}, 0, 0)
    assert message.stored_as == 0, "who needs it from now on has it stored again"


def test_message_that_is_needed_here_again_is_one_object_for_all(desk: Desk) -> None:
    message = desk.take()
    for _ in range(3):
        desk.messages.need(message)
        desk.messages.spill(message)
    (row,) = desk.rows.messages.values()
    assert desk.messages.bring(row) is message, "it is still here"
    desk.messages.release(message)
    data = message.run.data
    del message
    again = desk.messages.bring(row)
    assert desk.messages.bring(row) is again
    assert (again.run.data, again.stored_as, again.received_at) == (data, 1, 1_000.0)
    assert again.publisher == SENSOR
    for _ in range(2):
        assert desk.rows.messages
        desk.messages.release(again)
    assert (desk.rows.messages, desk.messages.stored) == ({}, 0)


def test_message_that_an_earlier_life_left_in_the_store_is_counted_once(desk: Desk) -> None:
    here, there = desk.take(), desk.take()
    for message in (here, there):
        desk.messages.need(message)
    rows = dict(desk.rows.messages)
    size = len(here.run.data)
    life = Messages(desk.rows, clock=lambda: 0.0, next_id=3)
    kept = message_of(rows[1])
    life.restored(kept, 1)
    kept.needed_by = 1
    life.spilled(1, 2, size, kept)
    life.spilled(2, 1, size, None)
    assert (life.stored, life.stored_bytes) == (2, 2 * size)
    assert life.bring(rows[1]) is kept
    life.release(kept)
    life.release(kept)
    life.release_spilled(1)
    life.release_spilled(2)
    assert (desk.rows.messages, life.stored, life.stored_bytes) == ({}, 0, 0)


def test_row_that_is_no_packet_is_refused(desk: Desk) -> None:
    desk.messages.need(desk.take())
    (row,) = desk.rows.messages.values()
    with pytest.raises(StoreDamaged, match="message 1 of the store is no MQTT packet"):
        message_of(replace(row, data=b"no packet"))


# -- expiry ----------------------------------------------------------------------------------


def test_message_expires_when_its_interval_has_passed(desk: Desk) -> None:
    message = desk.take(expiry_s=10)
    assert not message.expired(1_009.9)
    assert message.expired(1_010.0)
    assert not desk.take().expired(1e12)


def test_interval_counts_down_while_a_message_waits(desk: Desk) -> None:
    message = desk.take(expiry_s=10)
    left = [
        sent(form(message, now=now)).properties.message_expiry_interval
        for now in (1_000.0, 1_000.9, 1_003.0, 1_009.5)
    ]
    assert left == [10, 10, 7, 1], "seconds, never more than there are, never 0 while it is due"


def test_forms_at_different_times_do_not_share_an_interval(desk: Desk) -> None:
    message = desk.take(expiry_s=10)
    form(message, now=1_005.0)
    assert sent(form(message, now=1_000.0)).properties.message_expiry_interval == 10


# -- forms -----------------------------------------------------------------------------------


def test_form_is_built_once_and_shared(desk: Desk) -> None:
    message = desk.take(qos=2)
    assert form(message) is form(message)
    message.forget_forms()
    assert form(message).data == form(message).data


def test_forms_kept_with_a_message_are_bounded(desk: Desk) -> None:
    message = desk.take()
    for identifier in range(1, 3 * MAX_VARIANTS):
        run = message.form(Version.V5, 1, (identifier,), retain=False, now=1_000.0)
        assert sent(run).properties.subscription_identifiers == (identifier,)
    assert len(message._variants or ()) == MAX_VARIANTS


def test_every_form_is_the_message_as_its_subscriber_may_get_it(desk: Desk) -> None:
    message = desk.take(qos=2)
    for version in Version.V5, Version.V311:
        for qos in range(3):
            for retain in False, True:
                run = message.form(version, qos, (), retain=retain, now=1_000.0)
                packet = sent(run)
                assert (packet.topic, packet.payload) == ("t", b"x")
                assert (packet.qos, packet.retain, run.version) == (qos, retain, version)
