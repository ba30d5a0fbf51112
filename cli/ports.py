"""Which ports a development system listens on: the well-known ones when they are free, any free one otherwise.

Port 0 means "any": the daemon lets the kernel choose and reports the address it really got, so nothing is lost between
looking and binding. The default ports are only looked at, and a daemon that finds its port taken after all says so.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
ANY_PORT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port per listener; 0 is any free one.

    Attributes:
        mqtts: MQTT over TLS (8883 is its registered port).
        wss: MQTT over secure WebSocket.
        metrics: the broker's metrics, health and readiness.
        rpc: where the controller serves brokers.
        api: where the controller serves administrators.
    """

    mqtts: int = 8883
    wss: int = 8884
    metrics: int = 8885
    rpc: int = 7443
    api: int = 7444


FREE = Ports(mqtts=ANY_PORT, wss=ANY_PORT, metrics=ANY_PORT, rpc=ANY_PORT, api=ANY_PORT)
"""Any free port for each, for systems beside others: those that start in one moment cannot choose the same."""


def is_free(port: int) -> bool:
    """Whether this port of the loopback address can be bound right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(free: Callable[[int], bool] = is_free) -> Ports:
    """The default ports, each one that is taken replaced by any free one.

    Args:
        free: whether a port can be bound.
    """

    def choose(port: int) -> int:
        return port if free(port) else ANY_PORT

    default = Ports()
    return Ports(
        mqtts=choose(default.mqtts),
        wss=choose(default.wss),
        metrics=choose(default.metrics),
        rpc=choose(default.rpc),
        api=choose(default.api),
    )


def address(port: int) -> str:
    """`host:port` as the daemons' configuration has it."""
    return f"{HOST}:{port}"
