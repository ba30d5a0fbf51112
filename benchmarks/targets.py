"""The brokers under test, as processes of their own, ended by process id, never by name."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from benchmarks.machine import ROOT, BenchmarkError
from benchmarks.wire import Login
from certs.development import DevelopmentPki, create_development_pki

START_DEADLINE_S = 60.0
"""The first start of `stockade up` makes keys and compiles a kernel."""

STOP_DEADLINE_S = 10.0
CLIENT = "bench"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class TargetFailed(BenchmarkError):  # noqa: N818 - says what happened
    """A broker did not start; the message has its last words."""


ALL_CORES = frozenset(os.sched_getaffinity(0))


class Target:
    """A running broker.

    Attributes:
        name: for reports.
        version: as it calls itself.
        login: of the client `bench`.
        logins: of every client by name.
    """

    def __init__(
        self, name: str, version: str, process: subprocess.Popen[bytes], logins: dict[str, Login]
    ) -> None:
        self.name = name
        self.version = version
        self.logins = logins
        self.login = logins[CLIENT]
        self._process = process

    @contextmanager
    def on_cores(self, cores: frozenset[int]) -> Iterator[None]:
        """Keep every thread of all its processes on these cores inside the block."""
        _place(self._process.pid, cores)
        try:
            yield
        finally:
            _place(self._process.pid, ALL_CORES)

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far (user and system)."""
        return sum(process.cpu_seconds for process in _family(self._process.pid))


@contextmanager
def run_stockade(directory: Path) -> Iterator[Target]:
    """Start `stockade up --bench` in `directory`."""
    ready = directory / "ready.json"
    command = [_beside_python("stockade"), "up", "--dir", str(directory / "up")]
    command += ["--ready", str(ready), "--bench"]
    with _started(command, directory / "stockade.log", ready.exists) as process:
        found = msgspec.json.decode(ready.read_bytes(), type=_Ready)
        host, _, port = found.broker.mqtts.rpartition(":")
        logins = {
            name: Login(host=host, port=int(port), ca=paths.ca, cert=paths.cert, key=paths.key)
            for name, paths in found.clients.items()
        }
        version = subprocess.run(
            [_beside_python("stockade"), "version"], capture_output=True, text=True, check=False
        )
        words = version.stdout.split()
        yield Target("stockade", words[1] if len(words) > 1 else "unknown", process, logins)


@contextmanager
def run_mosquitto(directory: Path) -> Iterator[Target]:
    """Start Debian's mosquitto as we would run it in earnest: mutual TLS 1.3, ACL file, no anonymous."""
    program = find_mosquitto()
    if program is None:
        raise TargetFailed("mosquitto is not installed")
    directory.mkdir(mode=0o700, exist_ok=True)
    pki = create_development_pki(directory / "pki", clients=[CLIENT], now=time.time())  # noqa: TID251 - a composition root
    port = _free_port()
    config = directory / "mosquitto.conf"
    (directory / "acl").write_text(f"user {CLIENT}\ntopic readwrite {CLIENT}/#\n")
    (directory / "acl").chmod(0o600)
    config.write_text(_mosquitto_config(pki, directory, port))
    with _started(
        [program, "-c", str(config)], directory / "mosquitto.log", lambda: _listens(port)
    ) as process:
        login = Login(
            host="127.0.0.1",
            port=port,
            ca=str(pki.ca),
            cert=str(pki.clients[CLIENT].certificate),
            key=str(pki.clients[CLIENT].key),
        )
        yield Target("mosquitto", _mosquitto_version(program), process, {CLIENT: login})


def find_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _mosquitto_config(pki: DevelopmentPki, directory: Path, port: int) -> str:
    lines = [
        f"listener {port} 127.0.0.1",
        f"cafile {pki.ca}",
        f"certfile {pki.broker.certificate}",
        f"keyfile {pki.broker.key}",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.3",
        "allow_anonymous false",
        f"acl_file {directory / 'acl'}",
        "set_tcp_nodelay true",
        "max_queued_messages 0",  # or it drops what it cannot deliver at once
        "max_inflight_messages 0",
        "persistence false",
        "log_type error",
        "log_dest stderr",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # or it gives up the right to read the keys
    return "\n".join(lines) + "\n"


def _mosquitto_version(program: str) -> str:
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0].removeprefix("mosquitto version ") if said else "unknown"


class _Paths(msgspec.Struct):
    ca: str
    cert: str
    key: str


class _Broker(msgspec.Struct):
    mqtts: str


class _Ready(msgspec.Struct):
    broker: _Broker
    clients: dict[str, _Paths]


@contextmanager
def _started(
    command: list[str], log: Path, is_up: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
    try:
        limit = time.monotonic() + START_DEADLINE_S
        while not is_up():
            if process.poll() is not None or time.monotonic() > limit:
                words = log.read_text(errors="replace")[-2000:]
                raise TargetFailed(f"`{' '.join(command[:2])}` did not start:\n{words}")
            time.sleep(0.05)
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = _family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)
    for member in family:
        # The start time tells it from a stranger that got the same number since.
        if any(now.pid == member.pid and now.started == member.started for now in _processes()):
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    """One line of /proc/PID/stat, see proc(5)."""

    pid: int
    parent: int
    started: int
    cpu_seconds: float


def _place(pid: int, cores: frozenset[int]) -> None:
    for process in _family(pid):
        for task in Path(f"/proc/{process.pid}/task").glob("[0-9]*"):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(int(task.name), cores)


def _family(pid: int) -> list[_Process]:
    """A process of ours and everything it started, directly or not."""
    everyone = _processes()
    members = {pid}
    while more := {p.pid for p in everyone if p.parent in members} - members:
        members |= more
    return [p for p in everyone if p.pid in members]


def _processes() -> list[_Process]:
    found: list[_Process] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(
            _Process(
                pid=int(path.parent.name),
                parent=int(fields[1]),
                started=int(fields[19]),
                cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            )
        )
    return found


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).parent / program)
