"""Addresses: bound sockets to listen on, one shape for peers in logs, and who counts as one peer."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack
from typing import Final

from transport.errors import AddressInUse, AddressUnusable

BACKLOG: Final = 1024  # connections the kernel holds for us while accepting pauses; the kernel caps it at somaxconn
# One IPv6 customer owns at least a /64, so addresses inside it are one peer (RFC 6177).
IPV6_SITE_BITS: Final = 64
IPV6_BITS: Final = 128
MAX_PORT: Final = 65535

# What getaddrinfo gives: host and port, for IPv6 also flow and scope.
_SocketAddress = tuple[str | int, ...]


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Open listening sockets on every address of `host`, all on one port.

    Args:
        host: a name or an address; an empty string or `*` means every address of this host.
        port: 0 lets the system choose one, the same for all addresses.

    Returns:
        Non-blocking listening sockets, at least one; the caller closes them.

    Raises:
        AddressInUse: somebody else listens there.
        AddressUnusable: no such name or address on this host, or no permission.
    """
    where = join_address(host or "*", port)
    unusable: AddressUnusable | None = None
    with ExitStack() as cleanup:
        sockets: list[socket.socket] = []
        for family, address in _resolve(host, port, where):
            try:
                sock = _listen(
                    family, _at_port(address, _bound_port(sockets[0]) if sockets else port), where
                )
            except (
                AddressUnusable
            ) as error:  # a name may have an IPv6 address on a host without IPv6
                unusable = error
                continue
            cleanup.callback(sock.close)
            sockets.append(sock)
        if not sockets:
            raise unusable or AddressUnusable(
                f"cannot listen on `{where}`: the name has no address"
            )
        cleanup.pop_all()
    return sockets


def join_address(host: str, port: int) -> str:
    """Write an address as `host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_address(sock: socket.socket) -> str:
    """Return `host:port` a socket is really bound to, with the port the system chose."""
    name = sock.getsockname()
    return join_address(str(name[0]), int(name[1]))


def site_of(host: str) -> str:
    """Return what counts as one peer for limits: the IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(
        ipaddress.IPv6Address(
            int(address) >> (IPV6_BITS - IPV6_SITE_BITS) << (IPV6_BITS - IPV6_SITE_BITS)
        )
    )


def _resolve(host: str, port: int, where: str) -> list[tuple[socket.AddressFamily, _SocketAddress]]:
    if not 0 <= port <= MAX_PORT:
        raise AddressUnusable(
            f"cannot listen on `{where}`: a port is a number from 0 to {MAX_PORT}"
        )
    name = None if host in ("", "*") else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressUnusable(
            f"cannot listen on `{where}`: the name `{host}` is unknown; check the address"
        ) from error
    return list(dict.fromkeys((family, _plain(address)) for family, _, _, _, address in found))


def _listen(family: socket.AddressFamily, address: _SocketAddress, where: str) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _bind_error(error, where) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(error, where) from error
    sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return sock


def _bind_error(error: OSError, where: str) -> AddressInUse | AddressUnusable:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"cannot listen on `{where}`: another process does; stop it or choose another port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return AddressUnusable(
            f"cannot listen on `{where}`: no permission; choose a port above 1023"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressUnusable(f"cannot listen on `{where}`: this host has no such address")
    return AddressUnusable(f"cannot listen on `{where}`: {(error.strerror or str(error)).lower()}")


def _bound_port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _at_port(address: _SocketAddress, port: int) -> _SocketAddress:
    return (address[0], port, *address[2:])


def _plain(address: tuple[str | int | bytes, ...]) -> _SocketAddress:
    return tuple(part for part in address if not isinstance(part, bytes))
