"""The brokers under test: each as we would run it in earnest, mutual TLS 1.3 and authorization on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmarks.lag import Buckets, Clients, LagPage
from benchmarks.processes import TargetFailed, family, place, started
from benchmarks.wire import Login
from certs.development import DevelopmentPki, create_development_pki

CLIENT = "bench"
NAMES = ("stockade", "mosquitto", "nats")
"""Every target, in the order in which they take turns."""

ALL_CORES = frozenset(os.sched_getaffinity(0))

MAX_PENDING_BYTES = 2 << 30
"""What nats-server may hold for a slow subscriber: with less it cuts the subscriber, and the sample fails."""


class Target:
    """A running broker.

    Attributes:
        name: for reports.
        version: as it calls itself.
        login: of the client `bench`.
        logins: of every client by name.
    """

    def __init__(
        self,
        name: str,
        version: str,
        process: subprocess.Popen[bytes],
        logins: dict[str, Login],
        *,
        lag_page: LagPage | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.logins = logins
        self.login = logins[CLIENT]
        self._lag_page = lag_page
        self._process = process

    @contextmanager
    def on_cores(self, cores: frozenset[int]) -> Generator[None, None, None]:
        """Keep every thread of all its processes on these cores inside the block."""
        place(self._process.pid, cores)
        try:
            yield
        finally:
            place(self._process.pid, ALL_CORES)

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far (user and system)."""
        return sum(process.cpu_seconds() for process in family(self._process.pid))

    def lag(self) -> Buckets:
        """How late its event loop was so far; empty if it does not say."""
        return self._lag_page.read() if self._lag_page is not None else {}

    def resident_bytes(self) -> int:
        """Memory that all its processes have in RAM; what they share is counted for each."""
        return sum(process.resident_bytes for process in family(self._process.pid))


@contextmanager
def run_stockade(directory: Path) -> Generator[Target, None, None]:
    """Start `stockade up --bench` in `directory`."""
    ready = directory / "ready.json"
    command = [_beside_python("stockade"), "up", "--dir", str(directory / "up")]
    command += ["--ready", str(ready), "--bench"]
    with started(command, directory / "stockade.log", ready.exists) as process:
        found = msgspec.json.decode(ready.read_bytes(), type=_Ready)
        host, _, port = found.broker.mqtts.rpartition(":")
        logins = {
            name: Login(host=host, port=int(port), ca=paths.ca, cert=paths.cert, key=paths.key)
            for name, paths in found.clients.items()
        }
        words = _said([_beside_python("stockade"), "version"]).split()
        version = words[1] if len(words) > 1 else "unknown"
        page = LagPage(found.broker.metrics, found.clients["admin"])
        yield Target("stockade", version, process, logins, lag_page=page)


@contextmanager
def run_mosquitto(directory: Path, *, persistent: bool = False) -> Generator[Target, None, None]:
    """Start Debian's mosquitto: ACL file, no anonymous; `persistent`: with its database on disk."""
    program = find_program("mosquitto")
    if program is None:
        raise TargetFailed("mosquitto is not installed")
    pki = _make_pki(directory)
    port = _free_port()
    config = directory / "mosquitto.conf"
    (directory / "acl").write_text(f"user {CLIENT}\ntopic readwrite {CLIENT}/#\n")
    (directory / "acl").chmod(0o600)
    config.write_text(_mosquitto_config(pki, directory, port, persistent=persistent))
    command = [program, "-c", str(config)]
    with started(command, directory / "mosquitto.log", _listening(port)) as process:
        said = _said([program, "-h"])
        version = said.splitlines()[0].removeprefix("mosquitto version ") if said else "unknown"
        yield Target("mosquitto", version, process, {CLIENT: _login(pki, port)})


def _mosquitto_config(pki: DevelopmentPki, directory: Path, port: int, *, persistent: bool) -> str:
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
        f"persistence {'true' if persistent else 'false'}",
        f"persistence_location {directory}/",
        "log_type error",
        "log_dest stderr",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # or it gives up the right to read the keys
    return "\n".join(lines) + "\n"


@contextmanager
def run_nats(directory: Path) -> Generator[Target, None, None]:
    """Start Debian's nats-server: certificates mapped to users with permissions, JetStream on file."""
    program = find_program("nats-server")
    if program is None:
        raise TargetFailed("nats-server is not installed")
    pki = _make_pki(directory)
    port = _free_port()
    config = directory / "nats.conf"
    config.write_text(_nats_config(pki, directory, port))
    command = [program, "-c", str(config)]
    with started(command, directory / "nats.log", _listening(port)) as process:
        version = _said([program, "--version"]).strip().rpartition("v")[2] or "unknown"
        login = msgspec.structs.replace(_login(pki, port), protocol="nats")
        yield Target("nats", version, process, {CLIENT: login})


def _nats_config(pki: DevelopmentPki, directory: Path, port: int) -> str:
    own, inbox = f'"{CLIENT}.>"', f'"_INBOX.{CLIENT}.>"'
    publish = f'[{own}, {inbox}, "$JS.API.>", "$JS.ACK.>"]'
    return f"""
listen: "127.0.0.1:{port}"
server_name: bench
tls {{
  ca_file: "{pki.ca}"
  cert_file: "{pki.broker.certificate}"
  key_file: "{pki.broker.key}"
  verify_and_map: true
  timeout: 10
}}
authorization {{
  users: [{{
    user: "{pki.clients[CLIENT].uri}"
    permissions: {{ publish: {publish}, subscribe: [{own}, {inbox}] }}
  }}]
}}
max_pending: {MAX_PENDING_BYTES}
write_deadline: "60s"
ping_interval: "1h"
jetstream {{ store_dir: "{directory / "jetstream"}" }}
logtime: false
"""


def start_targets(stack: ExitStack, directory: Path, only: str) -> list[Target]:
    """Start every broker that is wanted and installed; they end with the stack.

    Args:
        stack: owns them.
        directory: for their files.
        only: one name, or empty for all.

    Raises:
        TargetFailed: there is none, or one did not start.
    """
    targets: list[Target] = []
    if only in ("", "stockade"):
        targets.append(stack.enter_context(run_stockade(directory / "stockade")))
    if only in ("", "mosquitto") and find_program("mosquitto") is not None:
        targets.append(stack.enter_context(run_mosquitto(directory / "mosquitto")))
    if only in ("", "nats") and find_program("nats-server") is not None:
        targets.append(stack.enter_context(run_nats(directory / "nats")))
    if not targets:
        raise TargetFailed(f"nothing to measure: install {only} (as root: make deps)")
    return targets


def find_program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _make_pki(directory: Path) -> DevelopmentPki:
    directory.mkdir(mode=0o700, exist_ok=True)
    return create_development_pki(directory / "pki", clients=[CLIENT], now=time.time())  # noqa: TID251 - a composition root


def _login(pki: DevelopmentPki, port: int) -> Login:
    return Login(
        host="127.0.0.1",
        port=port,
        ca=str(pki.ca),
        cert=str(pki.clients[CLIENT].certificate),
        key=str(pki.clients[CLIENT].key),
    )


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout


class _Broker(msgspec.Struct):
    mqtts: str
    metrics: str


class _Ready(msgspec.Struct):
    broker: _Broker
    clients: Clients


def _listening(port: int) -> Callable[[], bool]:
    def listens() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False

    return listens


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).parent / program)
