# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a kernel fail a test."""

from __future__ import annotations

from harness.console import SplatWatch

OOPS = ("[    3.293016] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", "[    3.313796] Kernel panic - not syncing: Fatal exception in interrupt")


def test_a_report_counts_once_and_not_where_it_is_allowed() -> None:
    watch = SplatWatch()
    for line in ("[    1.0] BUG: something", "BUG: something", "nothing"):
        watch.feed("node1", 1, [line])
    assert [str(s) for s in watch.found] == ["node1 (boot 1): BUG: something"]
    watch.allow("some.hing", "node1", 2)
    watch.allow("some.hing", "node2")
    assert len(watch.found) == 1, "allowed elsewhere"
    watch.allow("some.hing", "node1", 1)
    assert not watch.found


def test_a_boot_that_the_emulator_has_broken_is_excused_and_no_other() -> None:
    watch = SplatWatch()
    watch.feed("node1", 1, OOPS)
    watch.feed("node1", 2, OOPS[1:])
    watch.feed("node2", 1, OOPS[1:])
    assert not watch.excuse("node1", 2) and not watch.excuse("node2", 1)
    assert len(watch.found) == 4
    assert watch.excuse("node1", 1)
    assert {(s.machine, s.boot) for s in watch.found} == {("node1", 2), ("node2", 1)}
