"""A small HTTP/1.1 server on one stream: bounded in bytes, in time and in requests. The one door to h11.

*Theory of operation.* h11 holds the protocol's state and judges every byte; this file moves bytes, counts, and keeps
time. A request is read to its end before the handler sees it, and answered in one write. What a client did wrong is
answered with a problem (RFC 9457) and then the connection ends, since its place in the byte stream is not sure.

*Rules of this file.* Every wait has its limit in `HttpLimits`. A handler that raises is a 500 without details for the
client and an error in our log; nothing of it reaches other requests. The stream is the caller's, who closes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from transport.errors import TransportBroken, first_leaf
from transport.http_messages import (
    JSON,
    PROBLEM_JSON,
    TEXT,
    Request,
    RequestRefused,
    Response,
    json_response,
    problem,
    read_target,
)
from transport.tls import TlsStream

__all__ = [
    "JSON",
    "PROBLEM_JSON",
    "TEXT",
    "Handler",
    "HttpLimits",
    "Request",
    "RequestRefused",
    "Response",
    "json_response",
    "problem",
    "serve_http",
]

READ_BYTES: Final = 16384
_VERSIONS: Final = frozenset({b"1.0", b"1.1"})
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
# Nothing we serve is for a browser's cache or for guessing at its type.
_ALWAYS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

_OURS: Final = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})
_FAILED: Final = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")

Handler = Callable[[Request], Awaitable[Response]]

_log: FilteringBoundLogger = structlog.get_logger("stockade.transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one HTTP connection.

    Attributes:
        max_header_bytes: request line and headers together.
        max_body_bytes: the body of a request.
        idle_s: seconds between two requests.
        request_s: seconds from a request's first byte to its last, and again for the client to take the answer.
        handler_s: seconds a handler may take.
        max_requests: requests on one connection; then the client must connect again.
    """

    max_header_bytes: int = 16384
    max_body_bytes: int = 1 << 20
    idle_s: float = 30.0
    request_s: float = 10.0
    handler_s: float = 30.0
    max_requests: int = 1000


async def serve_http(
    stream: trio.abc.Stream,
    handler: Handler,
    *,
    limits: HttpLimits | None = None,
    principal: object = None,
) -> None:
    """Answer the requests of one connection until the client, an error or a limit ends it.

    *Resource handling.* Does not close `stream`.

    Args:
        stream: a `TlsStream`, whose identity the requests then carry, or any other stream.
        handler: answers one request at a time; may raise `RequestRefused` for a status of its own.
        limits: bounds.
        principal: handed on as `Request.principal`.

    Raises:
        TransportBroken: the connection broke.
        TransportClosed: another task closed it.
    """
    conversation = _Conversation(stream, handler, limits or HttpLimits(), principal)
    await conversation.run()


