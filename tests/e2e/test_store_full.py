"""A store that takes no more: publishers are told, nothing acknowledged is lost, and it works again when there is room.

Each test has a broker and a store of its own. The store is full because of its own bound, or because the kernel lets the broker's
process write no file beyond a size, as a full disk would.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
import trio

from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import Connect, Properties, Puback, Publish, Version
from tests.e2e.clients import unique
from tests.e2e.crowd import loaded, rough
from tests.e2e.daemons import make_site
from tests.e2e.running import START_DEADLINE_S, STOCKADE
from tests.e2e.scripted_client import scripted

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.e2e.crowd import Loaded, Rough
    from tests.e2e.daemons import Site
    from tests.e2e.scripted_client import Broker, ScriptedClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

MAX_STORE_BYTES: Final = 1 << 20
SIZE: Final = 20_000
MOST: Final = 200
"""Messages of `SIZE` that a full store has refused long before."""

LOST_WRITE = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); "  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Runs a program that file modes hold for, root's too; without effect for those they hold for anyway."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    made = make_site(tmp_path_factory.mktemp("full"))
    try:
        made.start_controller()
        yield made
    finally:
        made.stop()


@pytest.fixture
def store(site: Site) -> Path:
    """A store's file of the test's own."""
    return site.folder / f"{unique('store')}.db"


@pytest.fixture
def topic() -> str:
    return f"bench/{unique('full')}"


def table(store: Path, *, max_bytes: int = MAX_STORE_BYTES) -> str:
    return (
        f'[store]\npath = "{store}"\nkey = "{store.with_suffix(".key")}"\nmax_bytes = {max_bytes}\n'
    )


def kept(client_id: str) -> Connect:
    return Connect(
        client_id=client_id,
        clean_start=False,
        properties=Properties(session_expiry_interval=3_600),
    )


def numbered(number: int) -> bytes:
    return number.to_bytes(8) + bytes(SIZE)


async def leave_session(broker: Broker, topic: str) -> str:
    """A session that subscribed and is away; its client identifier."""
    client_id = unique("away")
    async with scripted(broker, "bench") as away:
        await away.connect(kept(client_id))
        await away.subscribe(topic, qos=1)
        await away.leave()
    return client_id


async def fill(speaker: ScriptedClient, topic: str) -> list[int]:
    """Publish until that is refused; the numbers of what was acknowledged."""
    for number in range(MOST):
        reason = await speaker.publish(topic, numbered(number), qos=1)
        if reason.failed:
            assert reason is ReasonCode.QUOTA_EXCEEDED, reason
            return list(range(number))
    raise AssertionError("the store never was full")


async def come_back(broker: Broker, client_id: str, wanted: list[int]) -> None:
    """Take what waits for a session: all that is wanted, and maybe what its publisher was refused, in order."""
    async with scripted(broker, "bench") as back:
        assert (await back.connect(kept(client_id))).session_present
        seen: list[int] = []
        while not set(wanted) <= set(seen):
            seen.append(int.from_bytes((await back.take()).payload[:8]))
        assert seen == sorted(set(seen)), "none twice"
        await back.ping()


async def until_stored(speaker: ScriptedClient, topic: str) -> None:
    """Publish until that is acknowledged."""
    with trio.fail_after(20):
        while (await speaker.publish(topic, numbered(MOST), qos=1)).failed:
            await trio.sleep(0.1)


async def test_full_store_refuses_publishers_and_takes_messages_again_when_there_is_room(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store)) as broker:
        client_id = await leave_session(broker.at, topic)
        async with scripted(broker.at, "bench") as speaker:
            await speaker.connect()
            acknowledged = await fill(speaker, topic)
            assert len(acknowledged) > MAX_STORE_BYTES // SIZE // 2
            assert (await broker.figures())["store_failing"] == 1
            assert await speaker.publish(topic, b"refused at once", qos=1) == (
                ReasonCode.QUOTA_EXCEEDED
            )
            await come_back(broker.at, client_id, acknowledged)
            await until_stored(speaker, topic)
            assert (await broker.figures())["store_failing"] == 0
            await come_back(broker.at, client_id, [MOST])
        log = broker.daemon.log.read_text()
        assert log.count("store cannot write") == 1, "said once"
        assert "store writes again" in log
    assert store.stat().st_size <= MAX_STORE_BYTES


async def test_full_store_serves_those_who_need_no_store(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store)) as broker:
        await leave_session(broker.at, topic)
        async with scripted(broker.at, "bench") as speaker:
            await speaker.connect()
            await fill(speaker, topic)
            other = f"bench/{unique('other')}"
            await speaker.subscribe(other)
            await speaker.publish(other, b"QoS 0")
            assert (await speaker.take()).payload == b"QoS 0"


async def test_full_store_ends_a_3_1_1_publisher_without_an_acknowledgement(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store)) as broker:
        await leave_session(broker.at, topic)
        async with scripted(broker.at, "bench") as speaker, scripted(broker.at, "bench") as old:
            await speaker.connect()
            await fill(speaker, topic)
            await old.connect(Connect(client_id=unique("old"), version=Version.V311))
            await old.send(Publish(topic=topic, payload=numbered(0), qos=1, packet_id=1))
            await old.expect_closed()


async def test_3_1_1_publisher_that_fills_the_store_is_ended_with_its_last_message_unacknowledged(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store)) as broker:
        client_id = await leave_session(broker.at, topic)
        async with rough(broker.at, "bench") as old:
            await old.enter(Connect(client_id=unique("old"), version=Version.V311))
            acknowledged = await _publish_until_closed(old, topic)
        assert 0 < len(acknowledged) < MOST
        await come_back(broker.at, client_id, acknowledged)


async def _publish_until_closed(old: Rough, topic: str) -> list[int]:
    """Publish one by one until the broker ends the connection; the numbers of what was acknowledged before."""
    for number in range(MOST):
        message = Publish(topic=topic, payload=numbered(number), qos=1, packet_id=number + 1)
        await old.send(encode(message, Version.V311))
        if (answer := await old.receive_or_end()) is None:
            return list(range(number))
        assert answer == Puback(packet_id=number + 1)
    raise AssertionError("the store never was full")


async def test_broker_killed_with_a_full_store_loses_nothing_acknowledged(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store)) as broker:
        client_id = await leave_session(broker.at, topic)
        async with scripted(broker.at, "bench") as speaker:
            await speaker.connect()
            acknowledged = await fill(speaker, topic)
            broker.daemon.kill()
    with loaded(site, table(store)) as again:
        await come_back(again.at, client_id, acknowledged)
        async with scripted(again.at, "bench") as speaker:
            await speaker.connect()
            await until_stored(speaker, topic)


def _let_files_grow_to(broker: Loaded, size: int) -> None:
    pid = broker.daemon.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


async def test_full_disk_refuses_publishers_and_the_broker_recovers_when_space_returns(
    site: Site, store: Path, topic: str
) -> None:
    with loaded(site, table(store, max_bytes=1 << 30)) as broker:
        client_id = await leave_session(broker.at, topic)
        _let_files_grow_to(broker, MAX_STORE_BYTES)
        async with scripted(broker.at, "bench") as speaker:
            await speaker.connect()
            acknowledged = await fill(speaker, topic)
            _let_files_grow_to(broker, resource.RLIM_INFINITY)
            await until_stored(speaker, topic)
            await come_back(broker.at, client_id, [*acknowledged, MOST])


def test_store_that_may_not_be_written_is_refused_at_the_start(site: Site, store: Path) -> None:
    with loaded(site, table(store)):
        assert store.exists()
    store.chmod(0o400)
    config = site.write_broker(unique("readonly"), kernel_bundles=())
    done = subprocess.run(
        [sys.executable, "-c", LOST_WRITE, *STOCKADE, "broker", "--config", str(config)],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
    )
    assert done.returncode == 1
    assert re.search(rf"store `{store}` cannot be used: .*who may write", done.stderr)
    assert "Traceback" not in done.stderr
