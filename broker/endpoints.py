"""The broker's HTTP endpoints: `/metrics`, `/healthz` and `/readyz`, over mutual TLS.

Health and readiness answer every accepted certificate; metrics need DESCRIBE on `broker.ID.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from broker.metrics import CONTENT_TYPE
from transport.http import HttpLimits, Request, Response, serve_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.model import Principal
    from broker.guard import Guard
    from cache.authorizer import Authorizer
    from cache.connection import ConnectionCache
    from transport.tls import TlsStream

JSON = "application/json"
OK = 200
FORBIDDEN = 403
NOT_FOUND = 404
METHOD_NOT_ALLOWED = 405
UNAVAILABLE = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """One HTTP connection, as the guard sees it."""

    principal: Principal
    cache: ConnectionCache
    peer: str


class Endpoints:
    """Serves the three pages."""

    def __init__(
        self,
        *,
        guard: Guard,
        authorizer: Authorizer,
        page: Callable[[], bytes],
        not_ready: Callable[[], str],
    ) -> None:
        """Connect the pages with what they show.

        Args:
            guard: weighs who may read metrics.
            authorizer: opens the L1 of each connection.
            page: the metrics page.
            not_ready: why this broker cannot serve; empty when it can.
        """
        self._guard = guard
        self._authorizer = authorizer
        self._page = page
        self._not_ready = not_ready

    async def serve(self, stream: TlsStream, principal: Principal) -> None:
        """Answer one connection's requests until it ends."""
        cache = self._authorizer.open(principal)
        observer = Observer(principal=principal, cache=cache, peer=stream.peer_address)

        async def handle(request: Request) -> Response:
            return await self._answer(observer, request)

        try:
            await serve_http(stream, handle, limits=HttpLimits())
        finally:
            cache.close()

    async def _answer(self, observer: Observer, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _json(METHOD_NOT_ALLOWED, error="only GET and HEAD", allow="GET, HEAD")
        match request.path:
            case "/healthz":
                return _json(OK, status="alive")
            case "/readyz":
                reason = self._not_ready()
                if reason:
                    return _json(UNAVAILABLE, status="not ready", reason=reason)
                return _json(OK, status="ready")
            case "/metrics":
                return await self._metrics(observer)
            case _:
                return _json(NOT_FOUND, error="pages: /metrics /healthz /readyz")

    async def _metrics(self, observer: Observer) -> Response:
        decision = await self._guard.may_observe(observer)
        if not decision.allowed:
            return _json(FORBIDDEN, error="not authorized", decision=decision.id)
        return Response(status=OK, body=self._page(), content_type=CONTENT_TYPE)


def _json(code: int, **fields: str) -> Response:
    return Response(status=code, body=msgspec.json.encode(fields) + b"\n", content_type=JSON)
