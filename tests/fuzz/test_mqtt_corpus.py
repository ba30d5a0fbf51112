"""Bytes that the fuzzer found worth keeping break no promise; replayed without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.mqtt_targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_of_a_target_breaks_no_promise(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    for path in files:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_target_takes_the_shortest_bytes(name: str) -> None:
    for data in (b"", b"\0", b"\1\2", bytes(16), b"\xff" * 16):
        TARGETS[name](data)
