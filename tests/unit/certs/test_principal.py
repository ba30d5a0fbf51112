from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from acl.model import Principal, PrincipalKind
from certs.errors import PrincipalRefused, RuleInvalid
from certs.identity import PeerIdentity
from certs.principal import (
    DEFAULT_RULES,
    MAX_RULES,
    Outcome,
    PrincipalMapper,
    PrincipalRule,
    default_rules,
)
from tests.pki import TestPki

if TYPE_CHECKING:
    from certs.fields import Source

NOBODY = PeerIdentity(
    subject="",
    common_names=(),
    uris=(),
    dns_names=(),
    emails=(),
    issuer_key_id=b"k",
    serial=1,
    not_before=0,
    not_after=1,
    fingerprint=b"f" * 32,
    purposes=frozenset({"client"}),
)
DEFAULT = PrincipalMapper(DEFAULT_RULES)
FIELDS: dict[Source, str] = {
    "san.uri": "https://ids.example/{id}",
    "san.dns": "{id}.devices.example",
    "san.email": "{id}@example.com",
    "subject.cn": "Device {id}",
}
ALL_FIELDS = PrincipalMapper(
    [PrincipalRule(name=source, source=source, match=match) for source, match in FIELDS.items()]
)


def with_uri(*uris: str) -> PeerIdentity:
    return replace(NOBODY, uris=uris)


@pytest.mark.parametrize(
    ("path", "principal"),
    [
        ("client/sensor", Principal("sensor", PrincipalKind.SERVICE)),
        ("admin/ann", Principal("ann", PrincipalKind.USER)),
        ("broker/b1", Principal("broker:b1", PrincipalKind.SERVICE)),
        ("controller/c1", Principal("controller:c1", PrincipalKind.SERVICE)),
    ],
)
def test_default_rules_name_every_role(path: str, principal: Principal) -> None:
    assert DEFAULT.verify_principal(with_uri(f"spiffe://stockade.local/{path}")) == principal


def test_mapper_names_real_certificates(tmp_path_factory: pytest.TempPathFactory) -> None:
    pki = TestPki(tmp_path_factory.mktemp("pki"))
    assert DEFAULT.verify_principal(pki.client("sensor").identity) == Principal("sensor")
    for bad in (pki.two_uris("x"), pki.without_uri("x"), pki.other_trust_domain("x")):
        with pytest.raises(PrincipalRefused):
            DEFAULT.verify_principal(bad.identity)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uris", "https://ids.example/x1"),
        ("dns_names", "x1.devices.example"),
        ("emails", "x1@example.com"),
        ("common_names", "Device x1"),
    ],
)
def test_mapper_reads_every_field_by_a_rule_of_its_own(field: str, value: str) -> None:
    identity = with_field(field, (value,))
    assert ALL_FIELDS.verify_principal(identity) == Principal("x1")


def with_field(field: str, values: tuple[str, ...]) -> PeerIdentity:
    match field:
        case "uris":
            return replace(NOBODY, uris=values)
        case "dns_names":
            return replace(NOBODY, dns_names=values)
        case "emails":
            return replace(NOBODY, emails=values)
        case _:
            return replace(NOBODY, common_names=values)


@pytest.mark.parametrize("field", ["uris", "dns_names", "emails", "common_names"])
def test_field_that_occurs_twice_refuses_even_when_another_rule_matches(field: str) -> None:
    values = {
        "uris": ("https://ids.example/x1", "https://ids.example/x1"),
        "dns_names": ("x1.devices.example", "x2.devices.example"),
        "emails": ("x1@example.com", "x2@example.com"),
        "common_names": ("Device x1", "Device x1"),
    }
    identity = with_field(field, values[field])
    other = (
        replace(identity, emails=("x1@example.com",))
        if field != "emails"
        else replace(identity, uris=("https://ids.example/x1",))
    )
    for refused in (identity, other):
        with pytest.raises(PrincipalRefused, match="exactly one is demanded"):
            ALL_FIELDS.verify_principal(refused)


def test_misspelt_field_refuses_even_when_another_rule_matches() -> None:
    identity = replace(NOBODY, uris=("https://IDS.example/x1",), emails=("x1@example.com",))
    with pytest.raises(PrincipalRefused, match="plain URI"):
        ALL_FIELDS.verify_principal(identity)


def test_field_no_rule_reads_does_not_matter() -> None:
    identity = replace(with_uri("spiffe://stockade.local/client/a"), common_names=("x", "\0", "y"))
    assert DEFAULT.verify_principal(identity) == Principal("a")


def test_rules_that_agree_name_the_principal_by_the_first() -> None:
    identity = replace(NOBODY, emails=("x1@example.com",), common_names=("Device x1",))
    explanation = ALL_FIELDS.explain(identity)
    assert explanation.principal == Principal("x1")
    assert explanation.rule == "san.email"


def test_rules_that_disagree_refuse() -> None:
    identity = replace(NOBODY, emails=("x1@example.com",), common_names=("Device x2",))
    with pytest.raises(PrincipalRefused, match="disagree") as caught:
        ALL_FIELDS.verify_principal(identity)
    assert "`x1`" in str(caught.value)
    assert "`x2`" in str(caught.value)


def test_rules_that_disagree_on_the_kind_refuse() -> None:
    mapper = PrincipalMapper(
        [
            PrincipalRule(name="a", source="subject.cn", match="{id}"),
            PrincipalRule(name="b", source="subject.cn", match="{id}", kind=PrincipalKind.USER),
        ]
    )
    with pytest.raises(PrincipalRefused, match="disagree"):
        mapper.verify_principal(replace(NOBODY, common_names=("ann",)))


