"""The ready report has the shape scripts rely on, and appears whole or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.failure import CommandFailed
from cli.ready import (
    ClientFiles,
    ListeningBroker,
    ListeningController,
    Ready,
    read_ready,
    report,
    write_ready,
)

if TYPE_CHECKING:
    from pathlib import Path


def a_report() -> Ready:
    """A report of a system on odd ports."""
    return report(
        controller=ListeningController(rpc="127.0.0.1:7443", api="127.0.0.1:7444"),
        broker=ListeningBroker(
            mqtts="127.0.0.1:8883", wss="127.0.0.1:8884", metrics="127.0.0.1:8885"
        ),
        clients={"sensor": ClientFiles(ca="/d/ca.pem", cert="/d/sensor.pem", key="/d/sensor.key")},
    )


def test_report_has_the_promised_shape(tmp_path: Path) -> None:
    write_ready(tmp_path / "ready.json", a_report())
    assert json.loads((tmp_path / "ready.json").read_text()) == {
        "broker": {
            "mqtts": "127.0.0.1:8883",
            "wss": "wss://127.0.0.1:8884/mqtt",
            "metrics": "https://127.0.0.1:8885",
        },
        "controller": {"rpc": "127.0.0.1:7443", "api": "https://127.0.0.1:7444"},
        "clients": {"sensor": {"ca": "/d/ca.pem", "cert": "/d/sensor.pem", "key": "/d/sensor.key"}},
    }


def test_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_ready(tmp_path / "deep" / "er" / "ready.json", a_report())
    assert read_ready(tmp_path / "deep" / "er" / "ready.json") == a_report()


def test_report_leaves_nothing_beside_its_file(tmp_path: Path) -> None:
    write_ready(tmp_path / "ready.json", a_report())
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


def test_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="cannot write"):
        write_ready(tmp_path / "file" / "ready.json", a_report())


def test_missing_report_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"stockade up --dir"):
        read_ready(tmp_path / "ready.json")


@pytest.mark.parametrize("text", ["", "[]", '{"broker": 1}', "x" * 70_000])
def test_broken_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ready.json").write_text(text)
    with pytest.raises(CommandFailed, match="cannot read"):
        read_ready(tmp_path / "ready.json")
