# SPDX-License-Identifier: GPL-2.0-only
"""The DLM for programs: a libdlm lockspace on three machines. Exclusion, a killed holder, leaving down to nobody and back (SAFETY S21)."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import pytest
from harness.spec import Spawned
from vcslab.cluster import VcsCluster
from vcslab.evidence import cuts, no_start_before_fence, traced
from vcslab.story import wait_group

from tests.cluster.conftest import NODES, bring_back

pytestmark = pytest.mark.vm

SPACE = "locks"
GROUP = f"dlm:{SPACE}"
USER = f"python3 -S -m tests.cluster.dlm_lock {SPACE}"
OPEN_INPUT = "mkfifo -m 600 /tmp/never$$; exec 0<>/tmp/never$$;"
"A standard input that never ends: the lock is held until SIGTERM."
TURNS = 60
"""Of each node; a turn costs 10 to 20 ms under emulation."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Host ns from a grant to just before the release was asked for, and the number written under the lock."""

    begin: int
    end: int
    node: int
    number: int


def join(vcs: VcsCluster, *nodes: int) -> None:
    """One after the other: each returns when the node is in."""
    for n in nodes:
        vcs[n].run(f"{USER} create", timeout=60, check=True)


def leave(vcs: VcsCluster, node: int) -> None:
    vcs[node].run(f"{USER} release", timeout=60, check=True)
    assert SPACE not in vcs[node].run("ls /sys/kernel/dlm").out.split(), f"node {node}: the lockspace was released and is still there"


def hold(vcs: VcsCluster, node: int, resource: str, log: str) -> Spawned:
    """Ask for EX and keep it; the grant appears in the log."""
    return vcs[node].spawn(f"{OPEN_INPUT} exec {USER} hold {resource}", log=log)


def granted_ns(vcs: VcsCluster, node: int, job: Spawned) -> int:
    """Host ns of the grant, 0 while the program waits."""
    for line in job.log.read_text().splitlines() if job.log.exists() else []:
        if line.startswith("granted "):
            return int(line.split()[1]) + vcs[node].measure_clock().boottime_ns
    return 0


def let_go(vcs: VcsCluster, node: int, job: Spawned) -> None:
    vcs[node].run(f"kill {job.pid}", check=True)
    vcs.wait(lambda: job.rc is not None, 20, f"node {node} to give its lock back")
    assert job.rc == 0, job.log.read_text()


def contend(vcs: VcsCluster, *nodes: int, resource: str) -> tuple[list[Turn], int]:
    """All take the lock in turns until each had its TURNS; (all turns by time, error of the clocks in ns)."""
    command = f"{OPEN_INPUT} exec python3 -S -m tests.cluster.dlm_contend {SPACE} {resource} {TURNS}"
    clocks = {n: vcs[n].measure_clock() for n in nodes}
    jobs = {n: vcs[n].spawn(command, log=f"contend-{resource}") for n in nodes}
    ended = "done"
    vcs.wait(
        lambda: all(j.rc is not None or ended in j.log.read_text().splitlines() for j in jobs.values()), 60, "everybody's turns"
    )
    for n, job in jobs.items():
        let_go(vcs, n, job)
    turns = []
    for n, job in jobs.items():
        for line in filter(lambda text: text.startswith("{"), job.log.read_text().splitlines()):
            said = json.loads(line)
            turns.append(Turn(said["from"] + clocks[n].boottime_ns, said["to"] + clocks[n].boottime_ns, n, said["number"]))
    after = {n: vcs[n].measure_clock() for n in nodes}
    drift = max(abs(after[n].boottime_ns - clocks[n].boottime_ns) for n in nodes)
    return sorted(turns, key=lambda t: t.begin), drift + 2 * max(c.error_ns for c in (*clocks.values(), *after.values()))


