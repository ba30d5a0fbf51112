"""A real listener on loopback that echoes, and the story of what happened to everyone who came."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trio

from certs.identity import PeerIdentity
from certs.verify import verify_peer
from tests.pki import TRUST_DOMAIN
from transport.listener import HandshakeEvent, HandshakeLimits, bind_tcp, serve_tls
from transport.tls import TlsStream

HOST = "127.0.0.1"


class Served:
    """Where the listener is, and everything it reported."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.events: list[HandshakeEvent] = []
        self._news = trio.Event()

    def tell(self, event: HandshakeEvent) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    @property
    def results(self) -> list[str]:
        return [event.result for event in self.events]

    async def event(self, result: str, *, number: int = 1) -> HandshakeEvent:
        """Wait until `result` was reported `number` times; the latest of them."""
        with trio.fail_after(20):
            while self.results.count(result) < number:
                await self._news.wait()
        return [event for event in self.events if event.result == result][number - 1]


async def echo(stream: TlsStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


def verify_client(stream: TlsStream, identity: PeerIdentity) -> None:
    now = datetime.now(UTC).timestamp()
    verify_peer(identity, purpose="client", now=now, trust_domain=TRUST_DOMAIN)


@asynccontextmanager
async def serving(
    context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    *,
    handler: Callable[[TlsStream], Awaitable[None]] = echo,
    verify: Callable[[TlsStream, PeerIdentity], None] = verify_client,
    limits: HandshakeLimits | None = None,
    alpn: Sequence[str] = ("mqtt",),
) -> AsyncIterator[Served]:
    listeners = bind_tcp(HOST, 0)
    served = Served(listeners[0].getsockname()[1])
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await serve_tls(
                listeners,
                context=(lambda: context) if isinstance(context, ssl.SSLContext) else context,
                alpn=alpn,
                handler=handler,
                verify=verify,
                limits=limits,
                on_event=served.tell,
                task_status=task_status,
            )

        await nursery.start(serve)
        yield served
        nursery.cancel_scope.cancel()
