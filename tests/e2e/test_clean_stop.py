"""SIGTERM: what clients are told, and what becomes of the wills of those who were there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from cli.policy import PolicyRule
from mqtt.packets import Connect, Disconnect, Properties, Publish, Will
from tests.e2e.daemons import make_site
from tests.e2e.scripted_client import broker_of, scripted

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.e2e.daemons import Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

KEPT = Properties(session_expiry_interval=1_000)
STORE = '\n[store]\npath = "messages.db"\nkey = "messages.key"\n'
RULES = (
    PolicyRule(
        id="writes",
        principal="sensor",
        operations="write",
        resource="topic.c.**",
        description="test",
    ),
    PolicyRule(
        id="reads", principal="viewer", operations="read", resource="topic.c.**", description="test"
    ),
)
WILL = Will(topic="c/will", payload=b"gone", qos=1)


@pytest.fixture
def site(tmp_path: Path) -> Generator[Site]:
    made = make_site(tmp_path / "site", rules=RULES)
    made.limits = STORE
    try:
        yield made
    finally:
        made.stop()


async def waits_for_a_will(site: Site) -> None:
    """A viewer that keeps its session subscribes, and leaves."""
    async with scripted(broker_of(site), "viewer") as viewer:
        await viewer.connect(Connect(client_id="v", clean_start=False, properties=KEPT))
        await viewer.subscribe("c/#", qos=1)
        await viewer.leave()


async def gets_the_will_once(site: Site) -> None:
    async with scripted(broker_of(site), "viewer") as viewer:
        await viewer.connect(Connect(client_id="v", clean_start=False, properties=KEPT))
        message = await viewer.receive_of(Publish)
        assert (message.topic, message.payload) == ("c/will", b"gone")


@pytest.mark.parametrize("kept", [True, False], ids=["kept session", "session that ends"])
async def test_will_of_a_connected_client_is_not_lost_by_a_clean_stop(
    site: Site, *, kept: bool
) -> None:
    site.start_controller()
    daemon = site.start_broker(kernel_bundles=())
    await waits_for_a_will(site)
    async with scripted(broker_of(site), "sensor") as sensor:
        properties = KEPT if kept else Properties()
        await sensor.connect(Connect(client_id="s", will=WILL, properties=properties))
        assert await trio.to_thread.run_sync(daemon.stop) == 0
        goodbye = await sensor.receive_of(Disconnect)
        assert goodbye.properties.reason_string == "the broker is shutting down"
    site.start_broker(kernel_bundles=())
    await gets_the_will_once(site)


async def test_will_nobody_could_decide_about_before_a_clean_stop_is_published_after_it(
    site: Site,
) -> None:
    controller = site.start_controller()
    daemon = site.start_broker(kernel_bundles=())
    await waits_for_a_will(site)
    async with scripted(broker_of(site), "sensor") as sensor:
        await sensor.connect(Connect(client_id="s", will=WILL))
        controller.kill()
        assert await trio.to_thread.run_sync(daemon.stop) == 0
    site.start_controller()
    site.start_broker(kernel_bundles=())
    await gets_the_will_once(site)
