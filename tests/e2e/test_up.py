"""`stockade up`: a whole system in a folder, for people and for scripts, that ends in order."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cli.failure import CommandFailed
from cli.ready import read_ready
from tests.e2e.running import Running, running, stockade, stop
from tests.needs import require_tool
from tests.processes import children_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def endpoint(address: str) -> tuple[str, int]:
    """`host:port`, with or without a scheme and a path."""
    host, _, port = (
        address.removeprefix("https://").removeprefix("wss://").partition("/")[0].rpartition(":")
    )
    return host, int(port)


def accepts(address: str) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(endpoint(address), timeout=5).close()
    except OSError:
        return False
    return True


def every_address(system: Running) -> list[str]:
    """Where the system listens."""
    broker, controller = system.ready.broker, system.ready.controller
    return [broker.mqtts, broker.wss, broker.metrics, controller.rpc, controller.api]


def lines_after(output: str, title: str) -> str:
    """The line to paste that follows a title."""
    lines = output.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith(f"# {title}")) + 1]


def test_ready_report_names_addresses_that_listen_and_files_that_exist(system: Running) -> None:
    assert all(accepts(address) for address in every_address(system))
    assert set(system.ready.clients) == {"sensor", "viewer", "admin", "bench"}
    for files in system.ready.clients.values():
        assert all(Path(path).is_file() for path in (files.ca, files.cert, files.key))
        assert Path(files.key).stat().st_mode & 0o077 == 0
        assert "ENCRYPTED" not in Path(files.key).read_text()


def test_ready_report_is_the_json_scripts_expect(system: Running) -> None:
    report = json.loads((system.folder / "for-scripts.json").read_text())
    assert set(report) == {"broker", "controller", "clients"}
    assert set(report["broker"]) == {"mqtts", "wss", "metrics"}
    assert set(report["controller"]) == {"rpc", "api"}
    assert report["broker"]["wss"].startswith("wss://")
    assert report["broker"]["metrics"].startswith("https://")
    assert report["controller"]["api"].startswith("https://")


def test_second_system_in_the_same_folder_is_refused(system: Running) -> None:
    second = stockade("up", "--dir", str(system.folder))
    assert second.returncode == 1
    assert "another stockade runs" in second.stderr
    assert all(accepts(address) for address in every_address(system))


@pytest.mark.needs("mosquitto-clients")
def test_printed_publish_line_works_when_pasted(system: Running) -> None:
    require_tool("mosquitto_pub", package="mosquitto-clients")
    line = lines_after(system.output.read_text(), "the sensor publishes")
    assert subprocess.run(shlex.split(line), check=False, timeout=30).returncode == 0


@pytest.mark.needs("mosquitto-clients")
def test_printed_subscribe_line_works_when_pasted(system: Running) -> None:
    require_tool("mosquitto_sub", package="mosquitto-clients")
    output = system.output.read_text()
    listen = [*shlex.split(lines_after(output, "the viewer listens")), "-R", "-C", "1", "-W", "20"]
    publish = shlex.split(lines_after(output, "the sensor publishes"))
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as viewer:
        deadline = time.monotonic() + 20
        while viewer.poll() is None and time.monotonic() < deadline:
            subprocess.run(publish, check=True, timeout=30)
        assert viewer.stdout is not None
        assert viewer.stdout.read().strip() == "telemetry/cpu 0.42"


@pytest.mark.needs("mosquitto-clients")
def test_printed_refused_line_is_refused_with_a_reason(system: Running) -> None:
    require_tool("mosquitto_pub", package="mosquitto-clients")
    line = lines_after(system.output.read_text(), "the viewer may not publish")
    refused = subprocess.run(
        shlex.split(line), check=False, timeout=30, capture_output=True, text=True
    )
    assert "ot authori" in refused.stdout + refused.stderr


@pytest.mark.needs("mosquitto-clients")
def test_printed_kernel_line_answers_with_z_scores(system: Running) -> None:
    require_tool("mosquitto_rr", package="mosquitto-clients")
    line = lines_after(system.output.read_text(), "the sensor calls a kernel")
    called = subprocess.run(
        ["bash", "-c", line], check=True, timeout=30, capture_output=True, text=True
    )
    scores = [float(word) for word in called.stdout.split()]
    assert len(scores) == 64
    assert abs(sum(scores)) < 1e-3


@pytest.mark.needs("curl")
@pytest.mark.parametrize("title", ["the broker's metrics", "the rules, from the controller"])
def test_printed_curl_line_works_when_pasted(system: Running, title: str) -> None:
    require_tool("curl", package="curl")
    line = lines_after(system.output.read_text(), title)
    shown = subprocess.run(
        shlex.split(line), check=True, timeout=30, capture_output=True, text=True
    )
    assert "stockade_" in shown.stdout or "everyone-connects" in shown.stdout


def test_sigterm_ends_everything_in_order(tmp_path: Path) -> None:
    with running(tmp_path / "system") as started:
        children = children_of(started.process.pid)
        assert len(children) == 2
        assert stop(started.process) == 0
    assert not any(accepts(address) for address in every_address(started))
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not (started.folder / "for-scripts.json").exists()
    with pytest.raises(CommandFailed):
        read_ready(started.folder / "ready.json")
    assert "Traceback" not in started.output.read_text()


def test_folder_is_used_again_with_the_same_certificates_and_policy(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        certificate = (tmp_path / "pki" / "broker.pem").read_bytes()
        files = ("--dir", str(first.folder))
        added = stockade(
            "acl",
            "add",
            *files,
            "--id",
            "extra",
            "--principal",
            "viewer",
            "--operations",
            "read",
            "--resource",
            "topic.extra",
        )
        assert added.returncode == 0, added.stderr
    with running(tmp_path) as second:
        assert (tmp_path / "pki" / "broker.pem").read_bytes() == certificate
        shown = stockade("acl", "list", "--dir", str(second.folder))
        assert "extra" in shown.stdout


def test_bench_client_can_be_added_to_a_folder_later(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        assert "bench" not in first.ready.clients
    with running(tmp_path, bench=True) as second:
        assert "bench" in second.ready.clients
        tested = stockade(
            "acl",
            "test",
            "--dir",
            str(tmp_path),
            "--principal",
            "bench",
            "--operation",
            "write",
            "--resource",
            "topic.bench.a",
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr


def test_death_of_a_daemon_ends_the_system_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path / "system") as started:
        broker = max(children_of(started.process.pid))  # started last
        os.kill(broker, signal.SIGKILL)
        assert started.process.wait(40) == 1
    told = started.output.read_text()
    assert "error: the broker was ended by signal 9" in told
    assert "broker is listening" in told  # the end of its log
    assert "Traceback" not in told
    assert not any(accepts(address) for address in every_address(started))
