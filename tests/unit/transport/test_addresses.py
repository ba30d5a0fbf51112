"""Listening addresses: bound for real on loopback, refused with words that help."""

from __future__ import annotations

import socket

import pytest

from transport.addresses import bind_tcp, bound_address, join_address, site_of
from transport.errors import AddressInUse, AddressUnusable


def test_bind_tcp_listens_on_a_port_the_system_chose() -> None:
    (sock,) = bind_tcp("127.0.0.1", 0)
    with sock:
        address = bound_address(sock)
        assert address.startswith("127.0.0.1:")
        assert not sock.getblocking()
        socket.create_connection(sock.getsockname()[:2], timeout=2).close()


@pytest.mark.parametrize("host", ["localhost", "", "*"])
def test_bind_tcp_uses_one_port_for_all_addresses_of_a_name(host: str) -> None:
    sockets = bind_tcp(host, 0)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    assert sockets[0].getsockname()[1] != 0
    for sock in sockets:
        sock.close()


def test_bind_tcp_says_when_the_port_is_taken() -> None:
    (sock,) = bind_tcp("127.0.0.1", 0)
    with (
        sock,
        pytest.raises(AddressInUse, match="another process does; stop it or choose") as error,
    ):
        bind_tcp("127.0.0.1", sock.getsockname()[1])
    assert bound_address is not None
    assert "`127.0.0.1:" in str(error.value)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("no-such-host.invalid", 0, "is unknown; check the address"),
        ("203.0.113.7", 0, "this host has no such address"),
        ("127.0.0.1", 65536, "a port is a number from 0 to 65535"),
        ("127.0.0.1", -1, "a port is a number from 0 to 65535"),
        ("x" * 300, 0, "is unknown; check the address"),
    ],
)
def test_bind_tcp_says_why_an_address_is_unusable(host: str, port: int, words: str) -> None:
    with pytest.raises(AddressUnusable, match=words):
        bind_tcp(host, port)


def test_join_address_puts_ipv6_in_brackets() -> None:
    assert join_address("127.0.0.1", 1) == "127.0.0.1:1"
    assert join_address("::1", 1) == "[::1]:1"


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("no address", "no address"),
    ],
)
def test_site_of_is_who_counts_as_one_peer(host: str, site: str) -> None:
    assert site_of(host) == site
