"""Authenticated bytes over sockets: TLS streams, bounded listeners, frames and a small HTTP server.

Knows: the TLS stream on `SSLObject`, handshake bounds and alerts, length-prefixed frames, HTTP/1.1.
Never: knows what a message means, opens a socket without TLS, waits for a peer without a deadline.
Doors: `ssl`, sockets, `h11` (in `transport.http`).
"""

from __future__ import annotations
