from __future__ import annotations

import pytest

from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.incoming import Incoming


def test_qos_2_identifier_is_one_message_until_it_is_released() -> None:
    incoming = Incoming()
    assert incoming.is_new(7)
    incoming.take([7])
    assert not incoming.is_new(7)
    incoming.begin()
    assert not incoming.is_new(7)
    assert incoming.release([7]) == [True]
    assert incoming.is_new(7)


def test_release_of_an_unknown_identifier_is_told() -> None:
    incoming = Incoming([1, 2])
    assert incoming.release([2, 3, 1]) == [True, False, True]
    assert incoming.received == set()


def test_identifier_is_released_once() -> None:
    incoming = Incoming([5])
    assert incoming.release([5, 5]) == [True, False]
    assert incoming.release([5]) == [False]


def test_run_is_all_new_when_its_identifiers_are_unknown_and_different() -> None:
    incoming = Incoming([3])
    assert incoming.all_new([1, 2])
    assert not incoming.all_new([2, 3])
    assert not incoming.all_new([1, 1])


def test_restart_keeps_what_was_received() -> None:
    incoming = Incoming([3, 65_535])
    assert not incoming.is_new(65_535)
    assert incoming.release([3, 65_535]) == [True, True]


def test_client_may_have_its_receive_maximum_open_and_no_more() -> None:
    incoming = Incoming()
    incoming.admit(6, 10)
    incoming.admit(4, 10)
    with pytest.raises(RemoteProtocolError, match="more than 10") as caught:
        incoming.admit(1, 10)
    assert caught.value.reason is ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    assert incoming.open == 10


def test_run_is_admitted_whole_or_not_at_all() -> None:
    incoming = Incoming()
    with pytest.raises(RemoteProtocolError):
        incoming.admit(11, 10)
    assert incoming.open == 0
    incoming.admit(10, 10)


def test_puback_gives_the_place_back() -> None:
    incoming = Incoming()
    incoming.admit(2, 2)
    incoming.answered(1)
    incoming.admit(1, 2)
    assert incoming.open == 2


def test_qos_2_message_keeps_its_place_until_it_is_released() -> None:
    incoming = Incoming()
    incoming.admit(1, 1)
    incoming.take([9])
    with pytest.raises(RemoteProtocolError):
        incoming.admit(1, 1)
    incoming.release([9])
    incoming.admit(1, 1)


def test_refused_message_gives_its_place_and_its_identifier_back() -> None:
    incoming = Incoming()
    incoming.admit(2, 2)
    incoming.take([4, 5])
    incoming.give_back([4])
    assert incoming.is_new(4)
    assert not incoming.is_new(5)
    incoming.admit(1, 2)
    assert incoming.open == 2


def test_new_connection_begins_with_all_places_free() -> None:
    incoming = Incoming()
    incoming.admit(2, 2)
    incoming.take([1])
    incoming.begin()
    assert incoming.open == 0
    assert incoming.received == {1}
    incoming.admit(2, 2)


def test_repeated_release_gives_a_place_as_the_client_counts_it() -> None:
    # Receive Maximum 1: PUBREL 5 is repeated and PUBLISH 6 sent at once; the PUBCOMP of 5 frees the place for 7.
    incoming = Incoming()
    incoming.begin()
    incoming.release([5])
    incoming.admit(1, 1)
    incoming.take([6])
    incoming.admit(1, 1)
    with pytest.raises(RemoteProtocolError):
        incoming.admit(1, 1)


def test_repr_shows_the_counts() -> None:
    incoming = Incoming([1, 2])
    incoming.admit(3, 10)
    assert repr(incoming) == "<Incoming 2 unreleased, 3 open>"
