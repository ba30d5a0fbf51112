"""Our errors are Trio's errors too, and say what happened."""

from __future__ import annotations

import trio

from transport.errors import (
    HandshakeFailed,
    RemoteAlert,
    ServerUntrusted,
    TransportBroken,
    TransportBusy,
    TransportClosed,
    TransportError,
    first_leaf,
)


def test_errors_of_streams_are_those_trio_code_expects() -> None:
    assert issubclass(TransportBroken, trio.BrokenResourceError)
    assert issubclass(TransportClosed, trio.ClosedResourceError)
    assert issubclass(TransportBusy, trio.BusyResourceError)
    for error in (TransportBroken, TransportClosed, TransportBusy, HandshakeFailed, RemoteAlert):
        assert issubclass(error, TransportError)


def test_handshake_failed_carries_word_and_reason() -> None:
    error = ServerUntrusted("expired", "the server's certificate is refused: it has expired")
    assert (error.result, str(error)) == ("expired", error.reason)


def test_remote_alert_carries_its_name() -> None:
    assert RemoteAlert("the server ended TLS", alert="unknown ca").alert == "unknown ca"


def test_first_leaf_looks_through_groups() -> None:
    leaf = ValueError("x")
    assert first_leaf(ExceptionGroup("", [ExceptionGroup("", [leaf]), KeyError()])) is leaf
    assert first_leaf(leaf) is leaf
