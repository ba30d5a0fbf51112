from __future__ import annotations

import pytest

from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.outgoing import Outgoing, Parcel, Piece, packet_id_of
from mqtt.packets import MAX_PACKET_ID

WINDOW = 1_000


def parcel(content: str = "m", *, count: int = 1, qos: int = 1, first: int = 0) -> Parcel[str]:
    return Parcel(content=content, first=first, count=count, qos=qos, size_bytes=10 * count)


def filled(*parcels: Parcel[str], at: int = 0) -> Outgoing[str]:
    outgoing: Outgoing[str] = Outgoing(at)
    for each in parcels:
        outgoing.add(each)
    return outgoing


def singles(names: str, *, qos: int = 1) -> Outgoing[str]:
    return filled(*(parcel(name, qos=qos) for name in names))


def taken(outgoing: Outgoing[str], window: int = WINDOW) -> list[Piece[str]]:
    pieces: list[Piece[str]] = []
    while (piece := outgoing.take(window)) is not None:
        pieces.append(piece)
    return pieces


def numbers(pieces: list[Piece[str]]) -> list[int]:
    return [piece.sequence + index for piece in pieces for index in range(piece.count)]


def ids(*sequences: int) -> list[int]:
    return [packet_id_of(sequence) for sequence in sequences]


def contents(parcels: list[Parcel[str]]) -> list[str]:
    return [each.content for each in parcels]


def counts(outgoing: Outgoing[str]) -> tuple[int, int, int]:
    return outgoing.in_flight, outgoing.queued, outgoing.low


# ---- sending


def test_packet_identifiers_run_from_1_to_65535_and_begin_again() -> None:
    assert ids(0, 1, MAX_PACKET_ID - 1, MAX_PACKET_ID) == [1, 2, MAX_PACKET_ID, 1]


def test_empty_queue_gives_nothing() -> None:
    outgoing = filled()
    assert outgoing.take(WINDOW) is None
    assert outgoing.head is None
    assert counts(outgoing) == (0, 0, 0)


def test_messages_leave_in_the_order_they_were_added() -> None:
    outgoing = filled(parcel("a", count=3), parcel("b", qos=2), parcel("c", count=2))
    pieces = taken(outgoing)
    assert [(p.parcel.content, p.index, p.count) for p in pieces] == [
        ("a", 0, 3),
        ("b", 0, 1),
        ("c", 0, 2),
    ]
    assert numbers(pieces) == [0, 1, 2, 3, 4, 5]
    assert not any(p.dup or p.release for p in pieces)


def test_window_bounds_what_is_unfinished() -> None:
    outgoing = filled(parcel("a", count=3), parcel("b", count=3))
    assert numbers(taken(outgoing, 4)) == [0, 1, 2, 3]
    assert counts(outgoing) == (4, 2, 0)
    outgoing.acknowledge(ids(0, 1))
    assert numbers(taken(outgoing, 4)) == [4, 5]
    assert counts(outgoing) == (4, 0, 2)


def test_smaller_window_of_the_next_connection_is_kept() -> None:
    outgoing = filled(parcel(count=5))
    taken(outgoing, 5)
    outgoing.rewind()
    assert numbers(taken(outgoing, 2)) == [0, 1]


def test_out_of_order_acknowledgement_frees_a_place_in_the_window() -> None:
    outgoing = filled(parcel(count=4))
    taken(outgoing, 2)
    outgoing.acknowledge(ids(1))
    assert numbers(taken(outgoing, 2)) == [2]
    assert counts(outgoing) == (2, 1, 0)


def test_qos_2_message_keeps_its_place_until_it_is_complete() -> None:
    outgoing = filled(parcel(count=2, qos=2))
    taken(outgoing, 1)
    outgoing.receive(ids(0))
    assert outgoing.take(1) is None
    outgoing.complete(ids(0))
    assert numbers(taken(outgoing, 1)) == [1]


def test_bytes_are_queued_until_the_whole_parcel_is_sent() -> None:
    outgoing = filled(parcel(count=2), parcel())
    assert outgoing.queued_bytes == 30
    outgoing.take(1)
    assert outgoing.queued_bytes == 30
    outgoing.take(2)
    assert outgoing.queued_bytes == 10
    outgoing.rewind()
    assert outgoing.queued_bytes == 30


