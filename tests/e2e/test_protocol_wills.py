"""Wills: who leaves without a word has the last one, seen by paho over mutual TLS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from tests.e2e.clients import unique
from tests.e2e.paho_sessions import PahoSession, WillOf

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

WITH_WILL = 0x04


@pytest.mark.parametrize("version", [MQTTv5, MQTTv311])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_will_of_a_crashed_client_is_published_at_its_qos(
    system: Running, qos: int, version: MQTTProtocolVersion
) -> None:
    will = WillOf(topic=f"bench/{unique('will')}", payload=b"gone", qos=qos)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic, qos=2)
        with PahoSession(system.ready, "bench", will=will, version=version) as client:
            client.crash()
        found = watcher.receive()
        assert (found.payload, found.qos, found.retain) == (b"gone", qos, False)


def test_will_is_discarded_by_a_goodbye(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('goodbye')}", payload=b"gone")
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will) as client:
            client.leave()
        watcher.tell(will.topic, b"end")
        assert watcher.hear(1) == [b"end"]


def test_will_is_published_by_a_goodbye_that_asks_for_it(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('asked')}", payload=b"gone")
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will) as client:
            client.leave(reason=WITH_WILL)
        assert watcher.hear(1) == [b"gone"]


def test_will_is_retained_when_it_says_so(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('retained')}", payload=b"gone", retain=True)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will) as client:
            client.crash()
        assert watcher.hear(1) == [b"gone"]
    with PahoSession(system.ready, "bench") as late:
        late.listen(will.topic)
        found = late.receive()
        assert (found.payload, found.retain) == (b"gone", True)


def test_will_waits_for_its_delay(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('delayed')}", payload=b"gone", delay_s=1)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will, expiry_s=60) as client:
            client.crash()
            crashed = time.monotonic()
        watcher.tell(will.topic, b"before")
        assert watcher.hear(2) == [b"before", b"gone"]
        assert 0.9 < time.monotonic() - crashed < 5


def test_will_comes_with_the_end_of_the_session_at_the_latest(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('session')}", payload=b"gone", delay_s=600)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will, expiry_s=1) as client:
            client.crash()
        assert watcher.hear(1) == [b"gone"]


def test_will_without_a_session_comes_at_once_whatever_its_delay(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('none')}", payload=b"gone", delay_s=600)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with PahoSession(system.ready, "bench", will=will) as client:
            client.crash()
        assert watcher.hear(1) == [b"gone"]


def test_will_is_not_sent_when_the_client_is_back_within_the_delay(system: Running) -> None:
    topic = f"bench/{unique('back')}"
    returning = WillOf(topic=topic, payload=b"returning", delay_s=1)
    gone = WillOf(topic=topic, payload=b"gone", delay_s=1)
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(topic)
        with PahoSession(system.ready, "bench", will=returning, expiry_s=60) as first:
            first.crash()
        back = PahoSession(system.ready, "bench", client_id=first.client_id, clean_start=False)
        with back, PahoSession(system.ready, "bench", will=gone, expiry_s=60) as second:
            assert back.present
            second.crash()  # later than the first: its will comes when that of the first would have come
            assert watcher.hear(1) == [b"gone"]


def test_will_of_a_client_that_is_taken_over_is_published(system: Running) -> None:
    will = WillOf(topic=f"bench/{unique('over')}", payload=b"gone")
    with PahoSession(system.ready, "bench") as watcher:
        watcher.listen(will.topic)
        with (
            PahoSession(system.ready, "bench", will=will) as older,
            PahoSession(system.ready, "bench", client_id=older.client_id),
        ):
            assert watcher.hear(1) == [b"gone"]


def test_will_to_a_forbidden_topic_reaches_nobody(system: Running) -> None:
    will = WillOf(topic=f"telemetry/{unique('forged')}", payload=b"forged")
    with (
        PahoSession(system.ready, "viewer") as watcher,
        PahoSession(system.ready, "sensor") as sensor,
    ):
        watcher.listen(will.topic)
        with PahoSession(system.ready, "viewer", will=will) as viewer:
            viewer.leave(reason=WITH_WILL)
        sensor.tell(will.topic, b"real")
        assert watcher.hear(1) == [b"real"]
