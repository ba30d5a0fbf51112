"""Dead letters over the wire: what a session could not take is told, with the reason, to who may read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.clients import unique
from tests.e2e.daemons import make_site
from tests.e2e.paho_sessions import PahoSession, users_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

TABLES = """
[store]
path = "messages.db"
key = "messages.key"
[mqtt]
dead_letter_topic = "bench/dead"
[limits]
max_queued_messages = 1
max_stored_messages = 0
"""


def test_message_that_found_the_queue_full_is_a_dead_letter_with_its_reason(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    site.limits = TABLES
    try:
        site.start_controller()
        site.start_broker(kernel_bundles=())
        ready = site.ready()
        topic = f"bench/{unique('full')}"
        with PahoSession(ready, "bench", expiry_s=60) as absent:
            absent.listen(topic, qos=1)
            absent.leave()
        with (
            PahoSession(ready, "bench") as undertaker,
            PahoSession(ready, "bench") as writer,
        ):
            undertaker.listen("bench/dead/#", qos=1)
            for payload in (b"kept", b"lost"):
                writer.tell(topic, payload, qos=1)
            letter = undertaker.receive()
        assert letter.topic == f"bench/dead/queue-full/{topic}"
        assert letter.payload == b"lost"
        assert ("dead-letter-reason", "queue full") in users_of(letter)
        with PahoSession(
            ready, "bench", client_id=absent.client_id, clean_start=False, expiry_s=60
        ) as back:
            assert back.hear(1) == [b"kept"]
    finally:
        site.stop()
