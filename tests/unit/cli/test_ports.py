"""The default ports when they are free, any free one otherwise."""

from __future__ import annotations

import socket

from cli.ports import ANY_PORT, FREE, HOST, Ports, address, choose_ports, is_free


def test_choose_ports_prefers_the_defaults() -> None:
    assert choose_ports(free=lambda _: True) == Ports()
    assert Ports().mqtts == 8883


def test_choose_ports_replaces_only_what_is_taken() -> None:
    chosen = choose_ports(free=lambda port: port != 8883)
    assert chosen == Ports(mqtts=ANY_PORT)


def test_free_ports_are_left_to_the_kernel() -> None:
    assert {FREE.mqtts, FREE.wss, FREE.metrics, FREE.rpc, FREE.api} == {ANY_PORT}


def test_is_free_sees_a_listener() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_address_names_the_loopback() -> None:
    assert address(1) == "127.0.0.1:1"
