"""The broker process: gateway, guard, sessions, router, kernel dispatch, metrics, daemon.

Knows: how one message goes from a socket to its subscribers and kernels, and who is connected.
Never: forwards what the guard did not allow, lets one peer stop another, keeps an unbounded queue.
Doors: `trio_websocket` (in `broker.websocket`), `prometheus_client` (in `broker.metrics`).
"""

from __future__ import annotations
