"""Daemons of a test's own: written, started, killed and started again one by one, as an operator's supervisor would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from certs.development import create_development_pki
from certs.development_ca import open_authorities
from cli.configs import TRUST_DOMAIN
from cli.policy import PolicyRule, first_rules, render_policy
from cli.ready import ClientFiles, ListeningBroker, ListeningController, Ready, report
from cli.toml import Value, render_file
from gpu.bundle import shipped_bundle
from tests.e2e.clients import eventually
from tests.e2e.running import START_DEADLINE_S, STOCKADE, STOP_DEADLINE_S
from tests.pki import TestPki
from tests.processes import descendants_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from certs.development import DevelopmentPki

ADDRESS = "127.0.0.1:0"


MANIFEST = """
name = "{name}"
version = "1"
entry = "{name}"
max_batch = 16
deadline_ms = 200
[input]
dtype = "float32"
shape = [4]
[output]
dtype = "float32"
shape = [4]
"""


def workers_of(pid: int) -> list[int]:
    """The kernel workers among a process's descendants."""
    return [found for found in descendants_of(pid) if "gpu.worker" in command_of(found)]


def command_of(pid: int) -> list[str]:
    """A process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One `stockade broker` or `stockade controller`."""

    process: subprocess.Popen[bytes]
    log: Path
    ready_file: Path

    def listens(self) -> dict[str, str]:
        """Where it listens, once it says so."""

        def look() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.ready_file.is_file()

        eventually(look, deadline_s=START_DEADLINE_S)
        addresses: dict[str, str] = json.loads(self.ready_file.read_bytes())
        return addresses

    def kill(self) -> None:
        """End it without giving it a chance."""
        self.process.kill()
        self.process.wait(STOP_DEADLINE_S)
        self.ready_file.unlink(missing_ok=True)

    def stop(self) -> int:
        """End it in order; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def start_daemon(kind: str, config: Path, *, env: Mapping[str, str] | None = None) -> Daemon:
    """Start a daemon with a configuration that has a `ready_file` beside it."""
    log = config.with_suffix(".log")
    ready_file = config.with_suffix(".ready")
    ready_file.unlink(missing_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*STOCKADE, kind, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(os.environ if env is None else env),
        )
    return Daemon(process=process, log=log, ready_file=ready_file)


@dataclass(slots=True, kw_only=True)
class Site:
    """A folder with a PKI, both configurations, and the daemons that run by them."""

    folder: Path
    pki: DevelopmentPki
    kernels: Sequence[Path] = ()
    stale_after_s: int = 3
    limits: str = ""
    started: list[Daemon] = field(default_factory=list[Daemon])
    addresses: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def broker_audit(self) -> Path:
        """Where the broker records denials."""
        return self.folder / "broker.jsonl"

    def write_controller(self, name: str = "controller", **changed: Value) -> Path:
        """Write a controller's configuration; returns the file."""
        config = self.folder / f"{name}.toml"
        values: dict[str, Value] = {
            "node_id": "controller",
            "rpc_listen": self.addresses.get("rpc", ADDRESS),
            "api_listen": self.addresses.get("api", ADDRESS),
            "certificate": str(self.pki.controller.certificate),
            "key": str(self.pki.controller.key),
            "anchor": str(self.pki.anchor),
            "data_dir": name,
            "bootstrap_policy": "policy.toml",
            "audit_file": f"{name}.jsonl",
            "ready_file": f"{name}.ready",
        }
        config.write_text(render_file((), values | changed))
        return config

    def start_controller(self) -> Daemon:
        """Start the controller and wait until it listens, at the same addresses every time."""
        daemon = start_daemon("controller", self.write_controller())
        self.started.append(daemon)
        self.addresses |= daemon.listens()
        return daemon

    def broker_values(self) -> dict[str, Value]:
        """The broker's configuration, for a test to change."""
        return {
            "broker_id": "broker",
            "trust_domain": TRUST_DOMAIN,
            "listen_mqtts": ADDRESS,
            "listen_wss": ADDRESS,
            "listen_metrics": ADDRESS,
            "certificate": str(self.pki.broker.certificate),
            "key": str(self.pki.broker.key),
            "anchor": str(self.pki.anchor),
            "ca": str(self.pki.ca),
            "controller_rpc": self.addresses.get("rpc", "127.0.0.1:1"),
            "audit_file": str(self.broker_audit),
            "ready_file": "broker.ready",
            "stale_after_s": self.stale_after_s,
            "kernel_bundles": (*map(str, self.kernels),),
            "kernel_cache": "kernels",
            "kernel_backend": "cpu",
        }

    def write_broker(self, name: str = "broker", **changed: Value) -> Path:
        """Write a broker's configuration; returns the file."""
        config = self.folder / f"{name}.toml"
        values = self.broker_values() | {"ready_file": f"{name}.ready"} | changed
        config.write_text(render_file((), values) + self.limits)
        return config

    def start_broker(
        self, name: str = "broker", *, env: Mapping[str, str] | None = None, **changed: Value
    ) -> Daemon:
        """Start a broker and wait until it is ready."""
        daemon = start_daemon("broker", self.write_broker(name, **changed), env=env)
        self.started.append(daemon)
        self.addresses |= daemon.listens()
        return daemon

    def ready(self) -> Ready:
        """The report that `stockade up` would give."""
        at = self.addresses
        return report(
            controller=ListeningController(rpc=at["rpc"], api=at["api"]),
            broker=ListeningBroker(mqtts=at["mqtts"], wss=at["wss"], metrics=at["metrics"]),
            clients={
                name: ClientFiles(
                    ca=str(self.pki.ca), cert=str(files.certificate), key=str(files.key)
                )
                for name, files in self.pki.clients.items()
            },
        )

    def stop(self) -> None:
        """End everything that still runs, the youngest first."""
        for daemon in reversed(self.started):
            daemon.stop()


def write_bundle(folder: Path, name: str, body: str) -> Path:
    """A bundle whose kernel takes and gives four floats and does what `body` says."""
    bundle = folder / name
    bundle.mkdir(parents=True)
    (bundle / "kernel.toml").write_text(MANIFEST.format(name=name))
    signature = f'extern "C" __global__ void {name}(const float *in, float *out, int records)'
    (bundle / f"{name}.cu").write_text(f"{signature}\n{{ {body} }}\n")
    return bundle


def authority_of(pki: Path, folder: Path) -> TestPki:
    """What makes certificates, good and bad, signed by the issuing authority of a development PKI.

    Args:
        pki: the development PKI's folder.
        folder: where the certificates are written.
    """
    made = TestPki(folder)
    made.issuing = open_authorities(pki / "ca", trust_domain=TRUST_DOMAIN, now=made.now).issuing
    made.ca = pki / "ca.pem"
    made.anchor = pki / "issuing.pem"
    return made


def make_site(
    folder: Path, *, kernels: Sequence[Path] = (), rules: Sequence[PolicyRule] = ()
) -> Site:
    """A folder for daemons; nothing runs yet.

    Args:
        folder: empty or new.
        kernels: bundles besides `zscore`.
        rules: of the first policy, besides those of `stockade up`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pki = create_development_pki(
        folder / "pki", clients=("sensor", "viewer", "bench"), now=datetime.now(UTC).timestamp()
    )
    (folder / "policy.toml").write_text(render_policy((*first_rules(bench=True), *rules)))
    return Site(folder=folder, pki=pki, kernels=(shipped_bundle("zscore"), *kernels))
