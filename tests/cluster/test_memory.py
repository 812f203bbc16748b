# SPDX-License-Identifier: GPL-2.0-only
"""A survivor without memory, and another node killed: recovery must not wait for memory that waits for the recovery (SAFETY S20)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import MOUNTPOINT, VcsCluster
from vcslab.evidence import no_start_before_fence, trace_on
from vcslab.shell import setup
from vcslab.story import cross_read, failover, key_of, verify_file, wait_group, wait_writing

from tests.cluster.conftest import NODES, PATIENT, bring_back

pytestmark = pytest.mark.vm

STARVED, VICTIM = 2, 3
MEMORY_MIB = 512
EDGE_MIB = 12
"What the hog leaves available."
STARVED_KIB = 24 << 10
"Below this available a machine counts as short of memory here."
DIRTY_KIB = 2 << 10
LIMIT_MS = 60_000.0
"From the fence until every survivor has written again, the starved one included; emulated, on a busy host."
DAEMONS = ("vcs.vcsd", "dlm_glue")
PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE = 0x00080000, 0x00100000
"What PR_SET_IO_FLUSHER sets in a task's flags (include/linux/sched.h)."


def hog_reports(path: Path, shift_ns: int) -> list[dict[str, Any]]:
    """What the hog saw, each with ``host_ns``."""
    lines = path.read_text().splitlines() if path.exists() else []
    reports = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [r | {"host_ns": r["t"] + shift_ns} for r in reports]


def protected(vcs: VcsCluster, node: int, module: str) -> int:
    """Pid of a daemon, after reading back from the kernel that it cannot be swapped, is not throttled and not for the OOM killer."""
    pid = vcs.daemon_pid(node, module)
    assert pid, f"node {node}: no {module}"
    status = dict(line.split(":", 1) for line in vcs[node].read(f"/proc/{pid}/status").splitlines() if ":" in line)
    locked, resident = int(status["VmLck"].split()[0]), int(status["VmRSS"].split()[0])
    assert locked > 0 and locked >= 0.9 * resident, f"node {node}: {module} has {locked} KiB locked of {resident} KiB resident"
    assert vcs[node].read(f"/proc/{pid}/oom_score_adj").strip() == "-1000"
    stat = vcs[node].read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    assert int(stat[6]) & PF_MEMALLOC_NOIO and int(stat[6]) & PF_LOCAL_THROTTLE, f"{module} is no I/O flusher: flags {int(stat[6]):x}"
    policy = int(stat[38])
    assert policy == 2, f"{module} has scheduling policy {policy}, not SCHED_RR"
    return pid


@pytest.fixture
def small(cluster: Factory) -> VcsCluster:
    """Three machines with little memory, GFS2 mounted on all."""
    lab = cluster(nodes=3, shared_disk_mib=512, memory_mib=MEMORY_MIB)
    setup(lab, PATIENT)
    vcs = VcsCluster(lab, extra=PATIENT)
    trace_on(vcs, *NODES)
    return vcs


def test_recovery_without_memory(small: VcsCluster) -> None:
    """Node 2's memory is full of dirty pages of the file system and of a hog, node 3 is killed while all write. Nobody's daemon is killed,
    the recovery completes, nothing fsynced is lost, and node 3 comes back while memory is still short."""
    vcs = small
    daemons = {module: protected(vcs, STARVED, module) for module in DAEMONS}
    logs = {n: vcs.start_writer(n) for n in NODES}
    wait_writing(vcs, logs, 10)
    # The kernel would write dirty pages back early and hold back who makes them: here they are to be in the way.
    vcs[STARVED].run("cd /proc/sys/vm && echo 90 >dirty_ratio && echo 85 >dirty_background_ratio && echo 0 >dirty_writeback_centisecs")
    hog = vcs[STARVED].spawn(f"exec python3 -S /opt/vcs/src/tests/cluster/memory_hog.py {MOUNTPOINT}/hog {EDGE_MIB}", log="hog")
    shift = vcs[STARVED].measure_clock().boottime_ns
    vcs.wait(
        lambda: sum(r["available_kib"] < STARVED_KIB and r["direct_reclaims"] > 0 for r in hog_reports(hog.log, shift)[-4:]) >= 3,
        120, "node 2 to be short of memory for a while",
    )  # fmt: skip
    wait_writing(vcs, logs, 3)

    # The fence takes its time, so the survivors sit there stopped, and node 2 can neither write its dirty pages' journal nor get memory.
    vcs.lab.power.hold()
    cut_ns = vcs[VICTIM].power_off()
    survivors = {n: log for n, log in logs.items() if n != VICTIM}
    vcs.wait(lambda: all(vcs.group(n)["phase"] == "stop" for n in survivors), 60, "the survivors to stop")
    stopped_ns = vcs.now_ns()
    vcs.wait(
        lambda: len([r for r in hog_reports(hog.log, shift) if r["host_ns"] > stopped_ns and r["dirty_kib"] > DIRTY_KIB]) >= 3,
        60, f"more than {DIRTY_KIB} KiB of dirty pages",
    )  # fmt: skip
    released_ns = vcs.now_ns()
    vcs.lab.power.release()
    kill, fsynced = failover(vcs, VICTIM, cut_ns, logs)
    no_start_before_fence(vcs, survivors, VICTIM, since_ns=cut_ns)
    took_ms = kill.all_write - (released_ns - cut_ns) / 1e6
    assert took_ms < LIMIT_MS
    # Was it what it was to be? The pressure must have been there all the time, or this test shows nothing.
    during = [r for r in hog_reports(hog.log, shift) if stopped_ns < r["host_ns"] < cut_ns + kill.all_write * 1e6 + 1e9]
    short = [r for r in during if r["available_kib"] < STARVED_KIB]
    assert len(during) >= 3 and len(short) >= 0.8 * len(during), during
    assert during[-1]["direct_reclaims"] > during[0]["direct_reclaims"], "nobody had to reclaim memory himself"
    print(f"all write {took_ms:.0f} ms after the power switch was let go; {kill}; {during[0]} ... {during[-1]}")
    assert {module: vcs.daemon_pid(STARVED, module) for module in DAEMONS} == daemons, "a daemon of the starved node was replaced"

    wait_writing(vcs, survivors, 3)
    bring_back(vcs)
    vcs.wait_quorate(*NODES)
    vcs.mount(VICTIM)
    wait_group(vcs, NODES)
    assert hog.rc is None, "the hog must have gone on"
    vcs[STARVED].run(f"kill {hog.pid}", check=True)
    assert {module: vcs.daemon_pid(STARVED, module) for module in DAEMONS} == daemons
    for n in survivors:
        vcs.stop_writers(n)
    key = key_of(VICTIM, logs[VICTIM])
    for n in NODES:
        verify_file(vcs, n, key, fsynced)
    cross_read(vcs, NODES)
