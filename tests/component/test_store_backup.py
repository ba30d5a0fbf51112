"""A backup of the store, made as docs/operations.md says, is a broker's state elsewhere."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest

from mqtt.packets import Connect, Properties, Publish
from tests.e2e.clients import unique
from tests.e2e.crowd import Flood, loaded, rough
from tests.e2e.daemons import make_site

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.e2e.daemons import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

STORE: Final = """
[store]
path = "{folder}/messages.db"
key = "{folder}/messages.key"
"""


@pytest.fixture
def site(tmp_path: Path) -> Generator[Site]:
    made = make_site(tmp_path / "site")
    try:
        made.start_controller()
        yield made
    finally:
        made.stop()


async def test_store_that_was_copied_is_the_same_broker(site: Site, tmp_path: Path) -> None:
    folder, backup = tmp_path / "store", tmp_path / "backup"
    folder.mkdir()
    backup.mkdir()
    topic, client_id = f"bench/{unique('backup')}", unique("kept")
    keeps = Connect(
        client_id=client_id,
        clean_start=False,
        properties=Properties(session_expiry_interval=3_600),
    )
    with loaded(site, STORE.format(folder=folder)) as broker:
        async with rough(broker.at, "bench") as client:
            await client.enter(keeps)
            await client.subscribe(topic, qos=1)
        await broker.until(lambda figures: figures["connections"] == 0)
        async with rough(broker.at, "bench") as publisher:
            await publisher.enter()
            await Flood(publisher, topic, 100, qos=1).run(1)
    for file in folder.iterdir():
        shutil.copy2(file, backup / file.name)
    shutil.rmtree(folder)
    with loaded(site, STORE.format(folder=backup)) as broker:
        async with rough(broker.at, "bench") as client:
            assert (await client.enter(keeps)).session_present
            message = await client.receive()
            assert isinstance(message, Publish)
            assert message.topic == topic
