"""What a durable commit costs: SQLite beside LMDB, each with one fsync a commit.

`python -m benchmarks.store [FOLDER]` prints the table that docs/adr/0008 quotes. LMDB is measured where the package
`lmdb` is installed; Stockade does not depend on it. The folder must lie on the disk that is asked about: the numbers
are the disk's as much as the engine's. Both write the same rows with the same keys. The engines take turns, round
after round, so that a noisy machine is noisy for both. Each shape is measured alone, and beside a thread that computes
in Python without a pause: what a saturated event loop does to a commit in another thread. Then the store itself is
measured, through the calls the broker makes, sealed and in the clear.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, cast

import msgspec
import trio

from acl.model import PrincipalKind
from benchmarks.machine import describe_machine
from broker.records import MessageRecord, QueuedRecord, SessionRecord
from broker.store import Store, SyncMode
from mqtt.packets import Version

ROUNDS = 5
ROUND_S = 0.5
LOADED_MESSAGES = 100_000
LOAD_BATCH = 5_000
SMALL_BYTES, RUN_BYTES = 120, 65_536
MAP_BYTES = 1 << 32
SYNC_SAMPLES = 200

Row = tuple[int, bytes]
"""A message's key and body; its queued row has the same key."""

QUEUED = b"q" * 48


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit holds."""

    name: str
    rows: int
    size: int


SHAPES = (
    Shape(name="1 small message", rows=1, size=SMALL_BYTES),
    Shape(name="100 small messages", rows=100, size=SMALL_BYTES),
    Shape(name="1 run of 64 KB", rows=1, size=RUN_BYTES),
)


class Engine(Protocol):
    """What is compared."""

    name: str

    def commit(self, rows: Sequence[Row]) -> None:
        """Write each row's message and its queued row, durable at return."""
        ...

    def load(self) -> int:
        """Read every message; how many there were."""
        ...

    def close(self) -> None: ...


class Sqlite:
    """WAL, synchronous=full; one statement a row, or one statement for many rows."""

    def __init__(self, folder: Path, *, rows_a_statement: int) -> None:
        self.name = f"SQLite, {rows_a_statement} rows a statement"
        self._most = rows_a_statement
        self._db = sqlite3.connect(
            folder / f"bench-{rows_a_statement}.sqlite", isolation_level=None
        )
        for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            self._db.execute(f"pragma {pragma}").fetchall()
        self._db.execute("create table message(id integer primary key, body blob)")
        self._db.execute(
            "create table queued(session integer, sequence integer, body blob, "
            "primary key(session, sequence)) without rowid"
        )

    def commit(self, rows: Sequence[Row]) -> None:
        self._db.execute("begin immediate")
        for start in range(0, len(rows), self._most):
            part = rows[start : start + self._most]
            marks = ",".join(["(?,?)"] * len(part))
            self._db.execute(
                f"insert into message values {marks}", [value for row in part for value in row]
            )
            marks = ",".join(["(1,?,?)"] * len(part))
            values = [value for key, _ in part for value in (key, QUEUED)]
            self._db.execute(f"insert into queued values {marks}", values)
        self._db.execute("commit")

    def load(self) -> int:
        return len(self._db.execute("select id, body from message order by id").fetchall())

    def close(self) -> None:
        self._db.close()


class _Cursor(Protocol):
    def __iter__(self) -> Generator[tuple[bytes, bytes]]: ...


class _Transaction(Protocol):
    def put(self, key: bytes, value: bytes) -> bool: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...
    def cursor(self) -> _Cursor: ...


class _Environment(Protocol):
    def begin(self, *, write: bool) -> _Transaction: ...
    def close(self) -> None: ...


class _LmdbModule(Protocol):
    def open(self, path: str, *, map_size: int) -> _Environment: ...


class Lmdb:
    """The package's defaults: an fsync for each commit."""

    name = "LMDB"

    def __init__(self, folder: Path) -> None:
        module = cast("_LmdbModule", importlib.import_module("lmdb"))
        self._environment = module.open(str(folder / "bench.lmdb"), map_size=MAP_BYTES)

    def commit(self, rows: Sequence[Row]) -> None:
        transaction = self._environment.begin(write=True)
        for key, body in rows:
            packed = key.to_bytes(8)
            transaction.put(b"m" + packed, body)
            transaction.put(b"q" + packed, QUEUED)
        transaction.commit()

    def load(self) -> int:
        transaction = self._environment.begin(write=False)
        try:
            return sum(1 for key, _ in transaction.cursor() if key[:1] == b"m")
        finally:
            transaction.abort()

    def close(self) -> None:
        self._environment.close()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        shape: what a commit holds.
        engine: which.
        busy: whether another thread computed in Python meanwhile.
        commits_s: commits in a second, median of the rounds.
        least: of the rounds.
        most: of the rounds.
        rows_s: messages in a second.
    """

    shape: str
    engine: str
    busy: bool
    commits_s: float
    least: float
    most: float
    rows_s: float


class Bench:
    """Numbers rows so that no key comes twice."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._key = 0

    def measure(self, *, busy: bool) -> list[Figure]:
        return [figure for shape in SHAPES for figure in self._shape(shape, busy=busy)]

    def _shape(self, shape: Shape, *, busy: bool) -> list[Figure]:
        found: dict[str, list[float]] = {engine.name: [] for engine in self._engines}
        for _ in range(ROUNDS):
            for engine in self._engines:
                with computing() if busy else ExitStack():
                    found[engine.name].append(self._round(engine, shape))
        return [
            Figure(
                shape=shape.name,
                engine=name,
                busy=busy,
                commits_s=statistics.median(values),
                least=min(values),
                most=max(values),
                rows_s=statistics.median(values) * shape.rows,
            )
            for name, values in found.items()
        ]

    def _round(self, engine: Engine, shape: Shape) -> float:
        commits, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < ROUND_S:
            engine.commit(self._rows(shape.rows, shape.size))
            commits += 1
        return commits / spent

    def _rows(self, count: int, size: int) -> list[Row]:
        self._key += count
        return [(self._key - count + index, os.urandom(size)) for index in range(count)]

    def load_seconds(self, make: Callable[[], Engine]) -> float:
        """How long reading LOADED_MESSAGES takes in a fresh store."""
        engine = make()
        try:
            for _ in range(0, LOADED_MESSAGES, LOAD_BATCH):
                engine.commit(self._rows(LOAD_BATCH, SMALL_BYTES))
            begin = time.perf_counter()
            if engine.load() != LOADED_MESSAGES:
                raise RuntimeError(f"{engine.name} lost messages")
            return time.perf_counter() - begin
        finally:
            engine.close()


