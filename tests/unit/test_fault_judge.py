# SPDX-License-Identifier: GPL-2.0-only
"""The judgements of the fault matrix see what they are there to see: each has a case that it must condemn."""

from __future__ import annotations

from tests.cluster.faults.judge import (
    Held,
    Life,
    Started,
    Trial,
    Written,
    early_starts,
    intervals,
    late_writes,
    left_out,
    longest_gap,
    two_holders,
)
from tests.cluster.faults.stories import CLASSES, MATRIX, PROVEN, subset

GROUP = "dlm:shared"


def start(at: int, members: tuple[int, ...], node: int = 1) -> Started:
    return Started(at, node, GROUP, "4.1", members)


def test_intervals_of_a_log_that_ends_in_the_middle() -> None:
    lines = ['{"lock": "a", "mode": "EX", "from": 5}', '{"lock": "a", "to": 9}', "noise", '{"lock": "b", "mode": "PR", "from": 11}', '{"lo']
    assert intervals("n", lines, 100) == [Held(105, 109, "n", "a", "EX"), Held(111, 111, "n", "b", "PR")]


def test_incompatible_modes_may_not_overlap() -> None:
    first = Held(0, 100, "node1", "a", "PR")
    assert not two_holders([first, Held(50, 60, "node2", "a", "PR")], 0), "readers are compatible"
    assert not two_holders([first, Held(50, 60, "node2", "b", "EX")], 0), "another lock"
    assert not two_holders([first, Held(98, 160, "node2", "a", "EX")], 5), "within the clocks' error"
    [found] = two_holders([first, Held(50, 60, "node2", "a", "EX")], 5)
    assert found.startswith("a: node1 had it (PR)") and "when node2 got it (EX)" in found
    assert two_holders([Held(0, 9, "node1", "a", "CW"), Held(1, 2, "node2", "a", "CW"), Held(5, 8, "node3", "a", "PR")], 0)


def test_a_start_without_a_node_that_lives() -> None:
    lives = [Life(1, 1, 0), Life(2, 1, 0), Life(3, 1, 0)]
    [found] = early_starts([start(50, (1, 2))], Trial(lives), (1, 2, 3), 10, 0)
    assert "without node 3, which could still write" in found
    assert not early_starts([start(5, (1, 2))], Trial(lives), (1, 2, 3), 10, 0), "before the fault"


def test_a_start_before_the_last_write_or_before_the_proof() -> None:
    lives = [Life(1, 1, 0), Life(2, 1, 0), Life(3, 1, 0, 60)]
    [early] = early_starts([start(50, (1, 2))], Trial(lives, {3: [70]}), (1, 2, 3), 10, 0)
    assert "before that one's last write" in early
    [unproved] = early_starts([start(65, (1, 2))], Trial(lives, {3: [70]}), (1, 2, 3), 10, 0)
    assert "nobody had fenced" in unproved
    assert not early_starts([start(75, (1, 2))], Trial(lives, {3: [70]}), (1, 2, 3), 10, 0)


def test_a_second_life_is_judged_too() -> None:
    lives = [Life(1, 1, 0), Life(2, 1, 0), Life(3, 1, 0, 20), Life(3, 2, 30)]
    starts = [start(25, (1, 2)), start(40, (1, 2, 3)), start(50, (1, 2))]
    [found] = early_starts(starts, Trial(lives, {3: [22, 30]}), (1, 2, 3), 10, 0)
    assert "which could still write" in found


def test_a_new_life_in_the_seat_of_the_old_one() -> None:
    """The start names node 3, and means its second life: the first one must be over, and proved to be."""
    lives = [Life(1, 1, 0), Life(2, 1, 0), Life(3, 1, 0, 20), Life(3, 2, 30)]
    [(at, life)] = left_out([start(40, (1, 2, 3)), start(50, (1, 2, 3))], Trial(lives), (1, 2, 3), 10)
    assert (at.host_ns, life.boot) == (40, 1)
    assert not early_starts([start(40, (1, 2, 3))], Trial(lives, {3: [30]}), (1, 2, 3), 10, 0)


def test_a_write_after_the_start_that_left_its_writer_out() -> None:
    dead, other = "3/00000003", "1/00000001"
    before = [Written(1, dead), Written(2, other, 40), Written(3, dead), Written(4, other, 60)]
    assert not late_writes(before, {dead: 50}, 5)
    [found] = late_writes([*before, Written(5, dead)], {dead: 50}, 5)
    assert found == f"writer {dead} wrote 1 records (first: 5) after the start without it and record 4"
    assert not late_writes([*before, Written(5, dead)], {dead: 58}, 5), "within the clocks' error"
    assert not late_writes([*before, Written(5, dead)], {}, 5), "nobody was left out"


def test_the_longest_gap_reaches_over_the_ends() -> None:
    ms = 1_000_000
    assert longest_gap([0, 10 * ms, 900 * ms, 910 * ms], 20 * ms, 905 * ms) == 890
    assert longest_gap([], 0, 50 * ms) == 50


def test_the_subset_has_one_of_each_class_and_many_seeds_see_all() -> None:
    drawn = [subset(seed) for seed in range(60)]
    assert all([f.kind for f in faults] == list(CLASSES) for faults in drawn)
    assert [f.name for f in drawn[7]] == [f.name for f in subset(7)]
    proven = {f for f in MATRIX if f.story in PROVEN}
    unproven = [kind for kind in CLASSES if not any(f.kind == kind for f in proven)]
    assert {f for faults in drawn for f in faults} == proven | {f for f in MATRIX if f.kind in unproven}