def test_held_parcel_holds_back_what_is_behind_it() -> None:
    held = parcel("held", qos=2)
    outgoing = filled(parcel("a"), held, parcel("b"))
    held.held = True
    assert numbers(taken(outgoing)) == [0]
    assert [p.content for p in outgoing.waiting()] == ["held", "b"]
    held.held = False
    assert numbers(taken(outgoing)) == [1, 2]


def test_repr_shows_the_counts() -> None:
    outgoing = filled(parcel(count=3))
    taken(outgoing, 2)
    outgoing.acknowledge(ids(0))
    assert repr(outgoing) == "<Outgoing 1 under way, 1 queued, from 1>"
    assert len(outgoing) == 2


# ---- identifiers


def test_identifiers_under_way_are_unique_across_the_wrap() -> None:
    at = MAX_PACKET_ID - 2
    outgoing = filled(parcel(count=5), at=at)
    sent = numbers(taken(outgoing))
    assert ids(*sent) == [MAX_PACKET_ID - 1, MAX_PACKET_ID, 1, 2, 3]
    assert contents(outgoing.acknowledge(ids(*sent))) == ["m"]
    assert counts(outgoing) == (0, 0, at + 5)


def test_identifier_is_not_used_again_before_its_message_is_finished() -> None:
    outgoing = filled(*(parcel(count=40_000) for _ in range(2)))
    assert len(numbers(taken(outgoing, 100_000))) == MAX_PACKET_ID
    outgoing.acknowledge(ids(*range(1, MAX_PACKET_ID)))
    assert counts(outgoing) == (1, 80_000 - MAX_PACKET_ID, 0)
    assert outgoing.take(100_000) is None  # the next is 1, which is under way
    outgoing.acknowledge(ids(0))
    assert numbers(taken(outgoing, 100_000)) == list(range(MAX_PACKET_ID, 80_000))


def test_out_of_order_acknowledgements_are_told_apart_across_the_wrap() -> None:
    at = MAX_PACKET_ID - 1
    outgoing = filled(parcel("a"), parcel("b"), parcel("c"), at=at)
    taken(outgoing)
    assert outgoing.acknowledge([2, 1]) == []
    assert contents(outgoing.acknowledge([MAX_PACKET_ID])) == ["a", "b", "c"]


# ---- acknowledgements at QoS 1


def test_acknowledgements_in_order_finish_parcels_one_by_one() -> None:
    outgoing = filled(parcel("a", count=2), parcel("b", count=2))
    taken(outgoing)
    assert outgoing.acknowledge(ids(0)) == []
    assert contents(outgoing.acknowledge(ids(1, 2))) == ["a"]
    assert counts(outgoing) == (1, 0, 3)
    assert contents(outgoing.acknowledge(ids(3))) == ["b"]
    assert counts(outgoing) == (0, 0, 4)


def test_acknowledgements_of_many_parcels_at_once_finish_them_all() -> None:
    outgoing = singles("abcd")
    taken(outgoing)
    assert contents(outgoing.acknowledge(ids(0, 1, 2))) == ["a", "b", "c"]
    assert counts(outgoing) == (1, 0, 3)


