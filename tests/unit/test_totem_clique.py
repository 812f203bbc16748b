# SPDX-License-Identifier: GPL-2.0-only
"""Who can form a ring with whom: the choice is the largest set, the same for all, and quick whatever is claimed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from membership.api import Processor
from membership.totem import clique

P = tuple(Processor(n, 1, n) for n in range(1, 65))


def parts(processors: tuple[Processor, ...], claims: list[clique.Claim]) -> set[tuple[Processor, ...]]:
    """What all of them choose."""
    return {clique.share(processors, claims, p)[0] for p in processors}


@st.composite
def graphs(draw: st.DrawFn) -> list[int]:
    n = draw(st.integers(1, 9))
    conflicts = [0] * n
    for i, j in itertools.combinations(range(n), 2):
        if draw(st.booleans()):
            conflicts[i] |= 1 << j
            conflicts[j] |= 1 << i
    return conflicts


@given(graphs())
def test_the_largest_set_and_of_several_the_lowest(conflicts: list[int]) -> None:
    n = len(conflicts)
    wanted = next(
        chosen for size in range(n, 0, -1) for chosen in itertools.combinations(range(n), size)
        if not any(conflicts[i] >> j & 1 for i in chosen for j in chosen))
    assert clique.largest((1 << n) - 1, conflicts) == sum(1 << i for i in wanted)


@given(st.sets(st.tuples(st.sampled_from(P[:12]), st.sampled_from(P[:12])).filter(lambda c: c[0] != c[1]), max_size=40))
def test_everybody_chooses_the_same_parts(claims: set[clique.Claim]) -> None:
    chosen = parts(P[:12], sorted(claims))
    assert sorted(p for part in chosen for p in part) == list(P[:12]), "everybody is in one part, and in one only"
    for part in chosen:
        assert not any((p, q) in claims for p in part for q in part)


def test_one_bad_pair_of_three_leaves_the_higher_one_outside() -> None:
    assert parts(P[:3], [(P[0], P[2])]) == {(P[0], P[1]), (P[2],)}
    assert parts(P[:3], [(P[2], P[0])]) == {(P[0], P[1]), (P[2],)}, "it does not matter who says it"


def test_a_chain_breaks_in_the_middle() -> None:
    a, b, c, d = P[:4]
    assert parts((a, b, c, d), [(a, c), (a, d), (b, d)]) == {(a, b), (c, d)}


def test_the_majority_goes_on_together() -> None:
    two, three = P[:2], P[2:5]
    assert parts(P[:5], [(p, q) for p in two for q in three]) == {two, three}
    assert clique.share(P[:5], [(p, q) for p in two for q in three], P[2]) == (three, True)
    assert clique.share(P[:5], [(p, q) for p in two for q in three], P[0]) == (two, False)


def test_two_incarnations_of_a_node_are_apart() -> None:
    again = Processor(2, 1, 99)
    assert parts((P[0], P[1], again, P[2]), []) == {(P[0], P[1], P[2]), (again,)}


def test_the_search_is_bounded_and_still_everybody_finds_the_same() -> None:
    claims = [(P[i], P[j]) for i, j in itertools.combinations(range(64), 2) if (i * 37 + j * 101 + i * j) % 7 == 0]
    chosen = parts(P, claims)
    assert sorted(p for part in chosen for p in part) == list(P)
    assert max(map(len, chosen)) > 10
