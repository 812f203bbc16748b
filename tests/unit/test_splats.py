# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a kernel's log fail a test."""

from __future__ import annotations

import pytest
from harness.console import SplatWatch

BAD = (
    "BUG: KASAN: slab-use-after-free in vcs_group_find+0x4d/0x90 [vcs]",
    "BUG kmalloc-512 (Tainted: G           OE     ): Poison overwritten",
    "BUG kmalloc-rcl-96 (Not tainted): Right Redzone overwritten",
    "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585",
    "BUG: KCSAN: data-race in vcs_hint / vcs_nl_group_get_dumpit",
    "WARNING: CPU: 0 PID: 12 at kmod/view.c:170 vcs_view_unquorate+0x1/0x2 [vcs]",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "refcount_t: underflow; use-after-free.",
    "INFO: task rmmod:123 blocked for more than 120 seconds.",
    "ODEBUG: free active (active state 0) object: 0000000012345678 object type: hrtimer hint: lease_fire+0x0/0x1 [vcs]",
)
GOOD = (
    "vcs: s0: provider user is gone",
    "vcs_kunit: ok vcs_lease.lease_states",
    "FAULT_INJECTION: forcing a failure.",
    "SLUB: HWalign=64, Order=0-3, MinObjects=0, CPUs=2, Nodes=1",
    "DEBUG_LOCKS: nothing (to say): here",
)


@pytest.mark.parametrize("line", BAD)
def test_a_report_is_seen(line: str) -> None:
    watch = SplatWatch()
    watch.feed("node1", 1, [f"[   12.345678] {line}", line])
    assert [splat.line for splat in watch.found] == [line]


@pytest.mark.parametrize("line", GOOD)
def test_other_lines_are_not(line: str) -> None:
    watch = SplatWatch()
    watch.feed("node1", 1, [line])
    assert watch.found == []
