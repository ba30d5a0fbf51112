from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from hypothesis import given, strategies as st

from certs.errors import IssueRefused
from certs.hosts import MAX_HOSTS, general_names


def test_hosts_become_names_and_addresses_in_order_without_repetitions() -> None:
    assert general_names(["localhost", "127.0.0.1", "::1", "LocalHost", "0:0:0:0:0:0:0:1"]) == (
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    )


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example.com",
        "a..b",
        "a.",
        "-a",
        "a-",
        "a b",
        "a\0",
        "a\n",
        "a_b",
        "b\u00fccher.example",
        "127.0.0.256",
        "127.1",
        "1",
        "127.0.0.1:8883",
        "localhost:8883",
        "[::1]",
        "::1%eth0",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "https://example.com",
    ],
)
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(IssueRefused, match="neither a host name nor an IP address"):
        general_names([host])


def test_hosts_are_counted() -> None:
    with pytest.raises(IssueRefused, match="1 to 16 hosts, not 0"):
        general_names([])
    with pytest.raises(IssueRefused):
        general_names([f"h{i}" for i in range(MAX_HOSTS + 1)])


@given(st.text(max_size=40))
def test_hosts_garbage_is_refused_or_plain(host: str) -> None:
    try:
        (name,) = general_names([host])
    except IssueRefused as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right
    else:
        assert str(name.value).isascii()
