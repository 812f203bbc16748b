# SPDX-License-Identifier: GPL-2.0-only
"""POSIX locks on GFS2 through dlm_glue, with the real kernel's device: exclusion, order of requests, cancellation, a killed node and a
killed dlm_glue, on both kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.pytest_plugin import Factory
from harness.spec import Spawned
from vcslab.cluster import MOUNTPOINT, VcsCluster
from vcslab.evidence import cuts, no_start_before_fence, trace_on
from vcslab.story import wait_group

from tests.cluster.conftest import PATIENT

pytestmark = pytest.mark.vm

PROGRAM = "python3 -S -m tests.cluster.plock_hold"


def two_nodes(make: Factory, kernel: str) -> VcsCluster:
    """Node 1 has two votes: it goes on alone when node 2 dies."""
    vcs = VcsCluster(make(nodes=2, shared_disk_mib=512, kernel=kernel), extra=PATIENT)
    vcs.toml = vcs.toml.replace('name = "node1"\n', 'name = "node1"\nvotes = 2\n')
    vcs.lab.each(lambda m: vcs.install(m.spec.node))
    for n in (1, 2):
        trace_on(vcs, n)
        vcs.start(n)
    vcs.wait_quorate(1, 2)
    vcs.wait_dlm(1, 2)
    vcs.mkfs(1, journals=2)
    vcs.mount_on(1, 2)
    wait_group(vcs, (1, 2))
    return vcs


class Locks:
    """Processes with locks on files of one cluster."""

    def __init__(self, vcs: VcsCluster) -> None:
        self.vcs = vcs
        self.count = 0

    def start(self, node: int, file: str, what: str, start: int = 0, length: int = 1) -> Spawned:
        self.count += 1
        return self.vcs[node].spawn(f"exec {PROGRAM} {MOUNTPOINT}/{file} {what} {start} {length}", log=f"lock{self.count}")

    def now(self, node: int, file: str, what: str, start: int = 0, length: int = 1) -> tuple[int, str]:
        """(exit status, what it said) of one that does not wait."""
        found = self.vcs[node].run(f"{PROGRAM} {MOUNTPOINT}/{file} {what} {start} {length}", timeout=60)
        return found.rc, found.out.strip() or found.err.strip()

    def when(self, node: int, job: Spawned, word: str) -> int:
        """Host ns of the line, 0 while it is not there."""
        for line in job.log.read_text().splitlines() if job.log.exists() else []:
            if line.startswith(f"{word} "):
                return int(line.split()[1]) + self.vcs[node].measure_clock().boottime_ns
        return 0

    def wait(self, node: int, job: Spawned, word: str, timeout: float = 30) -> int:
        self.vcs.wait(lambda: self.when(node, job, word), timeout, f"{job.log.name} of node {node} to say {word!r}")
        return self.when(node, job, word)

    def end(self, node: int, job: Spawned) -> None:
        self.vcs[node].run(f"kill {job.pid}", check=True)
        self.vcs.wait(lambda: job.rc is not None, 30, f"{job.log.name} of node {node} to end")
        assert job.rc == 0, job.log.read_text()

    def asleep(self, node: int, job: Spawned) -> None:
        """Until it sleeps in the DLM's lock call."""
        where = f"/proc/{job.pid}/wchan"
        self.vcs.wait(lambda: self.vcs[node].read(where).startswith("dlm_posix"), 30, f"{job.log.name} of node {node} to wait")


@pytest.fixture(scope="module")
def pair(module_cluster: Factory) -> Iterator[Locks]:
    yield Locks(two_nodes(module_cluster, "6.12"))


def test_one_holder_at_a_time_in_the_order_of_requests(pair: Locks) -> None:
    """Node 1 holds, 2 waits, then 1 again, then 2: each gets the lock when the one before lets go, and nobody before."""
    holder = pair.start(1, "order", "hold")
    pair.wait(1, holder, "granted")
    assert pair.now(2, "order", "try")[0] == 11
    queue = []
    for node in (2, 1, 2):
        job = pair.start(node, "order", "hold")
        pair.asleep(node, job)
        queue.append((node, job))
    before = (1, holder)
    for at, (node, job) in enumerate(queue):
        assert not any(pair.when(n, j, "granted") for n, j in queue[at:]), "somebody has the lock beside its holder"
        pair.end(*before)
        got = pair.wait(node, job, "granted")
        freed = pair.when(*before, "freed")
        print(f"handed from node {before[0]} to node {node} in {(got - freed) / 1e6:.1f} ms")
        before = (node, job)
    pair.end(*before)
    assert pair.now(1, "order", "try")[0] == 0


