"""Sessions that outlive their connection: what waits, in which order, for how long; seen by paho over mutual TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from tests.e2e.clients import ANSWER_S, unique
from tests.e2e.paho_sessions import PahoSession, let_pass

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

TAKEN_OVER = 0x8E
EXPIRY_S = 60


def absent(system: Running, topic: str, *, qos: int = 1, expiry_s: int = EXPIRY_S) -> str:
    """The client id of a session that subscribes to a topic and is offline."""
    with PahoSession(system.ready, "bench", expiry_s=expiry_s) as client:
        assert not client.present
        assert client.listen(topic, qos=qos) == qos
        client.leave()
    return client.client_id


def back(system: Running, client_id: str, *, clean_start: bool = False) -> PahoSession:
    """Another connection of that client."""
    return PahoSession(
        system.ready, "bench", client_id=client_id, clean_start=clean_start, expiry_s=EXPIRY_S
    )


@pytest.mark.parametrize("qos", [1, 2])
def test_messages_of_an_absence_arrive_in_order(system: Running, qos: int) -> None:
    topic = f"bench/{unique('absent')}"
    payloads = [b"%d" % number for number in range(200)]
    client_id = absent(system, topic, qos=qos)
    with PahoSession(system.ready, "bench") as writer:
        writer.tell_all(topic, payloads, qos=qos)
        with back(system, client_id) as client:
            assert client.present
            assert client.hear(len(payloads)) == payloads
            writer.tell(topic, b"live", qos=qos)
            assert client.hear(1) == [b"live"]


def test_absent_client_of_3_1_1_misses_nothing(system: Running) -> None:
    topic = f"bench/{unique('old')}"
    client_id = unique("old")

    def connection() -> PahoSession:
        return PahoSession(
            system.ready, "bench", client_id=client_id, clean_start=False, version=MQTTv311
        )

    with connection() as client:
        assert not client.present
        client.subscribe(topic, qos=1)
    with PahoSession(system.ready, "bench") as writer:
        writer.tell_all(topic, [b"1", b"2"], qos=1)
    with connection() as client:
        assert client.present
        assert client.hear(2) == [b"1", b"2"]
    with PahoSession(system.ready, "bench", client_id=client_id, version=MQTTv311) as client:
        assert not client.present


def test_crash_keeps_the_session_as_a_goodbye_does(system: Running) -> None:
    topic = f"bench/{unique('crash')}"
    with PahoSession(system.ready, "bench", expiry_s=EXPIRY_S) as client:
        client.listen(topic)
        client.crash()
    with PahoSession(system.ready, "bench") as writer:
        writer.tell(topic, b"missed")
    with back(system, client.client_id) as returned:
        assert returned.present
        assert returned.hear(1) == [b"missed"]


def test_clean_start_discards_the_session(system: Running) -> None:
    topic = f"bench/{unique('clean')}"
    client_id = absent(system, topic)
    with PahoSession(system.ready, "bench") as writer:
        writer.tell(topic, b"old")
        with back(system, client_id, clean_start=True) as client:
            assert not client.present
            writer.tell(topic, b"unsubscribed")
            client.listen(topic)
            writer.tell(topic, b"new")
            assert client.hear(1) == [b"new"]


def test_session_ends_when_its_expiry_has_passed(system: Running) -> None:
    client_id = absent(system, f"bench/{unique('expiry')}", expiry_s=1)
    let_pass(system.ready, 3)
    with back(system, client_id) as client:
        assert not client.present


def test_session_without_an_expiry_ends_with_the_connection(system: Running) -> None:
    client_id = absent(system, f"bench/{unique('none')}", expiry_s=0)
    with back(system, client_id) as client:
        assert not client.present


def test_goodbye_may_end_the_session(system: Running) -> None:
    with PahoSession(system.ready, "bench", expiry_s=EXPIRY_S) as client:
        client.leave(expiry_s=0)
    with back(system, client.client_id) as returned:
        assert not returned.present


def test_subscription_is_kept_and_may_be_given_up_later(system: Running) -> None:
    topic = f"bench/{unique('kept')}"
    client_id = absent(system, topic)
    with back(system, client_id) as client:
        client.tell(topic, b"mine")
        assert client.hear(1) == [b"mine"]
        assert client.unsubscribe(topic) == [0]
    with back(system, client_id) as client:
        assert client.present
        client.tell(topic, b"unheard")
        client.listen(topic)
        client.tell(topic, b"heard")
        assert client.hear(1) == [b"heard"]


def test_unacknowledged_qos_1_comes_again_as_a_duplicate(system: Running) -> None:
    topic = f"bench/{unique('again')}"
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", expiry_s=EXPIRY_S, manual_acks=True) as client,
    ):
        client.listen(topic)
        writer.tell_all(topic, [b"1", b"2", b"3"], qos=1)
        first = [client.receive() for _ in range(3)]
        client.client.ack(first[0].mid, 1)
        client.listen(f"{topic}/acknowledged")  # answered after the acknowledgement was read
        client.crash()
        with back(system, client.client_id) as returned:
            again = [returned.receive() for _ in range(2)]
            writer.tell(topic, b"new")
            new = returned.receive()
    assert not any(message.dup for message in first)
    assert [(message.payload, message.mid, message.dup) for message in again] == [
        (message.payload, message.mid, True) for message in first[1:]
    ]
    assert (new.payload, new.dup) == (b"new", False)


def test_qos_2_is_never_doubled_by_a_crash(system: Running) -> None:
    topic = f"bench/{unique('once')}"
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", expiry_s=EXPIRY_S, manual_acks=True) as client,
    ):
        client.listen(topic, qos=2)
        writer.tell(topic, b"once", qos=2)
        assert client.hear(1) == [b"once"]  # PUBREL was received, PUBCOMP is not sent
        client.crash()
        with back(system, client.client_id) as returned:
            assert returned.present
            writer.tell(topic, b"next", qos=2)
            assert returned.hear(1) == [b"next"]


@pytest.mark.parametrize("version", [MQTTv5, MQTTv311])
def test_second_connection_takes_the_session_over(
    system: Running, version: MQTTProtocolVersion
) -> None:
    topic = f"bench/{unique('over')}"
    client_id = unique("over")

    def connection() -> PahoSession:
        return PahoSession(
            system.ready,
            "bench",
            client_id=client_id,
            clean_start=False,
            expiry_s=EXPIRY_S,
            version=version,
        )

    with connection() as older:
        older.subscribe(topic, qos=1)
        with connection() as newer:
            reason = older.ended.get(timeout=ANSWER_S)
            assert version == MQTTv311 or reason == TAKEN_OVER
            assert newer.present
            newer.tell(topic, b"1")
            assert newer.hear(1) == [b"1"]
        assert older.messages.empty()


def test_session_of_another_principal_is_not_resumed(system: Running) -> None:
    client_id = absent(system, f"bench/{unique('mine')}")
    with PahoSession(
        system.ready, "viewer", client_id=client_id, clean_start=False, expiry_s=EXPIRY_S
    ) as stranger:
        assert not stranger.present
    with back(system, client_id) as client:
        assert client.present


def test_many_absent_clients_miss_nothing(system: Running) -> None:
    topic = f"bench/{unique('crowd')}"
    ids = [absent(system, topic) for _ in range(5)]
    with PahoSession(system.ready, "bench") as writer:
        writer.tell_all(topic, [b"1", b"2"], qos=1)
    for client_id in ids:
        with back(system, client_id) as client:
            assert client.hear(2) == [b"1", b"2"]
