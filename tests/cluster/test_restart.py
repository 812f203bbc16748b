# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue and vcsd are stopped, killed and started under a GFS2 load of all nodes: no fence, no failed operation, no long pause
(SAFETY S2, S16, S17, S19). ``make restarts`` does it twenty times each; here it is three."""

from __future__ import annotations

import os

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import VcsCluster
from vcslab.evidence import cuts
from vcslab.restarts import VCSD, end, how, restart_glue, restart_vcsd, stall
from vcslab.story import key_of, wait_writing

from tests.cluster.commands import ask
from tests.cluster.conftest import NODES, with_gfs2

pytestmark = pytest.mark.vm

TIMES = int(os.environ.get("RESTARTS", "3"))
STALL_S = float(os.environ.get("STALL", "10"))
"""Longest pause of a writer, s. `make restarts` has the limit of 3; here one that no restart explains, for the host is busy with
other things."""
REBUILT_S = 10.0
"""When all daemons died at once, the groups are stopped and started as what they are is read from the kernels: so long at most beyond the
time in which three vcsds start, 4 s on a machine without other work, and 34 s seen on a busy one."""

SLOW = """
[totem]
token_ms = 6000
consensus_ms = 3000
detect_ms = 2000
[lease]
lease_ms = 60000
[restart]
planned_ms = 120000
crashes = 100
"""
"""A vcsd starts at once on a machine, and in half a minute in three emulated ones on a busy host; nor must such a host look like a dead
node. Nobody is stopped meanwhile, and who dies says so: what is measured here depends on none of these. By default the third crash
within ten minutes is a failed node."""


@pytest.fixture(scope="module")
def made(module_cluster: Factory) -> VcsCluster:
    return with_gfs2(module_cluster, SLOW)


def load(vcs: VcsCluster) -> tuple[dict[int, str], int]:
    logs = {n: vcs.start_writer(n, name="restarts") for n in NODES}
    wait_writing(vcs, logs, 10)
    return logs, vcs.now_ns()


def judge(vcs: VcsCluster, logs: dict[int, str], begin_ns: int, what: str, limit_s: float = STALL_S) -> None:
    """All still write, what they wrote is whole, nobody was cut off."""
    wait_writing(vcs, logs, 5)
    pauses = stall(vcs, logs, begin_ns)
    print(f"{what}: longest stall {max(pauses.values()):.2f} s {({n: round(p, 2) for n, p in pauses.items()})}, "
          f"{len(cuts(vcs, begin_ns))} fences")  # fmt: skip
    for n in NODES:
        running = vcs[n].run("pgrep -fc '^python3 -S /tmp/workload.py'").out.strip()
        assert running == "1", f"node {n}: its writer has ended: {running}"
    assert not cuts(vcs, begin_ns)
    assert max(pauses.values()) <= limit_s, pauses
    for n in NODES:
        vcs.stop_writers(n)
    for n, log in logs.items():
        fsynced = max(r["own"] for r in vcs.written(n, log))
        answer = vcs.check_file(1, "restarts")
        assert not answer["problems"], answer
        assert answer["writers"][key_of(n, log)] >= fsynced
    verify_nothing_waits(vcs)


def verify_nothing_waits(vcs: VcsCluster) -> None:
    for n in NODES:
        assert ask(vcs, n, "why", "waits") == []


@pytest.mark.timeout(3600)
def test_dlm_glue_is_restarted_under_load(gfs2: VcsCluster) -> None:
    logs, begin_ns = load(gfs2)
    for i in range(TIMES):
        restart_glue(gfs2, NODES[i % 3], how(i))
        wait_writing(gfs2, logs, 2)
    judge(gfs2, logs, begin_ns, f"{TIMES} restarts of dlm_glue")


@pytest.mark.timeout(3600)
def test_vcsd_is_restarted_under_load(gfs2: VcsCluster) -> None:
    logs, begin_ns = load(gfs2)
    for i in range(TIMES):
        took = restart_vcsd(gfs2, [NODES[i % 3]], how(i), NODES)
        wait_writing(gfs2, logs, 2)
        print(f"vcsd of node {NODES[i % 3]}, {how(i)}: {', '.join(f'{what} {s:.2f} s' for what, s in took.items())}")
    judge(gfs2, logs, begin_ns, f"{TIMES} restarts of vcsd")


def test_all_vcsds_die_at_once(gfs2: VcsCluster) -> None:
    """S19: the groups are read from the kernels; dlm_glue of two nodes dies with them."""
    logs, begin_ns = load(gfs2)
    for n in (1, 2):
        end(gfs2, n, "dlm_glue", "KILL")
    took = restart_vcsd(gfs2, NODES, "KILL", NODES)
    judge(gfs2, logs, begin_ns, "all vcsds and two dlm_glues killed at once", sum(took.values()) + REBUILT_S)
    for n in NODES:
        assert gfs2.sysfs(n, "provider/state") == "attached"
        assert gfs2.daemon_pid(n, VCSD)
