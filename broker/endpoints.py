"""The broker's HTTP endpoints: `/metrics`, `/healthz` and `/readyz`, over mutual TLS.

Health and readiness answer every accepted certificate; metrics need DESCRIBE on `broker.ID.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from broker.metrics import CONTENT_TYPE
from transport.http import serve_http
from transport.http_messages import Request, RequestRefused, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.model import Principal
    from broker.guard import Guard
    from cache.authorizer import Authorizer
    from cache.connection import ConnectionCache
    from transport.tls import TlsStream


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
            await serve_http(stream, handle)
        finally:
            cache.close()

    async def _answer(self, observer: Observer, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        match request.path:
            case "/healthz":
                return json_response({"status": "alive"})
            case "/readyz":
                return self._readiness()
            case "/metrics":
                return await self._metrics(observer)
            case _:
                raise RequestRefused(HTTPStatus.NOT_FOUND, "pages: /metrics /healthz /readyz")

    def _readiness(self) -> Response:
        reason = self._not_ready()
        if reason:
            body = {"status": "not ready", "reason": reason}
            return json_response(body, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return json_response({"status": "ready"})

    async def _metrics(self, observer: Observer) -> Response:
        decision = await self._guard.may_observe(observer)
        if not decision.allowed:
            detail = f"not authorized, decision {decision.id}"
            raise RequestRefused(HTTPStatus.FORBIDDEN, detail)
        return Response(body=self._page(), content_type=CONTENT_TYPE)
