"""kill -9 at any time loses no acknowledged write; a real process, several rounds."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from controller.admin import ALPN, AdminClient
from controller.commands import RuleDraft
from controller.errors import AdminError
from tests.pki import TestPki

ROUNDS = 5
ROUND_S = 0.8
START_S = 20.0

CONFIG = """
node_id = "c1"
data_dir = "data"
rpc_listen = "127.0.0.1:0"
api_listen = "127.0.0.1:0"
certificate = "{certificate}"
key = "{key}"
anchor = "{anchor}"
ready_file = "ready.json"
log_json = true

[[bootstrap_policy]]
id = "admin-acl"
principal = "admin"
resource = "acl.**"
operations = "all"
"""

# Snapshots every 40 entries, so that the kills also fall into snapshots and cuts of the journal.
RUN = """
import sys
from pathlib import Path
import msgspec
from controller import daemon, raft, raft_log
raft_log.RaftLog.__init__.__kwdefaults__["timing"] = msgspec.structs.replace(raft.ALONE, compact_entries=40)
sys.exit(daemon.main(Path(sys.argv[1])))
"""


class Process:
    """A controller process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pki = TestPki(folder)
        issued = self._pki.controller()
        (folder / "controller.toml").write_text(
            CONFIG.format(certificate=issued.cert, key=issued.key, anchor=issued.anchor)
        )
        self._admin = self._pki.admin()
        self._child: subprocess.Popen[bytes] | None = None
        self.log = (folder / "log").open("ab")

    def start(self) -> AdminClient:
        (self._folder / "ready.json").unlink(missing_ok=True)
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, str(self._folder / "controller.toml")],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        until = time.monotonic() + START_S
        while not (self._folder / "ready.json").exists():
            if self._child.poll() is not None or time.monotonic() > until:
                pytest.fail((self._folder / "log").read_text())
            time.sleep(0.01)
        host, port = json.loads((self._folder / "ready.json").read_text())["api"].rsplit(":", 1)
        context = self._pki.client_context(self._admin, alpn=[ALPN])
        return AdminClient(
            host, int(port), context=context, new_id=partial(secrets.token_hex, 6), deadline_s=10
        )

    def end(self, number: signal.Signals) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        os.kill(child.pid, number)
        return child.wait(timeout=20)


@contextmanager
def process(folder: Path) -> Generator[Process]:
    running = Process(folder)
    try:
        yield running
    finally:
        running.end(signal.SIGKILL)
        running.log.close()


def write_until_killed(admin: AdminClient, prefix: str, acknowledged: list[str]) -> None:
    for number in range(10_000):
        rule_id = f"{prefix}-{number}"
        draft = RuleDraft(
            id=rule_id, principal="p", resource=f"topic.{prefix}.{number}", operations="read"
        )
        try:
            admin.add_rule(draft)
        except AdminError as error:
            if error.status == 0:
                return  # killed
            raise
        acknowledged.append(rule_id)


@pytest.mark.slow
def test_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with process(tmp_path) as controller:
        for round_ in range(ROUNDS):
            admin = controller.start()
            present = {rule.id for rule in admin.list_rules()}
            assert set(acknowledged) <= present
            threads = [
                threading.Thread(
                    target=write_until_killed, args=(admin, f"w{round_}-{writer}", acknowledged)
                )
                for writer in range(4)
            ]
            for thread in threads:
                thread.start()
            time.sleep(ROUND_S)
            controller.end(signal.SIGKILL)
            for thread in threads:
                thread.join(timeout=15)
        admin = controller.start()
        present = {rule.id for rule in admin.list_rules()}
        assert set(acknowledged) <= present
        assert len(acknowledged) > ROUNDS * 10
        assert (tmp_path / "data" / "snapshot").stat().st_size > 0
        assert controller.end(signal.SIGTERM) == 0
        assert not (tmp_path / "ready.json").exists()


@pytest.mark.slow
def test_operator_gets_one_line_and_no_traceback(tmp_path: Path) -> None:
    with process(tmp_path) as controller:
        controller.start()
        config = (tmp_path / "controller.toml").read_text()
        (tmp_path / "broken.toml").write_text(config.replace("node_id", "node_di"))
        (tmp_path / "same.toml").write_text(config.replace("ready.json", "other.json"))
        (tmp_path / "empty.toml").write_text(
            config.replace('"data"', '"empty"').partition("[[bootstrap_policy]]")[0]
        )
        for name, message in (
            ("absent", "cannot read"),
            ("broken", "did you mean `node_id`?"),
            ("same", "is used by another controller"),
            ("empty", "set `bootstrap_policy`"),
        ):
            done = subprocess.run(
                [sys.executable, "-P", "-c", RUN, str(tmp_path / f"{name}.toml")],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 1
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1
            assert message in errors[0]
            assert "Traceback" not in done.stderr
