from __future__ import annotations

import sys

import pytest
import trio
import trio.testing
import trio_websocket

from broker.websocket import WebSocketLink, accept_websocket


async def serve(
    stream: trio.abc.Stream, links: list[WebSocketLink | None], until: trio.Event
) -> None:
    async with accept_websocket(stream, max_message_bytes=1000) as link:
        links.append(link)
        await until.wait()


async def dial(
    nursery: trio.Nursery, *, path: str = "/mqtt", subprotocols: tuple[str, ...] = ("mqtt",)
) -> tuple[trio_websocket.WebSocketConnection, list[WebSocketLink | None], trio.Event]:
    client, server = trio.testing.memory_stream_pair()
    links: list[WebSocketLink | None] = []
    until = trio.Event()
    nursery.start_soon(serve, server, links, until)
    connection = await trio_websocket.wrap_client_stream(
        nursery,
        client,  # type: ignore[arg-type]  # annotated for sockets, works on any stream
        "localhost",
        path,
        subprotocols=subprotocols,
    )
    await trio.testing.wait_all_tasks_blocked()
    return connection, links, until


async def test_link_joins_frames_and_splits_reads(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    assert connection.subprotocol == "mqtt"
    await connection.send_message(b"abc")
    await connection.send_message(b"")
    await connection.send_message(b"def")
    assert await link.receive_some(2) == b"ab"
    assert await link.receive_some() == b"c"
    assert await link.receive_some() == b"def"
    until.set()


async def test_link_sends_everything_kept_as_one_frame(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    assert not link.send_now(b"one")
    assert not link.send_now(b"two")
    await link.flush()
    assert await connection.get_message() == b"onetwo"
    until.set()


async def test_text_frame_ends_the_connection(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    await connection.send_message("text")
    assert await link.receive_some() == b""
    with pytest.raises(trio_websocket.ConnectionClosed) as closed:
        await connection.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1003
    until.set()


async def test_link_ends_with_the_client(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    await connection.aclose()
    assert await link.receive_some() == b""
    link.send_now(b"late")
    with pytest.raises(trio.BrokenResourceError):
        await link.flush()
    until.set()


async def test_message_above_the_bound_ends_the_connection(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    await connection.send_message(b"x" * 1001)
    assert await link.receive_some() == b""
    until.set()


@pytest.mark.parametrize(
    ("path", "subprotocols", "status"),
    [("/other", ("mqtt",), 404), ("/mqtt", ("chat",), 400), ("/mqtt", (), 400)],
)
async def test_upgrade_that_is_not_mqtt_is_refused(
    path: str, subprotocols: tuple[str, ...], status: int
) -> None:
    client, server = trio.testing.memory_stream_pair()
    links: list[WebSocketLink | None] = []
    until = trio.Event()
    until.set()
    offered = f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}\r\n" if subprotocols else ""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, links, until)
        await client.send_all(request.encode())
        answer = await client.receive_some(1000)
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert answer is not None
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert links == [None]


async def test_peer_that_never_upgrades_is_let_go(autojump_clock: trio.abc.Clock) -> None:
    client, server = trio.testing.memory_stream_pair()
    links: list[WebSocketLink | None] = []
    until = trio.Event()
    until.set()
    with trio.fail_after(60):
        await serve(server, links, until)
    assert links == [None]
    await client.aclose()


async def test_link_takes_any_number_of_empty_frames(nursery: trio.Nursery) -> None:
    connection, (link,), until = await dial(nursery)
    assert link is not None
    nursery.start_soon(send_empty_frames, connection, sys.getrecursionlimit() + 100)
    with trio.fail_after(20):
        assert await link.receive_some() == b"end"
    until.set()


async def send_empty_frames(connection: trio_websocket.WebSocketConnection, count: int) -> None:
    for _ in range(count):
        await connection.send_message(b"")
    await connection.send_message(b"end")
