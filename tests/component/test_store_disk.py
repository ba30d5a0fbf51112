"""A disk that takes no more, made by a limit of the kernel on the size of files: the store says so, and recovers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.store import Store, SyncMode

KEY = bytes(range(32))

CHILD = """
import resource, signal, sys
from pathlib import Path
import trio
from broker.store import Store, SyncMode
from broker.records import DelayedRecord, MessageRecord
from acl.model import PrincipalKind
from mqtt.packets import Version

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
store = Store.open(path, key=bytes(range(32)), sync=SyncMode.ALWAYS, max_bytes=1 << 30)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)


def record(number):
    store.put_message(MessageRecord(
        message_id=number, data=bytes(50_000), count=1, version=Version.V5, received_at=0.0, expires_at=None,
        publisher="p", publisher_kind=PrincipalKind.SERVICE))
    store.put_delayed(DelayedRecord(message_id=number, due_at=0.0))


async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        number = 1
        record(number)
        while await store.flush():
            number += 1
            record(number)
        assert 2 < number < 100, number
        assert store.failing, "it does not say so"
        assert not await store.flush()
        print("failed:", store.failing)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await store.flush()
        assert not store.failing
        print("durable:", number)
        nursery.cancel_scope.cancel()


trio.run(main)
"""


@pytest.mark.slow
def test_store_recovers_from_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(tmp_path / "store.db")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("failed", "durable"))]
    assert len(lines) == 2
    store = Store.open(tmp_path / "store.db", key=KEY, sync=SyncMode.ALWAYS, max_bytes=1 << 30)
    restored = store.load()
    store.close()
    last = int(lines[1].removeprefix("durable: "))
    assert [each.message_id for each in restored.messages] == list(range(1, last + 1))
    assert len(restored.delayed) == last
