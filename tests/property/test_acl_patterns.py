from __future__ import annotations

from hypothesis import given, settings, strategies as st

from acl.errors import AclError, PatternInvalid
from acl.model import AccessRequest, Resource, ResourceKind
from acl.patterns import parse_pattern, parse_principal_pattern, topic_pattern
from acl.segments import join, split
from acl.shapes import coarsen, projector, shape_of
from tests.property.acl_strategies import (
    names,
    oracle_matches,
    oracle_principal,
    principal_patterns,
    requests,
    resource_patterns,
)

texts = st.text(st.sampled_from("ab.*\\{}$/+#é "), max_size=12)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=6))
def test_text_form_is_unambiguous(segments: list[str]) -> None:
    assert split(join(segments)) == tuple(segments)


@settings(deadline=None)
@given(texts, texts)
def test_two_topics_never_share_a_text(one: str, other: str) -> None:
    if one != other:
        assert Resource.topic(one).text != Resource.topic(other).text


@settings(deadline=None)
@given(texts)
def test_resource_text_goes_both_ways(topic: str) -> None:
    resource = Resource.topic(topic)
    assert Resource.parse(resource.text) == resource


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), texts.map(lambda text: f"topic.{text}")))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except PatternInvalid:
        return
    assert pattern.text == text
    shape_of(pattern)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_principal_pattern_or_refused(text: str) -> None:
    try:
        assert parse_principal_pattern(text).text == text
    except PatternInvalid:
        return


@settings(deadline=None)
@given(resource_patterns(), requests())
def test_pattern_equals_the_oracle(text: str, request: AccessRequest) -> None:
    path, owner = request.resource.path, request.principal.name
    assert parse_pattern(text).matches(path, owner) is oracle_matches(text, path, owner)


@settings(deadline=None)
@given(principal_patterns, names)
def test_principal_pattern_equals_the_oracle(text: str, name: str) -> None:
    assert parse_principal_pattern(text).matches(name) is oracle_principal(text, name)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=40).map("".join), st.data())
def test_glob_with_any_cuts_matches_the_text_it_was_cut_from(
    name: str, data: st.DataObject
) -> None:
    # put stars in place of random pieces: the pattern must still match
    cut = sorted(data.draw(st.sets(st.integers(0, len(name)), min_size=2, max_size=6)))
    pieces = [name[: cut[0]]]
    pieces += [name[cut[i] : cut[i + 1]] for i in range(1, len(cut) - 1, 2)]
    pieces.append(name[cut[-1] :])
    text = "*".join(pieces).replace("**", "*")
    assert parse_pattern(f"kernel.{text}").matches(("kernel", name))


@settings(deadline=None)
@given(resource_patterns(), requests())
def test_a_match_is_found_under_every_shape_it_may_be_kept_by(
    text: str, request: AccessRequest
) -> None:
    pattern, path, owner = parse_pattern(text), request.resource.path, request.principal.name
    if not pattern.matches(path, owner):
        return
    own = shape_of(pattern)
    for shape, key in (own, *(coarsen(*own, most_literals=n) for n in range(5))):
        assert shape.admits(len(path))
        assert projector(shape)(path, owner) == shape.project(path, owner) == key


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b.c", "*", "+", ""]), min_size=1, max_size=4), st.booleans())
def test_topic_pattern_is_in_the_grammar(levels: list[str], tail: bool) -> None:  # noqa: FBT001 - drawn
    topic = "/".join([*levels, "#"] if tail else levels)
    try:
        pattern = parse_pattern(topic_pattern(topic))
    except AclError:
        assert topic == ""
        return
    concrete = [level if level != "+" else "x" for level in levels] + (["y"] if tail else [])
    assert pattern.matches(Resource(ResourceKind.TOPIC, tuple(concrete)).path)