@contextmanager
def computing() -> Generator[None]:
    """Have a thread hold Python's global lock whenever it gets it."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def store_figures(folder: Path, key: bytes | None) -> Generator[str]:
    """What the broker gets: recording, encoding, sealing and a thread for each commit included."""
    path = folder / f"store-{key is not None}.db"
    store = Store.open(path, key=key, sync=SyncMode.ALWAYS, max_bytes=MAP_BYTES)
    found = trio.run(_drive, store)
    for name, commits_s, rows_s in found:
        yield f"{name:<20} {commits_s:>8.0f} commits/s {rows_s:>9.0f} messages/s"
    begin = time.perf_counter()
    store = Store.open(path, key=key, sync=SyncMode.ALWAYS, max_bytes=MAP_BYTES)
    checked = time.perf_counter()
    messages = len(store.load().messages)
    yield f"open {checked - begin:.2f} s, load {messages}: {time.perf_counter() - checked:.2f} s"
    store.close()


async def _drive(store: Store) -> list[tuple[str, float, float]]:
    found: list[tuple[str, float, float]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.put_session(_session())
        key = 1
        for shape in SHAPES:
            commits, first, begin = 0, key, time.perf_counter()
            while (spent := time.perf_counter() - begin) < ROUNDS * ROUND_S:
                key = _record(store, shape, key)
                await store.flush()
                commits += 1
            found.append((shape.name, commits / spent, (key - first) / spent))
        for number in range(1, key):  # leave what is to be loaded, and nothing else
            store.drop_message(number)
        store.settle(1, key)
        for _ in range(0, LOADED_MESSAGES, LOAD_BATCH):
            key = _record(store, Shape(name="", rows=LOAD_BATCH, size=SMALL_BYTES), key)
            await store.flush()
        nursery.cancel_scope.cancel()
    return found


def _record(store: Store, shape: Shape, key: int) -> int:
    """Record the messages of a shape, each with its queued row; the next key."""
    for number in range(key, key + shape.rows):
        store.put_message(
            MessageRecord(
                message_id=number,
                data=os.urandom(shape.size),
                count=1,
                version=Version.V5,
                received_at=0,
                expires_at=None,
                publisher="publisher",
                publisher_kind=PrincipalKind.SERVICE,
            )
        )
        store.put_queued(
            QueuedRecord(
                session_id=1,
                sequence=number,
                count=1,
                message_id=number,
                first=0,
                qos=1,
                retain=False,
                identifiers=(),
                group="",
            )
        )
    return key + shape.rows


def _session() -> SessionRecord:
    return SessionRecord(
        session_id=1,
        principal="subscriber",
        principal_kind=PrincipalKind.SERVICE,
        client_id="bench",
        expiry_s=3_600,
        ended_at=None,
        settled_below=1,
        next_sequence=1,
        will=None,
    )


def fdatasync_seconds(folder: Path) -> float:
    """The median of appending 4 KiB and syncing them: what no engine can undercut."""
    samples: list[float] = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(SYNC_SAMPLES):
            file.write(bytes(4_096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


def makers(folder: Path) -> list[Callable[[], Engine]]:
    found: list[Callable[[], Engine]] = [
        lambda: Sqlite(Path(tempfile.mkdtemp(dir=folder)), rows_a_statement=1),
        lambda: Sqlite(Path(tempfile.mkdtemp(dir=folder)), rows_a_statement=64),
    ]
    if importlib.util.find_spec("lmdb") is not None:
        found.append(lambda: Lmdb(Path(tempfile.mkdtemp(dir=folder))))
    return found


def main(folder: Path) -> None:
    machine = describe_machine()
    print(f"{machine.cpu}, {machine.cores} cores, load {machine.load_before}")
    print(f"SQLite {sqlite3.sqlite_version}, Python {machine.python}")
    print(f"append 4 KiB and fdatasync: {fdatasync_seconds(folder) * 1e3:.2f} ms")
    made = makers(folder)
    engines = [make() for make in made]
    bench = Bench(engines)
    for busy in (False, True):
        print("beside a computing thread" if busy else "alone")
        for figure in bench.measure(busy=busy):
            print(
                f"  {figure.shape:<20} {figure.engine:<28} {figure.commits_s:>8.0f} commits/s "
                f"({figure.least:.0f} to {figure.most:.0f}) {figure.rows_s:>9.0f} messages/s"
            )
    for engine in engines:
        engine.close()
    for make, engine in zip(made, engines, strict=True):
        print(f"  load {LOADED_MESSAGES}: {engine.name:<28} {bench.load_seconds(make):.2f} s")
    for name, key in (("in the clear", None), ("sealed", bytes(32))):
        print(f"the store, {name}")
        for line in store_figures(folder, key):
            print(f"  {line}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as scratch:
        main(Path(scratch))
