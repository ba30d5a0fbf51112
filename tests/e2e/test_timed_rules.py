"""Rules that end by themselves: what was allowed, and remembered as such, stops without a change of the policy."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

import pytest

from mqtt.errors import ReasonCode
from tests.e2e.clients import paho, ruled, unique

if TYPE_CHECKING:
    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

LASTS_S = 4.0
LATE_S = 1.0
"""How much later than its end a grant may still be used here: clocks are looked at once a tick of a busy machine."""


def test_grants_to_write_and_to_read_end_when_they_say(system: Running) -> None:
    topic = f"telemetry/{unique('timed')}"
    resource = f"topic.{topic.replace('/', '.')}"
    ends_at = time.time() + LASTS_S  # noqa: TID251  the clock that rules end by
    with (
        ruled(system.ready, "viewer", "write", resource, expires_at=ends_at),
        ruled(system.ready, "bench", "read", resource, expires_at=ends_at),
        ruled(system.ready, "bench", "write", resource),
        paho(system.ready, "viewer") as writer,
        paho(system.ready, "bench") as reader,
    ):
        assert reader.subscribe(topic, qos=1).code == 1
        answers: list[tuple[float, int]] = []
        while time.time() < ends_at + 2 * LATE_S:  # noqa: TID251  as above
            asked_at = time.time()  # noqa: TID251  as above
            answers.append((asked_at, writer.publish(topic, b"%f" % asked_at, qos=1).code))
            time.sleep(0.05)
        assert {code for at, code in answers if at < ends_at - LATE_S} == {ReasonCode.SUCCESS}
        late = {code for at, code in answers if at > ends_at + LATE_S}
        assert late == {ReasonCode.NOT_AUTHORIZED}
        reader.publish(topic, b"own", qos=1)
        heard: list[float] = []
        while True:
            try:
                heard.append(float(reader.messages.get(timeout=1.0).payload))
            except queue.Empty:
                break
        assert heard
        assert max(heard) < ends_at + LATE_S
