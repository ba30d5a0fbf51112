"""The link without a controller: unavailable, and it says why."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from acl.model import AccessRequest, Operation, Principal, Resource
from certs.errors import KeyUnusable
from controller import wire
from controller.errors import ControllerUnavailable
from controller.link import ControllerLink, LinkTiming
from tests.pki import TestPki

ASK = [AccessRequest(Principal("s"), Operation.READ, Resource.topic("x"))]


def build(port: int, pki: TestPki, contacts: list[tuple[bool, str]]) -> ControllerLink:
    issued = pki.broker("b1")
    return ControllerLink(
        "127.0.0.1",
        port,
        context=lambda: pki.client_context(issued, alpn=[wire.ALPN]),
        server_name="localhost",
        broker_id="b1",
        trust_domain=pki.trust_domain,
        on_policy=lambda _update: None,
        on_contact=lambda here, reason: contacts.append((here, reason)),
        clock=lambda: 0.0,
        jitter=lambda: 0.0,
        timing=LinkTiming(backoff_min_s=0.01, backoff_max_s=0.05, connect_s=0.5),
    )


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def until_problem(link: ControllerLink, words: str) -> None:
    with trio.fail_after(5):
        while words not in link._contact.problem:
            await trio.sleep(0.01)


async def test_link_that_does_not_run_is_unavailable(tmp_path: Path) -> None:
    link = build(1, TestPki(tmp_path), [])
    assert (link.contact, link.epoch) == (False, -1)
    with pytest.raises(ControllerUnavailable, match="not connected yet"):
        await link.ask(ASK)


async def test_link_without_a_controller_keeps_trying_and_says_why(tmp_path: Path) -> None:
    contacts: list[tuple[bool, str]] = []
    link = build(closed_port(), TestPki(tmp_path), contacts)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        await until_problem(link, "cannot connect")
        with pytest.raises(ControllerUnavailable, match="cannot connect"):
            await link.ask(ASK)
        nursery.cancel_scope.cancel()
    assert contacts == [(False, "not connected yet")]


async def test_link_survives_a_server_that_is_no_tls(tmp_path: Path) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.0 400 no\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        link = build(port, TestPki(tmp_path), [])
        await nursery.start(link.run)
        with trio.fail_after(5):
            while link._contact.problem == "not connected yet":
                await trio.sleep(0.01)
        assert not link.contact
        nursery.cancel_scope.cancel()


async def test_link_survives_a_key_that_cannot_be_used_now(tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    link = build(closed_port(), pki, [])

    def broken() -> None:
        raise KeyUnusable("the key is gone")

    link._context = broken  # type: ignore[assignment] # raises instead of returning
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        await until_problem(link, "the key is gone")
        nursery.cancel_scope.cancel()


def test_timing_of_the_link_is_bounded() -> None:
    timing = LinkTiming()
    assert timing.stale_after_s > 2 * wire.HEARTBEAT_S
    assert timing.backoff_min_s < timing.backoff_max_s < timing.stale_after_s
