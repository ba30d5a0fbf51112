"""The HTTP server, spoken to in raw bytes: keep-alive, bodies, limits, bad input, failing handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from transport.errors import TransportBroken
from transport.http import HttpLimits, Request, RequestRefused, Response, problem, serve_http

Answer = tuple[int, dict[str, str], bytes]
LIMITS = HttpLimits(max_header_bytes=1000, max_body_bytes=100, max_requests=5)


class Client:
    """Speaks raw HTTP over a memory stream and reads answers."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, *lines: str, body: bytes = b"") -> None:
        await self.stream.send_all(
            "".join(f"{line}\r\n" for line in lines).encode("latin-1") + body
        )

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        await self.send(f"{method} {path} HTTP/1.1", "Host: x", *headers, "")
        return await self.answer(head_only=method == "HEAD")

    async def answer(self, *, head_only: bool = False) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *rest = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
        }
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            await self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return int(first.split()[1]), headers, body

    async def ended(self) -> bool:
        return not self._buffer and await self.stream.receive_some(1) == b""

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, "the server ended the connection instead of answering"
        self._buffer += data


async def echo(request: Request) -> Response:
    if request.path == "/fail":
        message = "secret detail"
        raise RuntimeError(message)
    if request.path == "/refuse":
        raise RequestRefused(409, "exists already")
    if request.path == "/odd":
        return Response(headers={"x-odd": "a\r\nb: c"})
    if request.path == "/nothing":
        return Response(status=204, body=b"dropped")
    if request.path == "/slow":
        await trio.sleep_forever()
    if request.path == "/framed":
        return Response(body=b"four", headers={"Content-Length": "99", "X-Own": "1"})
    content: dict[str, object] = {
        "method": request.method,
        "path": request.path,
        "body": request.body.decode("latin-1"),
        "query": dict(request.query),
        "headers": dict(request.headers),
    }
    return Response(body=msgspec.json.encode(content), content_type="application/json")


@asynccontextmanager
async def served(
    handler: Callable[[Request], Awaitable[Response]] = echo, *, limits: HttpLimits = LIMITS
) -> AsyncIterator[Client]:
    near, far = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await serve_http(far, handler, limits=limits, principal="someone")
        await far.aclose()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield Client(near)
            nursery.cancel_scope.cancel()


def content(answer: Answer) -> dict[str, object]:
    return msgspec.json.decode(answer[2], type=dict[str, object])


async def test_requests_follow_one_another_on_one_connection() -> None:
    async with served() as client:
        for i in range(3):
            status, headers, _ = answer = await client.get(
                f"/a%20b/{i}?k=v", "X-One: 1", "X-One: 2"
            )
            assert status == 200
            assert content(answer)["path"] == f"/a b/{i}"
            assert content(answer)["query"] == {"k": "v"}
            assert content(answer)["headers"] == {"host": "x", "x-one": "1, 2"}
            assert headers["content-type"] == "application/json"
            assert headers["cache-control"] == "no-store"
            assert "connection" not in headers


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as client:
        await client.send(*["GET /1 HTTP/1.1", "Host: x", "", "GET /2 HTTP/1.1", "Host: x", ""])
        assert [content(await client.answer())["path"] for _ in range(2)] == ["/1", "/2"]


