from __future__ import annotations

import pytest

from certs.fields import MAX_FIELD_CHARACTERS, Source, complaint_about, values_of
from tests.pki import TestPki


def test_fields_are_those_of_the_certificate(tmp_path_factory: pytest.TempPathFactory) -> None:
    pki = TestPki(tmp_path_factory.mktemp("pki"))
    identity = pki.leaf("f", "x", dns_names=("d.example",), emails=("e@example.com",)).identity
    assert values_of(identity, "san.uri") == ("spiffe://stockade.local/client/x",)
    assert values_of(identity, "san.dns") == ("d.example",)
    assert values_of(identity, "san.email") == ("e@example.com",)
    assert values_of(identity, "subject.cn") == ("x",)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("san.uri", "spiffe://stockade.local/client/sensor"),
        ("san.uri", "spiffe://stockade.local/client/a.b_c-9"),
        ("san.uri", "https://ids.example/~device/a,b:c=d"),
        ("san.uri", "spiffe://stockade.local"),
        ("san.dns", "sensor.example"),
        ("san.dns", "_mqtt.a-b.example"),
        ("san.email", "Ann.Lee+dev@example.com"),
        ("subject.cn", "Device 7 (north)"),
    ],
)
def test_plain_spellings_are_accepted(source: Source, value: str) -> None:
    assert complaint_about(value, source) is None


@pytest.mark.parametrize(
    "value",
    [
        "Spiffe://stockade.local/client/a",
        "spiffe://Stockade.local/client/a",
        "spiffe://user@stockade.local/client/a",
        "spiffe://user:pass@stockade.local/client/a",
        "spiffe://stockade.local:443/client/a",
        "spiffe://stockade.local/client/%61",
        "spiffe://stockade.local/client/a?b",
        "spiffe://stockade.local/client/a#b",
        "spiffe://stockade.local/client//a",
        "spiffe://stockade.local/client/",
        "spiffe://stockade.local/client/../admin/a",
        "spiffe://stockade.local/./client/a",
        "spiffe://stockade.local/client\\a",
        "spiffe:/stockade.local/a",
        "urn:client:a",
        "spiffe:///client/a",
        "spiffe://[::1]/client/a",
    ],
)
def test_uri_in_another_spelling_is_refused(value: str) -> None:
    assert complaint_about(value, "san.uri") is not None


@pytest.mark.parametrize("source", ["san.uri", "san.dns", "san.email", "subject.cn"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "\u0430dmin",
        "admin\u202e",
        "e\u0301",
        " admin",
        "admin ",
        "a  b",
        "x" * (MAX_FIELD_CHARACTERS + 1),
    ],
)
def test_doubtful_characters_are_refused_in_every_field(source: Source, value: str) -> None:
    assert complaint_about(value, source) is not None


@pytest.mark.parametrize(
    "value", ["Sensor.example", "*.example", "a..b", "a.", "-a", "a b", "x" * 64 + ".a"]
)
def test_dns_name_in_another_spelling_is_refused(value: str) -> None:
    assert complaint_about(value, "san.dns") is not None


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "@example.com",
        "a@",
        "a@Example.com",
        "a@b@c.example",
        '"a b"@example.com',
        "a@[127.0.0.1]",
    ],
)
def test_mail_address_in_another_spelling_is_refused(value: str) -> None:
    assert complaint_about(value, "san.email") is not None