class _Conversation:
    """One connection: its h11 state and its limits."""

    def __init__(
        self, stream: trio.abc.Stream, handler: Handler, limits: HttpLimits, principal: object
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._limits = limits
        self._principal = principal
        self._head_only = False
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)

    async def run(self) -> None:
        for left in reversed(range(self._limits.max_requests)):
            if not await self._wait_for_request():
                return
            try:
                request = await self._read_request()
            except RequestRefused as refusal:
                await self._refuse(refusal)
                return
            if request is None:
                return
            await self._send(await self._answer(request), last=left == 0)
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()

    # -- reading

    async def _wait_for_request(self) -> bool:
        """Wait for the first byte of the next request, unless it is here already."""
        if self._h11.trailing_data[0]:
            return True
        with trio.move_on_after(self._limits.idle_s):
            data = bytes(await self._stream.receive_some(READ_BYTES))
            if data:
                self._h11.receive_data(data)
                return True
        return False

    async def _read_request(self) -> Request | None:
        try:
            with trio.fail_after(self._limits.request_s):
                head = await self._next_event()
                if not isinstance(head, h11.Request):
                    return None  # the client is done
                self._head_only = head.method == b"HEAD"
                self._verify_head(head)
                target = read_target(head.target)
                body = await self._read_body()
        except trio.TooSlowError as error:
            detail = f"the request was not here within {self._limits.request_s:g} s"
            raise RequestRefused(HTTPStatus.REQUEST_TIMEOUT, detail) from error
        tls = self._stream if isinstance(self._stream, TlsStream) else None
        return Request(
            method=head.method.decode("ascii"),
            path=target.path,
            segments=target.segments,
            query=target.query,
            headers=_join_headers(head),
            body=body,
            identity=None if tls is None else tls.identity,
            principal=self._principal,
            peer="" if tls is None else tls.peer_address,
        )

    async def _read_body(self) -> bytes:
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            self._verify_body_size(len(body))
        if not isinstance(event, h11.EndOfMessage):
            raise TransportBroken("the client ended the connection inside a request")
        return bytes(body)

    async def _next_event(self) -> h11.Event | None:
        """Return what the client did next; None when it may do nothing until we have answered."""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise RequestRefused(error.error_status_hint, str(error).lower()) from error
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                return None
            if self._h11.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(bytes(await self._stream.receive_some(READ_BYTES)))

    def _verify_head(self, head: h11.Request) -> None:
        size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > self._limits.max_header_bytes:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise RequestRefused(
                status, f"at most {self._limits.max_header_bytes} bytes of headers are read"
            )
        if head.http_version not in _VERSIONS:
            raise RequestRefused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "speak HTTP/1.1")
        framing = [value for name, value in head.headers if name == b"content-length"]
        if framing and any(name == b"transfer-encoding" for name, _ in head.headers):
            # RFC 9112 section 6.1: two lengths in one request are how requests are smuggled.
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST, "content-length and transfer-encoding exclude each other"
            )
        if framing:
            self._verify_body_size(int(framing[0]))

    def _verify_body_size(self, size: int) -> None:
        if size > self._limits.max_body_bytes:
            detail = f"at most {self._limits.max_body_bytes} bytes of body are read"
            raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)

    # -- answering

    async def _answer(self, request: Request) -> Response:
        try:
            with trio.fail_after(self._limits.handler_s):
                return await self._handler(request)
        except RequestRefused as refusal:
            return problem(refusal.status, refusal.detail)
        except Exception as error:  # noqa: BLE001 - contained: the client gets a 500, the operator the reason
            leaf = first_leaf(error)
            _log.error(
                "http handler failed",
                method=request.method,
                path=request.path,
                error=f"{type(leaf).__name__}: {leaf}",
            )
            _log.debug("http handler failed", exc_info=error)
            return _FAILED

    async def _refuse(self, refusal: RequestRefused) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(problem(refusal.status, refusal.detail), last=True)

    async def _send(self, response: Response, *, last: bool) -> None:
        try:
            head = _head_of(response, last=last)
        except (h11.LocalProtocolError, ValueError) as error:
            _log.error("http response impossible", error=str(error))
            response = _FAILED
            head = _head_of(response, last=last)
        events: list[h11.Event] = [head]
        if response.body and not self._head_only and response.status not in _WITHOUT_BODY:
            events.append(h11.Data(data=response.body))
        await self._write(*events, h11.EndOfMessage())

    async def _write(self, *events: h11.Event) -> None:
        wire = b"".join(self._h11.send(event) or b"" for event in events)
        with trio.move_on_after(self._limits.request_s) as patience:
            await self._stream.send_all(wire)
        if patience.cancelled_caught:
            raise TransportBroken("the client did not take the answer in time")


def _head_of(response: Response, *, last: bool) -> h11.Response:
    headers: list[tuple[bytes, bytes]] = [*_ALWAYS]
    for name, value in response.headers.items():
        if name.lower() not in _OURS:
            headers.append((name.encode("ascii"), value.encode("latin-1")))
    if response.status not in _WITHOUT_BODY:
        headers.append((b"content-type", response.content_type.encode("ascii")))
        headers.append((b"content-length", str(len(response.body)).encode()))
    if last:
        headers.append((b"connection", b"close"))
    reason = HTTPStatus(response.status).phrase.encode("ascii")
    return h11.Response(status_code=response.status, headers=headers, reason=reason)


def _join_headers(head: h11.Request) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
