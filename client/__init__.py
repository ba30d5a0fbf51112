"""A Trio MQTT 5 client over mutual TLS, and kernel calls.

Knows: connecting, publishing, subscribing, request and response, calling a kernel with arrays.
Never: connects without verifying the server, retries without a bound.
Doors: none of its own; `transport` for TLS and `mqtt` for the protocol.
"""

from __future__ import annotations