def test_ranges_and_readers(pair: Locks) -> None:
    """Readers share, other bytes do not matter, and F_GETLK names the holder: with a negative pid if it is on another node."""
    reader = pair.start(1, "ranges", "share", 0, 10)
    pair.wait(1, reader, "granted")
    assert pair.now(2, "ranges", "tryshare", 5, 10)[0] == 0
    assert pair.now(2, "ranges", "try", 9, 1)[0] == 11
    assert pair.now(2, "ranges", "try", 10, 1)[0] == 0
    assert pair.now(2, "ranges", "get", 0, 100) == (0, f"-{reader.pid} 0 10")
    assert pair.now(1, "ranges", "get", 0, 100) == (0, f"{reader.pid} 0 10")
    assert pair.now(2, "ranges", "get", 10, 0) == (0, "free")
    pair.end(1, reader)


def test_a_signal_ends_the_wait(pair: Locks) -> None:
    """A waiter is interrupted, another is killed; the lock then goes to the one behind them."""
    holder = pair.start(1, "signal", "hold")
    pair.wait(1, holder, "granted")
    waiters = [pair.start(2, "signal", what) for what in ("interrupt", "hold", "hold")]
    for job in waiters:
        pair.asleep(2, job)
    first, second, third = waiters
    pair.vcs[2].run(f"kill -USR1 {first.pid}; kill -KILL {second.pid}", check=True)
    pair.vcs.wait(lambda: first.rc is not None and second.rc is not None, 20, "both to be gone")
    assert first.rc == 4, first.log.read_text()
    assert not pair.when(2, third, "granted")
    pair.end(1, holder)
    pair.wait(2, third, "granted")
    pair.end(2, third)


def test_glue_is_killed_with_operations_queued(pair: Locks) -> None:
    """kill -9 of dlm_glue on both nodes in turn while a lock is held and others wait: held stays held, who waits gets it in its order,
    a signal still ends a wait, and what was asked while nobody read the device is answered."""
    vcs = pair.vcs
    for node in (1, 2):
        name = f"killed{node}"
        holder = pair.start(node, name, "hold")
        pair.wait(node, holder, "granted")
        other = 3 - node
        queued = [(other, pair.start(other, name, "hold"))]
        pair.asleep(*queued[0])
        queued.append((node, pair.start(node, name, "hold")))
        pair.asleep(*queued[1])
        vcs.kill_daemon(node, "dlm_glue")
        late = pair.start(node, f"late{node}", "hold")
        gone = pair.start(node, name, "interrupt")
        pair.asleep(node, gone)
        vcs[node].run(f"kill -USR1 {gone.pid}", check=True)
        vcs.wait(lambda gone=gone: gone.rc is not None, 30, "the interrupted one to return")  # type: ignore[misc]
        assert gone.rc == 4, gone.log.read_text()
        pair.wait(node, late, "granted")
        pair.end(node, late)
        assert pair.now(other, name, "try")[0] == 11
        before = (node, holder)
        for n, job in queued:
            assert not pair.when(n, job, "granted")
            pair.end(*before)
            pair.wait(n, job, "granted")
            before = (n, job)
        pair.end(*before)
    assert not cuts(vcs), "nobody was fenced"


def test_the_holders_node_is_killed(pair: Locks) -> None:
    """Node 2 holds one file's lock, alone, and another's with a waiter on node 1; its power is cut: node 1 gets both, after the fence."""
    vcs = pair.vcs
    alone = pair.start(2, "alone", "hold")
    pair.wait(2, alone, "granted")
    shared = pair.start(2, "shared", "hold")
    pair.wait(2, shared, "granted")
    waiter = pair.start(1, "shared", "hold")
    pair.asleep(1, waiter)
    cut_ns = vcs[2].power_off()
    other = pair.start(1, "alone", "hold")
    got_ns = pair.wait(1, waiter, "granted", 60)
    fence = no_start_before_fence(vcs, (1,), 2, since_ns=cut_ns)
    assert got_ns > fence.answered_ns, f"granted {(fence.answered_ns - got_ns) / 1e6:.1f} ms before the fence"
    pair.wait(1, other, "granted", 60)
    print(f"fenced {(fence.answered_ns - cut_ns) / 1e6:.0f} ms, granted {(got_ns - cut_ns) / 1e6:.0f} ms after the cut")
    pair.end(1, waiter)
    pair.end(1, other)
