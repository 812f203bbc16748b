# SPDX-License-Identifier: GPL-2.0-only
"""One fault: done, survived, judged. What is judged is always the same, whatever the fault was; see docs/faults.md."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from vcslab.cluster import MOUNTPOINT
from vcslab.evidence import GROUP
from vcslab.fsck import counters_only, fsck, mend_counters
from vcslab.story import check, key_of
from vcslab.workload import RECORD, unpack
from vcslab.workload import check as check_records

from tests.cluster.faults.arena import RESET, Arena, Expect, Row
from tests.cluster.faults.judge import Trial, Written, early_starts, late_writes, left_out, longest_gap, two_holders
from tests.cluster.faults.tuning import CLOCK_ERROR_NS, LOCKSPACE, NODES


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    kind: str
    "Class: a subset of the matrix has at least one of each."
    story: Callable[[Arena], Expect]
    switch: bool = False
    "It is about the power switch, and makes no sense without one."

    @property
    def about(self) -> str:
        return (self.story.__doc__ or "").strip().splitlines()[0]


def run(arena: Arena, fault: Fault) -> Row:
    """Do it to a whole cluster under load and judge. Raises AssertionError or LabError; the row is in ``arena.rows`` in any case."""
    row = Row(fault.name, "FAILED")
    arena.rows.append(row)
    began = time.monotonic()
    arena.broken = True
    arena.file = f"{fault.name}-{len(arena.rows)}"
    arena.whole(0)
    arena.align()
    since = time.monotonic_ns()
    whole_ns = 0
    survivors = {n: arena.boots[n].number for n in NODES}
    try:
        expect = fault.story(arena)
        restore(arena)
        whole_ns = arena.whole(since)
    finally:
        until = whole_ns or time.monotonic_ns()
        row.fences = fences(arena, since)
        row.stall_ms = {
            boot.node: longest_gap([r["host_ns"] for r in arena.written(boot, log)], since, until)
            for boot, log in arena.writers(arena.file) if survivors[boot.node] == boot.number and arena.boots[boot.node] is boot
        }
        row.seconds = time.monotonic() - began
    arena.stop_load()
    judge_fences(arena, expect, since)
    error = clock_error(arena)
    judge_starts(arena, since, error)
    judge_locks(arena, row, error)
    judge_records(arena)
    judge_late_writes(arena, since, error)
    judge_disk(arena, row)
    arena.lab.check_splats()
    row.outcome = "ok"
    row.seconds = time.monotonic() - began
    arena.broken = False
    return row


def restore(arena: Arena) -> None:
    """The outside world is in order again; the cluster has to mend itself."""
    arena.lab.network.heal()
    arena.lab.power.set_working()
    arena.kept_off.clear()
    arena.always_on.clear()


def fences(arena: Arena, since: int) -> list[str]:
    """For the table: who had whom cut off, and when; without a switch, who has reset itself."""
    if not arena.power:
        ends = arena.lab.timeline.acts("machine gone")
        return [f"{e.node} itself at {(e.host_ns - since) / 1e9:.1f} s" for e in ends if e.host_ns > since and RESET in e.details]
    return [f"{r.asked_by}->{r.victim} at {(r.answered_ns - since) / 1e9:.1f} s" for r in arena.lab.power.history
            if r.action == "off" and r.code == 0 and r.asked_ns > since]  # fmt: skip


def judge_fences(arena: Arena, expect: Expect, since: int) -> None:
    cuts = arena.fenced(since)
    done = set(cuts)
    # Whose power the story has cut has no lease that could be seen to run out; that the others waited for it is judged from their starts.
    absent = set() if arena.power else {e.node for e in arena.lab.timeline.acts("power cut") if e.host_ns > since}
    check(expect.must <= done | absent, f"nodes {sorted(expect.must - done)} should have been fenced; fenced were {sorted(done)}")
    check(done <= expect.must | expect.may, f"nodes {sorted(done - expect.must - expect.may)} were fenced and should not have been")
    check(len(done) >= expect.least, f"at least {expect.least} should have been fenced, not {sorted(done)}")
    check(not expect.once or len(cuts) == len(done), f"cut off again and again: {cuts}")


def clock_error(arena: Arena) -> int:
    """How far the nodes' clocks may be off each other: what was measured before the fault or at boot, and how far they have moved since."""
    errors = [CLOCK_ERROR_NS]
    for node in NODES:
        boot, now = arena.boots[node], arena.lab[node].measure_clock()
        errors.append(abs(now.boottime_ns - boot.shift_ns) + now.error_ns + boot.error_ns)
    return 2 * max(errors)