@pytest.mark.parametrize("order", [(1, 0), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_acknowledgements_in_any_order_finish_the_same_parcels(order: tuple[int, ...]) -> None:
    at_once, each = singles("abc"), singles("abc")
    taken(at_once)
    taken(each)
    finished = contents(at_once.acknowledge(ids(*order)))
    assert finished == list("abc")[: len(order)]
    assert contents([p for one in order for p in each.acknowledge(ids(one))]) == finished
    assert counts(each) == counts(at_once) == (3 - len(order), 0, len(order))


def test_parcel_is_finished_only_when_those_before_it_are() -> None:
    outgoing = singles("abc")
    taken(outgoing)
    assert outgoing.acknowledge(ids(2)) == []
    assert outgoing.acknowledge(ids(1)) == []
    assert counts(outgoing) == (1, 0, 0)
    assert contents(outgoing.acknowledge(ids(0))) == ["a", "b", "c"]


def test_partly_sent_parcel_can_be_acknowledged_as_far_as_it_was_sent() -> None:
    outgoing = filled(parcel(count=5))
    taken(outgoing, 3)
    outgoing.acknowledge(ids(0, 1))
    outgoing.acknowledge(ids(2, 3))  # 3 was not sent
    assert counts(outgoing) == (0, 2, 3)
    assert numbers(taken(outgoing)) == [3, 4]


def test_unknown_acknowledgements_change_nothing() -> None:
    outgoing = filled(parcel(count=2), parcel("b", qos=2))
    taken(outgoing, 1)
    assert outgoing.acknowledge([2, 3, 9, 65_535]) == []
    assert outgoing.complete([2, 3]) == []
    assert outgoing.refuse(9) == []
    assert outgoing.receive([3]) == ([], [3])
    assert counts(outgoing) == (1, 2, 0)


def test_acknowledgement_counts_once() -> None:
    outgoing = singles("abc")
    taken(outgoing)
    assert outgoing.acknowledge([2, 2]) == []
    assert outgoing.acknowledge([2]) == []
    assert counts(outgoing) == (2, 0, 0)
    assert contents(outgoing.acknowledge([1, 1])) == ["a", "b"]
    assert counts(outgoing) == (1, 0, 2)


def test_no_acknowledgement_at_all_changes_nothing() -> None:
    outgoing = singles("a")
    taken(outgoing)
    assert outgoing.acknowledge([]) == []
    assert counts(outgoing) == (1, 0, 0)


def test_puback_for_qos_2_is_a_protocol_error_and_changes_nothing() -> None:
    outgoing = filled(parcel("a"), parcel("b"), parcel("c", qos=2))
    taken(outgoing)
    for order in ((0, 1, 2), (2, 1, 0)):
        with pytest.raises(RemoteProtocolError, match="identifier 3 belongs to QoS 2") as caught:
            outgoing.acknowledge(ids(*order))
        assert caught.value.reason is ReasonCode.PROTOCOL_ERROR
        assert counts(outgoing) == (3, 0, 0)
    assert contents(outgoing.acknowledge(ids(0, 1))) == ["a", "b"]


@pytest.mark.parametrize("sent", [3, 4])
def test_puback_run_that_ends_in_a_qos_2_message_is_a_protocol_error(sent: int) -> None:
    outgoing = filled(parcel("a", count=2), parcel("b", count=2, qos=2))
    taken(outgoing, sent)  # the second parcel in part, or wholly
    with pytest.raises(RemoteProtocolError):
        outgoing.acknowledge(ids(0, 1, 2))
    assert counts(outgoing) == (sent, 4 - sent, 0)


def test_acknowledgement_for_a_discarded_number_is_not_taken_for_the_next_parcel() -> None:
    outgoing = filled(parcel("a"), parcel("lost"), parcel("b", count=3))
    taken(outgoing, 1)
    outgoing.discard_head()
    taken(outgoing, 3)
    assert contents(outgoing.acknowledge(ids(0, 1, 2))) == ["a"]
    assert counts(outgoing) == (1, 1, 3)
    assert numbers(taken(outgoing)) == [4]


# ---- acknowledgements at QoS 2


def test_pubrec_names_what_is_to_be_released() -> None:
    outgoing = filled(parcel(count=3, qos=2))
    taken(outgoing)
    assert outgoing.receive([2, 77, 1]) == ([1, 0], [77])
    assert outgoing.is_released(0)
    assert not outgoing.is_released(2)
    assert counts(outgoing) == (3, 0, 0)


def test_repeated_pubrec_is_released_again() -> None:
    outgoing = filled(parcel(qos=2))
    taken(outgoing)
    assert outgoing.receive([1]) == ([0], [])
    assert outgoing.receive([1]) == ([0], [])


def test_pubrec_for_qos_1_is_a_protocol_error_and_changes_nothing() -> None:
    outgoing = filled(parcel("a", qos=2), parcel("b"))
    taken(outgoing)
    with pytest.raises(RemoteProtocolError, match="identifier 2 belongs to QoS 1"):
        outgoing.receive([1, 2])
    assert not outgoing.is_released(0)
    with pytest.raises(RemoteProtocolError):
        outgoing.refuse(2)
    assert counts(outgoing) == (2, 0, 0)


def test_pubcomp_finishes_only_after_pubrec() -> None:
    outgoing = singles("ab", qos=2)
    taken(outgoing)
    assert outgoing.complete([1, 2]) == []
    assert counts(outgoing) == (2, 0, 0)
    outgoing.receive([1, 2])
    assert contents(outgoing.complete([1, 2])) == ["a", "b"]
    assert counts(outgoing) == (0, 0, 2)
    assert not outgoing.is_released(0)


def test_pubcomp_in_any_order_finishes_each_parcel_once() -> None:
    outgoing = singles("abcd", qos=2)
    taken(outgoing)
    outgoing.receive([1, 2, 3, 4])
    assert outgoing.complete([3, 2, 2]) == []
    assert contents(outgoing.complete([1, 4, 3])) == ["a", "b", "c", "d"]
    assert counts(outgoing) == (0, 0, 4)


def test_pubcomp_for_qos_1_is_ignored() -> None:
    outgoing = singles("a")
    taken(outgoing)
    assert outgoing.complete([1]) == []
    assert counts(outgoing) == (1, 0, 0)


def test_refused_message_is_finished() -> None:
    outgoing = singles("ab", qos=2)
    taken(outgoing)
    assert outgoing.refuse(2) == []
    assert contents(outgoing.refuse(1)) == ["a", "b"]
    assert counts(outgoing) == (0, 0, 2)


# ---- another connection


def test_only_what_was_sent_before_is_sent_again_with_dup() -> None:
    outgoing = filled(parcel("a", count=4))
    taken(outgoing, 2)
    outgoing.rewind()
    assert counts(outgoing) == (0, 4, 0)
    pieces = taken(outgoing)
    assert [(p.index, p.count, p.dup) for p in pieces] == [(0, 2, True), (2, 2, False)]


def test_messages_keep_their_identifiers_and_order_on_the_next_connection() -> None:
    outgoing = filled(parcel("a", count=2), parcel("b"), parcel("c"))
    before = numbers(taken(outgoing, 3))
    outgoing.acknowledge(ids(1))
    outgoing.rewind()
    assert numbers(taken(outgoing)) == [n for n in before if n != 1] + [3]


def test_released_message_is_never_published_again() -> None:
    outgoing = filled(parcel(count=3, qos=2))
    taken(outgoing)
    outgoing.receive(ids(1))
    outgoing.rewind()
    pieces = taken(outgoing)
    assert [(p.index, p.count, p.dup, p.release) for p in pieces] == [
        (0, 1, True, False),
        (1, 1, False, True),
        (2, 1, True, False),
    ]
    assert outgoing.complete(ids(1)) == []
    assert counts(outgoing) == (2, 0, 0)


def test_acknowledgement_before_the_resend_is_unknown() -> None:
    outgoing = singles("a")
    taken(outgoing)
    outgoing.rewind()
    assert outgoing.acknowledge([1]) == []
    assert counts(outgoing) == (0, 1, 0)


def test_message_finished_out_of_order_is_not_sent_again() -> None:
    outgoing = singles("abc")
    taken(outgoing)
    outgoing.acknowledge(ids(1, 2))
    outgoing.rewind()
    assert len(outgoing) == 1
    assert numbers(taken(outgoing)) == [0]
    assert contents(outgoing.acknowledge(ids(0))) == ["a", "b", "c"]


def test_parcel_behind_is_finished_though_its_turn_has_not_come_again() -> None:
    outgoing = singles("ab")
    taken(outgoing)
    outgoing.acknowledge(ids(1))
    outgoing.rewind()
    outgoing.take(WINDOW)
    assert contents(outgoing.acknowledge(ids(0))) == ["a", "b"]
    assert outgoing.queued_bytes == 0
    assert counts(outgoing) == (0, 0, 2)


def test_pubcomp_before_the_pubrel_was_repeated_is_unknown() -> None:
    outgoing = singles("a", qos=2)
    taken(outgoing)
    outgoing.receive([1])
    outgoing.rewind()
    assert outgoing.complete([1]) == []
    assert counts(outgoing) == (0, 1, 0)
    assert [p.release for p in taken(outgoing)] == [True]


def test_partly_finished_parcel_goes_on_where_its_finished_part_ends() -> None:
    outgoing = filled(parcel("a"), parcel("b", count=3))
    taken(outgoing)
    outgoing.acknowledge(ids(1))
    outgoing.rewind()
    outgoing.take(WINDOW)
    assert contents(outgoing.acknowledge(ids(0))) == ["a"]
    assert counts(outgoing) == (0, 2, 2)
    assert numbers(taken(outgoing)) == [2, 3]


def test_rewind_twice_is_rewind_once() -> None:
    outgoing = filled(parcel("a", count=3), parcel("b"))
    taken(outgoing, 2)
    outgoing.acknowledge(ids(0))
    outgoing.rewind()
    once = counts(outgoing), outgoing.queued_bytes, outgoing.sent_below
    outgoing.rewind()
    assert (counts(outgoing), outgoing.queued_bytes, outgoing.sent_below) == once
    pieces = taken(outgoing)
    assert [(p.sequence, p.count, p.dup) for p in pieces] == [
        (1, 1, True),
        (2, 1, False),
        (3, 1, False),
    ]


def test_connection_lost_during_the_resend_loses_nothing() -> None:
    outgoing = filled(parcel(count=4))
    taken(outgoing)
    outgoing.rewind()
    taken(outgoing, 2)
    outgoing.rewind()
    assert [(p.index, p.count, p.dup) for p in taken(outgoing)] == [(0, 4, True)]


def test_sent_below_says_what_was_never_sent() -> None:
    outgoing = filled(parcel(count=3), parcel())
    assert outgoing.sent_below == 0
    taken(outgoing, 2)
    assert outgoing.sent_below == 2
    outgoing.rewind()
    assert outgoing.sent_below == 2
    taken(outgoing)
    assert outgoing.sent_below == 4
    outgoing.acknowledge(ids(0, 1, 2, 3))
    assert outgoing.sent_below == 4


# ---- another life


def numbered(sequence: int, *, count: int = 1, qos: int = 1) -> Parcel[str]:
    made = parcel(f"p{sequence}", count=count, qos=qos)
    made.sequence = sequence
    return made


def test_restart_sends_what_is_unfinished_in_order() -> None:
    outgoing: Outgoing[str] = Outgoing(12, fresh_from=9)
    outgoing.restore(numbered(5, count=3), settled_below=6)
    outgoing.restore(numbered(8, count=3), settled_below=6)
    assert counts(outgoing) == (0, 5, 6)
    pieces = taken(outgoing)
    assert [(p.sequence, p.index, p.count, p.dup) for p in pieces] == [
        (6, 1, 2, True),
        (8, 0, 1, True),
        (9, 1, 2, False),
    ]
    assert contents(outgoing.acknowledge(ids(6, 7, 8, 9, 10))) == ["p5", "p8"]
    outgoing.add(parcel("new"))
    assert numbers(taken(outgoing)) == [12]


def test_restart_repeats_pubrel_for_what_was_released() -> None:
    outgoing: Outgoing[str] = Outgoing(4)
    outgoing.restore(numbered(0, count=4, qos=2), settled_below=1, released=[0, 2])
    assert not outgoing.is_released(0)
    assert [(p.sequence, p.release) for p in taken(outgoing)] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    outgoing.complete(ids(2))
    assert counts(outgoing) == (2, 0, 1)


def test_restart_leaves_out_what_is_finished_and_numbers_above_it() -> None:
    outgoing: Outgoing[str] = Outgoing()
    outgoing.restore(numbered(3, count=2), settled_below=5)
    assert outgoing.parcels() == []
    assert counts(outgoing) == (0, 0, 5)


def test_what_is_added_after_a_restart_is_fresh() -> None:
    outgoing: Outgoing[str] = Outgoing(3)
    outgoing.restore(numbered(2), settled_below=0)
    outgoing.add(parcel("new"))
    fresh = [outgoing.head_is_fresh]
    assert [(p.sequence, p.dup) for p in taken(outgoing, 1)] == [(2, True)]
    fresh.append(outgoing.head_is_fresh)
    assert fresh == [False, True]
    assert [(p.sequence, p.dup) for p in taken(outgoing)] == [(3, False)]


# ---- elsewhere


def test_messages_that_wait_elsewhere_keep_their_numbers_and_their_place() -> None:
    outgoing = singles("a")
    assert (outgoing.reserve(2), outgoing.reserve(1)) == (1, 3)
    assert (outgoing.elsewhere_from, outgoing.next_sequence) == (1, 4)
    assert numbers(taken(outgoing)) == [0]
    outgoing.bring(numbered(1, count=2), 3)
    outgoing.bring(numbered(3), None)
    assert numbers(taken(outgoing)) == [1, 2, 3]
    outgoing.add(parcel("b"))
    assert numbers(taken(outgoing)) == [4]


def test_nothing_that_waits_elsewhere_is_finished() -> None:
    outgoing = singles("a")
    outgoing.reserve(2)
    taken(outgoing)
    outgoing.acknowledge(ids(0))
    assert counts(outgoing) == (0, 0, 1)
    outgoing.rewind()
    assert outgoing.sent_below == 1
    outgoing.bring(numbered(1, count=2), None)
    assert counts(outgoing) == (0, 2, 1)
    assert outgoing.head_is_fresh


# ---- giving up


def test_discarded_head_is_finished_and_the_next_has_its_turn() -> None:
    outgoing = filled(parcel("a", count=2), parcel("b"))
    left, finished = outgoing.discard_head()
    assert (left, contents(finished)) == (2, ["a"])
    assert counts(outgoing) == (0, 1, 2)
    assert outgoing.queued_bytes == 10
    assert numbers(taken(outgoing)) == [2]


def test_discard_spares_what_is_under_way() -> None:
    outgoing = filled(parcel("a", count=3), parcel("b"))
    taken(outgoing, 2)
    assert outgoing.discard_head() == (1, [])
    assert counts(outgoing) == (2, 1, 0)
    outgoing.rewind()
    assert outgoing.queued_bytes == 30
    assert numbers(taken(outgoing)) == [0, 1, 3]
    assert outgoing.acknowledge(ids(2)) == []  # its identifier is nobody's
    assert contents(outgoing.acknowledge(ids(0, 1))) == ["a"]
    assert contents(outgoing.acknowledge(ids(3))) == ["b"]


def test_acknowledgements_across_a_discarded_number_are_not_taken_for_others() -> None:
    outgoing = filled(parcel("a"), parcel("lost"), parcel("b"))
    taken(outgoing, 1)
    outgoing.discard_head()
    taken(outgoing)
    assert contents(outgoing.acknowledge(ids(0, 1))) == ["a"]
    assert counts(outgoing) == (1, 0, 2)


def test_discard_of_the_rest_finishes_a_parcel_that_was_acknowledged() -> None:
    outgoing = filled(parcel("a", count=3))
    taken(outgoing, 2)
    outgoing.acknowledge(ids(0, 1))
    left, finished = outgoing.discard_head()
    assert (left, contents(finished)) == (1, ["a"])
    assert counts(outgoing) == (0, 0, 3)


# ---- another receiver


def test_withdraw_takes_what_is_not_acknowledged_at_qos_1() -> None:
    outgoing = filled(parcel("group", count=5, first=7), parcel("own"))
    taken(outgoing, 4)
    outgoing.acknowledge(ids(0, 2))
    out, finished = outgoing.withdraw(lambda content: content == "group")
    assert finished == []
    assert [(p.content, p.first, p.count, p.qos, p.size_bytes) for p in out] == [
        ("group", 8, 1, 1, 10),
        ("group", 10, 2, 1, 20),
    ]
    assert counts(outgoing) == (0, 1, 5)
    assert outgoing.queued_bytes == 10
    assert [(p.sequence, p.dup) for p in taken(outgoing)] == [(5, False)]


def test_withdraw_leaves_qos_2_messages_that_were_sent() -> None:
    outgoing = filled(parcel("group", count=4, qos=2))
    taken(outgoing, 3)
    outgoing.receive(ids(0, 1))
    outgoing.complete(ids(1))
    out, _ = outgoing.withdraw(lambda content: content == "group")
    assert [(p.first, p.count, p.qos) for p in out] == [(3, 1, 2)]
    assert counts(outgoing) == (0, 2, 0)
    assert [(p.sequence, p.parcel.first, p.release, p.dup) for p in taken(outgoing)] == [
        (0, 0, True, False),
        (2, 2, False, True),
    ]
    outgoing.receive(ids(2))
    outgoing.complete(ids(0, 2))
    assert counts(outgoing) == (0, 0, 4)


def test_withdraw_finishes_what_waited_only_for_what_was_taken_out() -> None:
    outgoing = singles("gabg")
    taken(outgoing)
    outgoing.acknowledge(ids(1, 2))
    out, finished = outgoing.withdraw(lambda content: content == "g")
    assert contents(out) == ["g", "g"]
    assert contents(finished) == ["a", "b"]
    assert counts(outgoing) == (0, 0, 4)
    assert outgoing.queued_bytes == 0
    outgoing.add(parcel("new"))
    assert numbers(taken(outgoing)) == [4]
    assert contents(outgoing.acknowledge(ids(4))) == ["new"]


def test_withdraw_joins_neighbours_of_one_content_and_qos_only() -> None:
    outgoing = filled(
        parcel("g"), parcel("g", first=1), parcel("g", first=2, qos=2), parcel("g", first=9)
    )
    out, _ = outgoing.withdraw(lambda content: content == "g")
    assert [(p.first, p.count, p.qos) for p in out] == [(0, 2, 1), (2, 1, 2), (9, 1, 1)]


def test_withdraw_of_nothing_changes_nothing() -> None:
    outgoing = singles("ab")
    taken(outgoing, 1)
    assert outgoing.withdraw(lambda content: content == "g") == ([], [])
    assert counts(outgoing) == (0, 2, 0)
