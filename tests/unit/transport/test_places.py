from __future__ import annotations

from transport.places import Places


def test_places_are_bounded_by_name_and_together() -> None:
    places = Places(total=3, each=2)
    with places.place_of("a") as first, places.place_of("a") as second:
        with places.place_of("a") as third, places.place_of("b") as other:
            assert (first, second, third, other) == (True, True, False, True)
            with places.place_of("c") as late:
                assert not late
        assert len(places) == 2
    with places.place_of("a") as again:
        assert again
    assert len(places) == 0


def test_places_forget_names_that_hold_none() -> None:
    places = Places(total=1, each=1)
    for name in ("a", "b"):
        with places.place_of(name), places.place_of("refused"):
            pass
    assert not +places._by_name
    with places.place_of("a"), places.place_of("refused") as place:
        assert not place
        assert "refused" not in places._by_name
