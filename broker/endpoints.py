"""The broker's HTTP endpoints: `/metrics`, `/healthz` and `/readyz`, over mutual TLS.

Health and readiness answer every accepted certificate; metrics need DESCRIBE on `broker.ID.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.metrics import CONTENT_TYPE
from transport.http import HttpLimits, Request, Response, serve_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from acl.model import Principal
    from broker.gateway import Gateway
    from broker.guard import Guard
    from cache.authorizer import Authorizer
    from cache.connection import ConnectionCache
    from transport.tls import TlsStream
