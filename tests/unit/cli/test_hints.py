"""The lines `stockade up` prints can be pasted: quoted, complete, with the real addresses."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from cli.hints import WINDOW, client_lines, curl, mosquitto
from cli.ready import ClientFiles, ListeningBroker, ListeningController, Ready, report


def files(name: str) -> ClientFiles:
    """Files in a folder whose name needs quoting."""
    return ClientFiles(ca="/my dir/ca.pem", cert=f"/my dir/{name}.pem", key=f"/my dir/{name}.key")


def a_report() -> Ready:
    """A system on odd ports."""
    return report(
        controller=ListeningController(rpc="127.0.0.1:1", api="127.0.0.1:2"),
        broker=ListeningBroker(mqtts="127.0.0.1:3", wss="127.0.0.1:4", metrics="127.0.0.1:5"),
        clients={name: files(name) for name in ("sensor", "viewer", "admin")},
    )


def test_mosquitto_line_is_complete_and_quoted() -> None:
    words = shlex.split(mosquitto("mosquitto_sub", a_report(), "viewer", "-t", "telemetry/#"))
    assert words[:5] == ["mosquitto_sub", "-h", "127.0.0.1", "-p", "3"]
    assert words[words.index("--cert") + 1] == "/my dir/viewer.pem"
    assert words[-2:] == ["-t", "telemetry/#"]


def test_curl_line_shows_the_certificate() -> None:
    words = shlex.split(curl(files("admin"), "https://127.0.0.1:5/metrics"))
    assert words[-1] == "https://127.0.0.1:5/metrics"
    assert words[words.index("--key") + 1] == "/my dir/admin.key"


def test_lines_name_every_listener_and_close_with_ready() -> None:
    ready = a_report()
    text = client_lines(ready, folder=Path("/my dir"))
    for address in (
        ready.broker.mqtts,
        ready.broker.wss,
        ready.broker.metrics,
        ready.controller.api,
    ):
        assert address in text
    assert text.splitlines()[-1].startswith("ready")


def test_every_command_line_can_be_split_by_a_shell() -> None:
    text = client_lines(a_report(), folder=Path("/my dir"))
    commands = [
        line for line in text.splitlines() if line.startswith(("mosquitto", "curl", "stockade"))
    ]
    assert len(commands) == 7
    assert all(shlex.split(line) for line in commands)


def test_example_window_is_one_record_of_the_shipped_kernel() -> None:
    made = subprocess.run(WINDOW, shell=True, check=True, capture_output=True, timeout=20)
    assert len(made.stdout) == 64 * 4
    assert 0 not in made.stdout
    assert made.stdout[-1:] != b"\n"