async def test_bodies_arrive_by_length_and_in_chunks() -> None:
    async with served() as client:
        await client.send("POST / HTTP/1.1", "Host: x", "Content-Length: 5", "", body=b"hello")
        assert content(await client.answer())["body"] == "hello"
        await client.send("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "")
        await client.send("3", "abc", "2;ext=1", "de", "0", "Trailer: x", "")
        assert content(await client.answer())["body"] == "abcde"


async def test_continue_is_said_only_for_a_body_we_will_read() -> None:
    async with served() as client:
        head = ("PUT / HTTP/1.1", "Host: x", "Expect: 100-continue")
        await client.send(*head, "Content-Length: 3", "")
        assert (await client.answer())[0] == 100
        await client.stream.send_all(b"abc")
        assert content(await client.answer())["body"] == "abc"
        await client.send(*head, "Content-Length: 101", "")
        assert (await client.answer())[0] == 413
        assert await client.ended()


async def test_head_is_answered_without_its_body() -> None:
    async with served() as client:
        status, headers, _ = await client.get("/", method="HEAD")
        assert (status, int(headers["content-length"]) > 10) == (200, True)
        assert (await client.get("/x"))[0] == 200


async def test_no_content_has_neither_body_nor_length() -> None:
    async with served() as client:
        status, headers, _ = await client.get("/nothing")
        assert status == 204
        assert "content-length" not in headers
        assert (await client.get("/"))[0] == 200


async def test_framing_is_never_the_handlers() -> None:
    async with served() as client:
        status, headers, body = await client.get("/framed")
        assert (status, body, headers["x-own"]) == (200, b"four", "1")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/1.1", ""], 400),  # no Host
        (["nonsense", ""], 400),
        (["GET /../x HTTP/1.1", "Host: x", ""], 400),
        (["GET / HTTP/9.9", "Host: x", ""], 505),
        (["GET / HTTP/1.1", "Host: x", "Bad Name: 1", ""], 400),
        (["GET / HTTP/1.1", "Host: x", "X: " + "y" * 1000, ""], 431),
        (["GET /" + "y" * 1000 + " HTTP/1.1", "Host: x", ""], 431),
        (["GET /" + "y" * 1200], 431),  # no end in sight
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 101", ""], 413),
        (["POST / HTTP/1.1", "Host: x", "Content-Length: -1", ""], 400),
        (["POST / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 2", ""], 400),
        (
            ["POST / HTTP/1.1", "Host: x", "Content-Length: 3", "Transfer-Encoding: chunked", ""],
            400,
        ),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: gzip", ""], 501),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "", "zz"], 400),
        (["POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "", "65", "z" * 101], 413),
        (["CONNECT host:1 HTTP/1.1", "Host: x", ""], 400),
        (["PRI * HTTP/2.0", "", "SM", ""], 505),
    ],
)
async def test_bad_requests_get_a_problem_and_the_end(lines: list[str], status: int) -> None:
    async with served() as client:
        await client.send(*lines)
        answer = await client.answer()
        assert answer[0] == status
        assert answer[1]["content-type"] == "application/problem+json"
        assert answer[1]["connection"] == "close"
        assert content(answer)["status"] == status
        assert await client.ended()


async def test_failing_handler_is_a_500_without_details_and_harms_nobody() -> None:
    async with served() as client:
        status, _, body = await client.get("/fail")
        assert status == 500
        assert b"secret" not in body
        assert (await client.get("/odd"))[0] == 500
        assert (await client.get("/refuse"))[0] == 409
        assert (await client.get("/"))[0] == 200


async def test_handler_gets_principal_and_may_answer_problems() -> None:
    async def handler(request: Request) -> Response:
        assert request.principal == "someone"
        assert request.identity is None
        return problem(404, "no such page")

    async with served(handler) as client:
        assert content(await client.get("/"))["detail"] == "no such page"


async def test_connection_ends_after_its_last_request() -> None:
    async with served() as client:
        for i in range(LIMITS.max_requests):
            _, headers, _ = await client.get("/")
            assert ("connection" in headers) == (i == LIMITS.max_requests - 1)
        assert await client.ended()


@pytest.mark.parametrize(
    "lines", [["GET / HTTP/1.0", ""], ["GET / HTTP/1.1", "Host: x", "Connection: close", ""]]
)
async def test_client_may_ask_for_the_end(lines: list[str]) -> None:
    async with served() as client:
        await client.send(*lines)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended()


async def test_idle_connection_ends_silently(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as client:
        start = trio.current_time()
        assert await client.ended()
        assert trio.current_time() - start == pytest.approx(LIMITS.idle_s)


async def test_request_that_takes_too_long_is_told_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as client:
        start = trio.current_time()
        await client.stream.send_all(b"GET")
        assert (await client.answer())[0] == 408
        assert trio.current_time() - start == pytest.approx(LIMITS.request_s)
        assert await client.ended()


async def test_dripping_a_body_does_not_extend_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as client:
        await client.send("POST / HTTP/1.1", "Host: x", "Content-Length: 90", "")
        with trio.move_on_after(LIMITS.request_s + 1):
            while True:
                await client.stream.send_all(b"x")
                await trio.sleep(1)
        assert (await client.answer())[0] == 408


async def test_handler_that_never_ends_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as client:
        start = trio.current_time()
        assert (await client.get("/slow"))[0] == 500
        assert trio.current_time() - start == pytest.approx(LIMITS.handler_s)
        assert (await client.get("/"))[0] == 200


async def test_client_that_takes_no_answer_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TransportBroken, match="did not take the answer"):
            await serve_http(far, echo)


async def test_client_that_leaves_inside_a_request_ends_the_conversation() -> None:
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    await near.send_eof()
    with trio.fail_after(5):
        await serve_http(far, echo)
        await far.aclose()
    assert (await near.receive_some()).startswith(b"HTTP/1.1 400 ")