def judge_starts(arena: Arena, since: int, error: int) -> None:
    starts = arena.starts(since)
    trial = Trial(arena.lives(), arena.proofs())
    problems = early_starts(starts, trial, NODES, since, error)
    check(not problems, f"starts before their fence: {problems}")


def judge_locks(arena: Arena, row: Row, error: int) -> None:
    held = arena.held(arena.loaded)
    row.notes.append(f"{len(held)} locks, clocks agree to {error / 1e6:.0f} ms")
    holders = {h.holder for h in held}
    check(len(held) >= 30 and len(holders) >= len(NODES), f"the lock verifier saw {len(held)} locks of {sorted(holders)}: no proof")
    problems = two_holders(held, error)
    check(not problems, f"two holders at once ({len(problems)} times; clocks agree to {error / 1e6:.1f} ms): {problems[:5]}")


def judge_records(arena: Arena) -> None:
    """On every node: no record torn, missing or twice, and whatever a writer had fsynced is there."""
    fsynced = {key_of(boot.node, log): max((r["own"] for r in arena.written(boot, log)), default=0)
               for boot, log in arena.writers(arena.loaded)}  # fmt: skip
    check(sum(fsynced.values()) >= 30, f"hardly anything was written: {fsynced}")
    for node in NODES:
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(arena.lab[node].read_bytes(f"{MOUNTPOINT}/{arena.loaded}"))
            copy.flush()
            found = check_records(copy.name)
        check(not found["problems"], f"node {node} reads damage: {found['problems']}")
        writers = found["writers"]
        assert isinstance(writers, dict)
        lost = {key: (own, writers.get(key, 0)) for key, own in fsynced.items() if writers.get(key, 0) < own}
        check(not lost, f"node {node} does not find what was fsynced (writer: fsynced, found): {lost}")


def judge_late_writes(arena: Arena, since: int, error: int) -> None:
    """In the file itself: nothing of an incarnation that was fenced for, behind what others began after the start without it."""
    lefts = left_out(arena.starts(since), Trial(arena.lives(), arena.proofs()), NODES, since)
    ends = {(life.node, life.boot): start.host_ns for start, life in lefts if start.group == GROUP}
    writers = arena.writers(arena.loaded)
    ended = {key_of(boot.node, log): ends[boot.node, boot.number] for boot, log in writers if (boot.node, boot.number) in ends}
    began = {r["counter"]: r["began"] + boot.shift_ns for boot, log in writers for r in arena.written(boot, log)}
    data = arena.lab[NODES[0]].read_bytes(f"{MOUNTPOINT}/{arena.loaded}")
    found = [unpack(data[at : at + RECORD]) for at in range(0, len(data), RECORD)]
    records = [Written(counter, f"{node}/{load:08x}", began.get(counter, 0)) for counter, node, load, _ in found]
    problems = late_writes(records, ended, error)
    check(not problems, f"writes by those that were fenced for: {problems}")


def judge_disk(arena: Arena, row: Row) -> None:
    """Clean unmount everywhere at once, then fsck.gfs2, and mounted again."""
    arena.lab.each(lambda m: arena.vcs.umount(m.spec.node), *NODES)
    spaces = {n: arena.lab[n].run("ls /sys/kernel/dlm").out.split() for n in NODES}
    check(all(found == [LOCKSPACE] for found in spaces.values()), f"lockspaces after the unmount: {spaces}")
    complaints = fsck(arena.vcs)
    if complaints:
        check(counters_only(complaints), f"fsck.gfs2 -n: {complaints}")
        row.notes.append("statfs totals short (docs/lab.md)")
        mend_counters(arena.vcs)
    arena.lab.each(lambda m: arena.vcs.mount(m.spec.node), *NODES)
