from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from governance.logs import configure_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_events_are_json_lines_with_name_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True, level="info")
    structlog.get_logger("stockade.broker").info("listening", port=8883)
    logging.getLogger("stockade.other").warning("from the %s", "standard library")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["logger"] == "stockade.broker"
    assert (first["event"], first["level"], first["port"]) == ("listening", "info", 8883)
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("from the standard library", "warning")


def test_text_of_a_peer_forges_no_line_and_steers_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(json=False, level="info")
    structlog.get_logger("stockade.broker").info(
        "denied", topic="a\x1b[2J\nforged\u202e", principal="ä"
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "\x1b[2J" not in lines[0]
    assert "\u202e" not in lines[0]
    assert "ä" in lines[0]


def test_level_is_obeyed_and_last_call_counts(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True, level="debug")
    configure_logging(json=True, level="error")
    log = structlog.get_logger("stockade.broker")
    log.info("quiet")
    log.error("loud")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["loud"]


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log level `chatty`: use debug"):
        configure_logging(json=True, level="chatty")
