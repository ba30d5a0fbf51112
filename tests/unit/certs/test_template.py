from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from certs.errors import RuleInvalid
from certs.spiffe import is_segment
from certs.template import MAX_TEMPLATE_CHARACTERS, parse_template

IDS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(is_segment)
LITERALS = st.from_regex(r"[A-Za-z0-9:/. -]{0,12}", fullmatch=True)


@given(LITERALS, IDS, LITERALS)
def test_template_matches_what_it_filled(prefix: str, name: str, suffix: str) -> None:
    template = parse_template(prefix + "{id}" + suffix)
    assert template.match(template.fill(name)) == name


@given(LITERALS, LITERALS, st.text(max_size=40))
def test_template_matches_whole_fields_only(prefix: str, suffix: str, value: str) -> None:
    template = parse_template(prefix + "{id}" + suffix)
    found = template.match(value)
    if found is not None:
        assert value == prefix + found + suffix
        assert is_segment(found)


@pytest.mark.parametrize(
    "value",
    [
        "client/",
        "client/.",
        "client/..",
        "client/a/b",
        "client/a b",
        "client/a\n",
        "client/\u0430",
        "client/" + "x" * 65,
        "xclient/a",
        "Client/a",
        "client",
        "",
    ],
)
def test_template_id_is_one_plain_word(value: str) -> None:
    assert parse_template("client/{id}").match(value) is None


def test_template_prefix_and_suffix_do_not_overlap() -> None:
    template = parse_template("aa{id}aa")
    assert template.match("aaa") is None
    assert template.match("aaaa") is None
    assert template.match("aaxaa") == "x"


def test_template_without_id_is_a_literal() -> None:
    template = parse_template("spiffe://td/client/special")
    assert template.match("spiffe://td/client/special") == ""
    assert template.match("spiffe://td/client/special2") is None
    assert template.fill("ignored") == "spiffe://td/client/special"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * (MAX_TEMPLATE_CHARACTERS + 1),
        "{id}{id}",
        "{ID}",
        "{",
        "a}",
        "{id",
        "\u0430",
        "a\n",
        "{{id}}",
    ],
)
def test_template_refuses_what_it_cannot_mean(text: str) -> None:
    with pytest.raises(RuleInvalid):
        parse_template(text)
