"""kill -9 at any moment: what the store called durable is there, what it called dropped is gone; a real process."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.records import Restored
from broker.store import Store, SyncMode

ROUNDS = 10
LEAST_S, MOST_S = 0.02, 0.4
KEY = bytes(range(32))

# Publishers that wait for the disk; a subscriber acknowledges some of their messages. Prints `+ID` when a message is
# durable, `?ID` before it is dropped, `-ID` when the drop is durable.
CHILD = """
import os, sys
from pathlib import Path
import trio
from acl.model import PrincipalKind
from broker.records import MessageRecord, QueuedRecord, SessionRecord
from broker.store import Store, SyncMode
from mqtt.packets import Version

store = Store.open(Path(sys.argv[1]), key=bytes(range(32)), sync=SyncMode.ALWAYS, max_bytes=1 << 30)
restored = store.load()
ids = iter(range(restored.next_message_id, 1 << 62))


def say(text):
    os.write(1, (text + "\\n").encode())


def record(number, session):
    data = b"0" * (number % 5_000) + number.to_bytes(8)
    store.put_message(MessageRecord(
        message_id=number, data=data, count=1, version=Version.V5, received_at=0.0, expires_at=None,
        publisher="p", publisher_kind=PrincipalKind.SERVICE))
    store.put_queued(QueuedRecord(
        session_id=session, sequence=number, count=1, message_id=number, first=0, qos=1, retain=False,
        identifiers=(), group=""))


async def publish(session):
    while True:
        number = next(ids)
        record(number, session)
        assert await store.flush()
        say(f"+{number}")
        if number % 3 == 0:
            say(f"?{number}")
            store.drop_queued(session, number)
            store.drop_message(number)
            if number % 2:
                assert await store.flush()
                say(f"-{number}")


async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for session in range(1, 5):
            store.put_session(SessionRecord(
                session_id=session, principal="p", principal_kind=PrincipalKind.SERVICE, client_id=str(session),
                expiry_s=9, ended_at=None, settled_below=1, next_sequence=1, will=None))
            nursery.start_soon(publish, session)


trio.run(main)
"""


@dataclass
class Said:
    """What the children of all rounds printed."""

    durable: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)

    def note(self, output: bytes) -> None:
        sets = {"+": self.durable, "?": self.doubtful, "-": self.dropped}
        for line in output.decode().splitlines():
            sets[line[0]].add(int(line[1:]))


def live(path: Path, seconds: float) -> bytes:
    """Have a child record until it is killed; what it had printed."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # else `readline` takes lines away from `communicate`
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        output, errors = child.communicate(timeout=20)
        assert errors == b""
        return first + output
    finally:
        child.kill()
        child.wait(timeout=20)
    pytest.fail(f"the child ended by itself: {child.returncode} {output!r}")


def found(path: Path) -> Restored:
    store = Store.open(path, key=KEY, sync=SyncMode.ALWAYS, max_bytes=1 << 30)
    try:
        return store.load()
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kill_loses_nothing_durable_and_brings_nothing_back(tmp_path: Path) -> None:
    moments = random.Random(20261127)
    said = Said()
    for _ in range(ROUNDS):
        before = len(said.durable)
        said.note(live(tmp_path / "store.db", moments.uniform(LEAST_S, MOST_S)))
        assert len(said.durable) > before
        restored = found(tmp_path / "store.db")
        messages = {each.message_id: each for each in restored.messages}
        queued = {each.message_id for each in restored.queued}
        assert len(restored.sessions) == 4
        assert said.durable - said.doubtful <= queued
        assert queued == set(messages)
        assert not said.dropped & queued
        assert all(each.data[-8:] == key.to_bytes(8) for key, each in messages.items())
        assert all(len(each.data) == key % 5_000 + 8 for key, each in messages.items())
        assert restored.next_message_id > max(said.durable)
    assert len(said.dropped) > ROUNDS