def test_no_rules_name_nobody() -> None:
    with pytest.raises(PrincipalRefused, match="no principal rules") as caught:
        PrincipalMapper([]).verify_principal(with_uri("spiffe://stockade.local/client/a"))
    assert caught.value.reasons == ()


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://other.example/client/a",
        "spiffe://stockade.local.evil/client/a",
        "spiffe://stockade.local/clients/a",
        "spiffe://stockade.local/client/a/b",
        "spiffe://stockade.local/client",
        "spiffe://stockade.local/client/" + "x" * 65,
        "spiffe://stockade.local/client/a+b",
    ],
)
def test_uri_that_fits_no_rule_is_refused_with_a_reason_for_each(uri: str) -> None:
    with pytest.raises(PrincipalRefused, match="no principal rule matches") as caught:
        DEFAULT.verify_principal(with_uri(uri))
    assert len(caught.value.reasons) == len(DEFAULT_RULES)
    assert all(
        "different" in reason and "does not fit" in reason for reason in caught.value.reasons
    )


def test_explanation_says_which_rule_fired_and_why_the_others_did_not() -> None:
    explanation = DEFAULT.explain(with_uri("spiffe://stockade.local/admin/ann"))
    assert explanation.summary == "user `ann` by rule `spiffe-admin`"
    assert [v.outcome for v in explanation.verdicts] == [
        Outcome.DIFFERENT,
        Outcome.MATCHED,
        Outcome.DIFFERENT,
        Outcome.DIFFERENT,
    ]
    assert explanation.reasons[1] == "rule `spiffe-admin`: matched: gives user `ann`"
    absent = DEFAULT.explain(NOBODY)
    assert absent.principal is None
    assert {v.outcome for v in absent.verdicts} == {Outcome.ABSENT}


def test_reasons_are_printable_and_bounded() -> None:
    explanation = DEFAULT.explain(with_uri("spiffe://\n\0\u202e" + "x" * 100_000))
    for reason in explanation.reasons:
        assert reason.isprintable()
        assert len(reason) < 1_000


@given(st.text(max_size=60))
def test_clients_id_never_becomes_another_roles_principal(text: str) -> None:
    explanation = DEFAULT.explain(with_uri(f"spiffe://stockade.local/client/{text}"))
    if explanation.principal is not None:
        assert explanation.principal == Principal(text)
        assert ":" not in explanation.principal.name


@given(
    st.lists(st.text(max_size=30), max_size=2),
    st.lists(st.text(max_size=30), max_size=2),
    st.lists(st.text(max_size=30), max_size=2),
    st.lists(st.text(max_size=30), max_size=2),
)
def test_mapper_garbage_is_refused_and_explained(
    uris: list[str], dns_names: list[str], emails: list[str], common_names: list[str]
) -> None:
    identity = replace(
        NOBODY,
        uris=tuple(uris),
        dns_names=tuple(dns_names),
        emails=tuple(emails),
        common_names=tuple(common_names),
    )
    with pytest.raises(PrincipalRefused) as caught:
        ALL_FIELDS.verify_principal(identity)
    assert len(caught.value.reasons) == len(ALL_FIELDS.rules)


def rule(**changes: str) -> PrincipalRule:
    return PrincipalRule(
        name=changes.get("name", "r"),
        source="san.uri",
        match=changes.get("match", "spiffe://td.example/client/{id}"),
        principal=changes.get("principal", "{id}"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a rule's name"),
        ({"name": "a\n"}, "a rule's name"),
        ({"match": "{id}{id}"}, "`match`: template"),
        ({"principal": "all"}, "become one principal"),
        ({"match": "spiffe://td.example/client/one"}, "become one principal"),
        ({"match": "spiffe://{id}/client/x"}, "in the path only"),
        ({"match": "spiffe://{id}.example/client"}, "in the path only"),
        ({"match": "{id}://td.example/client"}, "in the path only"),
        ({"match": "spiffe://TD.example/client/{id}"}, "can never match"),
        ({"match": "spiffe://td.example/client/{id}?x"}, "can never match"),
        ({"match": "{id}"}, "can never match"),
        ({"match": "spiffe://" + "x" * 256 + "/{id}"}, "is not a trust domain"),
        ({"principal": "a/{id}"}, "`principal`: principal"),
        ({"principal": "+{id}"}, "`principal`: principal"),
        ({"principal": "x" * 250 + "{id}"}, "at most 255"),
    ],
)
def test_rule_that_cannot_be_meant_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(RuleInvalid, match=message):
        rule(**changes)


def test_rule_without_id_names_one_certificate_one_principal() -> None:
    mapper = PrincipalMapper([rule(match="spiffe://td.example/client/one", principal="boss")])
    assert mapper.verify_principal(with_uri("spiffe://td.example/client/one")) == Principal("boss")


def test_mapper_refuses_two_rules_of_one_name_and_too_many() -> None:
    with pytest.raises(RuleInvalid, match="two principal rules are called `r`"):
        PrincipalMapper([rule(), rule()])
    with pytest.raises(RuleInvalid, match="at most"):
        PrincipalMapper([rule(name=f"r{i}") for i in range(MAX_RULES + 1)])


def test_default_rules_are_for_one_trust_domain() -> None:
    mapper = PrincipalMapper(default_rules("plant.example"))
    assert mapper.verify_principal(with_uri("spiffe://plant.example/client/a")) == Principal("a")
    with pytest.raises(PrincipalRefused):
        mapper.verify_principal(with_uri("spiffe://stockade.local/client/a"))
    with pytest.raises(RuleInvalid):
        default_rules("Plant.example")


def test_mapper_shows_its_rules() -> None:
    assert repr(DEFAULT) == (
        "PrincipalMapper(spiffe-client, spiffe-admin, spiffe-broker, spiffe-controller)"
    )
