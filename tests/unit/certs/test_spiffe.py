from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from certs.errors import CertificateInvalid
from certs.spiffe import SpiffeId, is_segment, is_trust_domain, parse_spiffe

SEGMENTS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(is_segment)
DOMAINS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,40}", fullmatch=True)


@given(DOMAINS, SEGMENTS, SEGMENTS)
def test_spiffe_id_survives_its_spelling(domain: str, role: str, name: str) -> None:
    spiffe = SpiffeId(trust_domain=domain, role=role, id=name)
    assert parse_spiffe(spiffe.uri) == spiffe


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://stockade.local",
        "spiffe://stockade.local/",
        "spiffe://stockade.local/client",
        "spiffe://stockade.local/client/",
        "spiffe://stockade.local//sensor",
        "spiffe://stockade.local/client/sensor/",
        "spiffe://stockade.local/client/sensor/x",
        "spiffe:///client/sensor",
        "SPIFFE://stockade.local/client/sensor",
        "spiffe://Stockade.local/client/sensor",
        "spiffe://stockade.local:8883/client/sensor",
        "spiffe://user@stockade.local/client/sensor",
        "spiffe://stockade.local/client/sensor?x=1",
        "spiffe://stockade.local/client/sensor#x",
        "spiffe://stockade.local/client/%73ensor",
        "spiffe://stockade.local/client/sen sor",
        "spiffe://stockade.local/client/sensor\n",
        "spiffe://stockade.local/client/sensor\0",
        "spiffe://stockade.local/client/s\u0435nsor",
        "spiffe://stockade.local/client/..",
        "spiffe://stockade.local/./sensor",
        "spiffe://stockade.local/client/" + "x" * 65,
        "spiffe://" + "x" * 256 + "/client/sensor",
        "https://stockade.local/client/sensor",
        " spiffe://stockade.local/client/sensor",
    ],
)
def test_spiffe_refuses_every_other_spelling(uri: str) -> None:
    with pytest.raises(CertificateInvalid) as caught:
        parse_spiffe(uri)
    assert caught.value.reason == "spiffe"
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@given(st.text(max_size=300))
def test_spiffe_garbage_is_refused_in_a_short_printable_line(text: str) -> None:
    with pytest.raises(CertificateInvalid) as caught:
        parse_spiffe(f"spiffe://{text}\0")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2_000


def test_segment_is_bounded_and_never_dots() -> None:
    assert all(map(is_segment, ("a", "A.b_c-9", "x" * 64, "...")))
    assert not any(map(is_segment, ("", ".", "..", "x" * 65, "a/b", "a\n", "é", "a b", "*", "+")))


def test_trust_domain_is_lower_case_and_bounded() -> None:
    assert all(map(is_trust_domain, ("stockade.local", "a", "0", "x" * 255)))
    assert not any(map(is_trust_domain, ("", "A", ".a", "-a", "a/b", "a\n", "a:1", "x" * 256)))