def two_holders(turns: list[Turn], error_ns: int) -> list[str]:
    """Everything that shows two holders at once. ``turns`` are in order of time."""
    found = []
    for a, b in itertools.pairwise(turns):
        if a.node != b.node and a.end - b.begin > error_ns:
            found.append(f"node {b.node} held it {(a.end - b.begin) / 1e6:.2f} ms before node {a.node} had given it back")
        if b.number != a.number + 1:
            found.append(f"node {b.node} wrote {b.number} after node {a.node} had written {a.number}")
    return found


def takes_turns(vcs: VcsCluster, *nodes: int, resource: str) -> None:
    """Contention of ``nodes``, and the proof that it was one: the lock wandered between all of them, one at a time."""
    turns, error_ns = contend(vcs, *nodes, resource=resource)
    assert len(turns) == TURNS * len(nodes)
    problems = two_holders(turns, error_ns)
    assert not problems, f"two holders at once ({len(problems)} times): {problems[:5]}; clocks agree to {error_ns / 1e6:.2f} ms"
    moved = sum(1 for a, b in itertools.pairwise(turns) if a.node != b.node)
    assert len(nodes) == 1 or moved > 2 * len(nodes), f"no contention: the lock changed nodes {moved} times in {len(turns)} turns"
    print(f"{len(turns)} turns of {nodes}, {moved} changes of the holder's node, clocks agree to {error_ns / 1e6:.2f} ms")


@pytest.fixture(scope="module")
def joined(three: VcsCluster) -> VcsCluster:
    join(three, *NODES)
    wait_group(three, NODES, SPACE)
    return three


@pytest.fixture
def lockspace(joined: VcsCluster) -> VcsCluster:
    """All three in the lockspace, also when the story before has killed a node."""
    bring_back(joined)
    joined.wait_quorate(*NODES)
    joined.wait_dlm(*NODES)
    join(joined, *(n for n in NODES if not joined.group(n, SPACE)))
    wait_group(joined, NODES, SPACE)
    return joined


def test_the_witness_sees_two_holders() -> None:
    """Negative control of what the stories below rely on."""
    fine = [Turn(0, 5, 1, 1), Turn(6, 9, 2, 2), Turn(10, 12, 2, 3)]
    assert not two_holders(fine, 0)
    assert two_holders([Turn(0, 8, 1, 1), Turn(6, 9, 2, 2)], 1) == ["node 2 held it 0.00 ms before node 1 had given it back"]
    assert not two_holders([Turn(0, 7, 1, 1), Turn(6, 9, 2, 2)], 1), "within the clocks' error"
    assert two_holders([Turn(0, 5, 1, 1), Turn(6, 9, 2, 1)], 0) == ["node 2 wrote 1 after node 1 had written 1"]


def test_one_holder_at_a_time(lockspace: VcsCluster) -> None:
    """Three nodes want the same lock again and again: one at a time has it, and nobody's increment is lost."""
    takes_turns(lockspace, *NODES, resource="exclusive")


def test_a_killed_holder_is_fenced_before_its_lock_is_given_away(lockspace: VcsCluster) -> None:
    """Node 3 holds the lock, 1 and 2 wait, node 3's power is cut and the power switch is slow: a waiter gets the lock only after the
    fence, the other when that one lets go. Node 3 comes back and takes turns again."""
    vcs = lockspace
    holder = hold(vcs, 3, "prize", "holder")
    vcs.wait(lambda: granted_ns(vcs, 3, holder), 20, "node 3 to get the lock")
    waiters = {n: hold(vcs, n, "prize", "waiter") for n in (1, 2)}
    busy = vcs[1].run(f"{USER} try prize", timeout=30)
    assert busy.rc == 11, f"node 3 has the lock: {busy.out}{busy.err}"
    vcs.lab.power.delay_s = 2.0

    cut_ns = vcs[3].power_off()
    vcs.wait(lambda: any(granted_ns(vcs, n, job) for n, job in waiters.items()), 60, "a waiter to get the lock")
    fence = no_start_before_fence(vcs, (1, 2), 3, since_ns=cut_ns, group=GROUP)
    first = next(n for n, job in waiters.items() if granted_ns(vcs, n, job))
    second = 3 - first
    got_ns = granted_ns(vcs, first, waiters[first])
    assert got_ns > fence.answered_ns, f"node {first} got the lock {(fence.answered_ns - got_ns) / 1e6:.1f} ms before the fence"
    assert fence.answered_ns - fence.asked_ns > 2e9
    print(f"fenced {(fence.answered_ns - cut_ns) / 1e6:.0f} ms, lock granted {(got_ns - cut_ns) / 1e6:.0f} ms after the cut")
    wait_group(vcs, (1, 2), SPACE)
    assert not granted_ns(vcs, second, waiters[second]), "both waiters hold EX"
    let_go(vcs, first, waiters[first])
    vcs.wait(lambda: granted_ns(vcs, second, waiters[second]), 20, "the second waiter to get the lock")
    let_go(vcs, second, waiters[second])

    bring_back(vcs, 3)
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(3)
    join(vcs, 3)
    wait_group(vcs, NODES, SPACE)
    takes_turns(vcs, *NODES, resource="after")


