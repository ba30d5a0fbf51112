"""Places for unfinished handshakes: counted, bounded, given back."""

from __future__ import annotations

import random

from transport.unfinished import MIN_SILENCE_S, Ticket, Unfinished


def ticket(site: str, since_s: float = 0.0) -> Ticket:
    return Ticket(site=site, since_s=since_s, evict=lambda: None)


def test_places_are_bounded_in_all_and_per_site() -> None:
    unfinished = Unfinished(max_total=3, max_per_site=2)
    tickets = [ticket("a"), ticket("a"), ticket("b")]
    for one in tickets:
        assert unfinished.has_place(one.site)
        unfinished.admit(one)
        if one is tickets[1]:
            assert not unfinished.has_place("a")
            assert not unfinished.full
    assert unfinished.full
    assert not unfinished.has_place("c")
    unfinished.leave(tickets[0])
    assert unfinished.has_place("a")
    assert unfinished.has_place("c")


def test_longest_silent_goes_first_but_not_at_once() -> None:
    unfinished = Unfinished(max_total=9, max_per_site=9)
    spoken, old, young = ticket("a", 0.0), ticket("a", 1.0), ticket("a", 2.0)
    for one in (spoken, old, young):
        unfinished.admit(one)
    unfinished.heard(spoken)
    unfinished.heard(spoken)
    assert unfinished.longest_silent(1.0 + MIN_SILENCE_S / 2) is None
    assert unfinished.longest_silent(1.0 + MIN_SILENCE_S) is old
    assert unfinished.longest_silent(1.0 + MIN_SILENCE_S) is None
    assert unfinished.longest_silent(99.0) is young
    assert unfinished.longest_silent(99.0) is None


def test_counts_return_to_zero_whatever_happens() -> None:
    rng = random.Random(3)
    unfinished = Unfinished(max_total=20, max_per_site=5)
    out: list[Ticket] = []
    for now in range(2000):
        site = rng.choice("abcdefgh")
        if rng.random() < 0.5 and unfinished.has_place(site):
            out.append(ticket(site, float(now)))
            unfinished.admit(out[-1])
        elif out:
            one = out.pop(rng.randrange(len(out)))
            if rng.random() < 0.5:
                unfinished.heard(one)
            unfinished.leave(one)
        unfinished.longest_silent(float(now))
        assert len(out) <= 20
    for one in out:
        unfinished.leave(one)
    assert not unfinished.full
    assert not unfinished._sites
    assert not unfinished._silent
    assert unfinished._total == 0