def test_leave_down_to_nobody_and_back(lockspace: VcsCluster) -> None:
    """3 -> 2 -> 1 -> 0 by clean leaves: those who stay keep quorum and their locks. Then all come back: nothing starts before all three
    were seen (a lockspace asked for meanwhile waits), and the lockspace works."""
    vcs = lockspace
    fenced = cuts(vcs)
    for leaver, rest in ((3, (1, 2)), (2, (1,)), (1, ())):
        leave(vcs, leaver)
        vcs.leave(leaver)
        job = next(j for name, j in vcs[leaver].spawned.items() if name == "vcsd")
        vcs.wait(lambda job=job: job.rc is not None, 20, "vcsd's exit status")  # type: ignore[misc]
        assert job.rc == 0, job.log.read_text()[-500:]
        assert vcs[leaver].run("ls /sys/kernel/vcs").out.split() == ["api_version", "providers"], "the cluster left nothing in the kernel"
        if rest:
            vcs.wait_quorate(*rest)
            wait_group(vcs, rest, SPACE)
            takes_turns(vcs, *rest, resource=f"rest{len(rest)}")
    assert cuts(vcs) == fenced, "nobody is fenced for leaving"

    back_ns = vcs.now_ns()
    vcs.start(1, log="vcsd-back")
    waits_for(vcs, 1, "node2", "node3")
    early = vcs[1].spawn(f"exec {USER} create", log="early")
    vcs.wait(lambda: vcs.group(1, SPACE).get("state") == "joining", 20, "node 1 to ask for the lockspace")
    vcs.start(2, log="vcsd-back")
    vcs.wait(lambda: vcs.view(1)["members"] == [1, 2], 30, "nodes 1 and 2 to see each other")
    waits_for(vcs, 1, "node3")
    told = [t.event for t in traced(vcs, 1, since_ns=back_ns, group=GROUP)]
    assert early.rc is None and "vcs_group_join" in told and "vcs_group_start" not in told, f"a start without quorum: {told}"
    assert not vcs.view(1)["quorate"] and not vcs.view(2)["quorate"]

    vcs.start(3, log="vcsd-back")
    vcs.wait_quorate(*NODES)
    vcs.wait(lambda: early.rc is not None, 60, "node 1's lockspace")
    assert early.rc == 0, early.log.read_text()
    vcs.wait_dlm(*NODES)
    join(vcs, 2, 3)
    wait_group(vcs, NODES, SPACE)
    takes_turns(vcs, *NODES, resource="again")


def waits_for(vcs: VcsCluster, node: int, *names: str) -> None:
    """Until `vcs why` on ``node`` says that a cold start waits for exactly these nodes."""

    def told() -> bool:
        waits = json.loads(vcs[node].run("vcs why --json", timeout=30, check=True).out)["waits"]
        return any(sorted(w["on"]) == sorted(names) and "cold start" in w["what"] for w in waits)

    vcs.wait(told, 30, f"`vcs why` of node {node} to name {names}")
