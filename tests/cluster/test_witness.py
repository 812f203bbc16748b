# SPDX-License-Identifier: GPL-2.0-only
"""Two nodes, and `vcs witness` on a third machine that is none of the cluster: with one node dead the other goes on, also if it is the
higher one; with the wire between them cut exactly one does (docs/decisions/0018-witness.md)."""

from __future__ import annotations

import pytest
from harness.errors import ChannelClosed
from harness.pytest_plugin import Factory
from harness.spec import Spawned
from vcslab.cluster import VcsCluster, cluster_toml
from vcslab.evidence import fences, no_start, no_start_before_fence, trace_on
from vcslab.report import node_events
from vcslab.story import verify_file, wait_group, wait_writing

from tests.cluster.calm import CALM, LIMIT_S
from tests.cluster.conftest import bring_back

pytestmark = [pytest.mark.vm, pytest.mark.turns]

NODES, WITNESS = (1, 2), 3
CONFIG = f"""
[quorum.witness]
address = "10.77.0.{WITNESS}"
timeout_ms = 8000
"""


class Site(VcsCluster):
    """The two nodes as a cluster; the third machine only has the witness."""

    def __init__(self, make: Factory) -> None:
        super().__init__(make(nodes=3, shared_disk_mib=512))
        self.toml = cluster_toml(NODES, extra=CALM + CONFIG)
        self.process: Spawned | None = None

    def witness(self) -> None:
        """Start it, and wait until it answers questions."""
        m = self[WITNESS]
        m.write("/etc/vcs/cluster.toml", self.toml)
        self.install_key(WITNESS)
        self.process = job = m.spawn("exec vcs witness", log=f"witness-{self.now_ns()}")
        self.wait(lambda: job.log.exists() and "grants nothing for" in job.log.read_text(), 60, "the witness to answer")

    def no_witness(self) -> None:
        assert self.process is not None and self.process.rc is None, "the witness has ended by itself"
        self[WITNESS].run(f"kill -9 {self.process.pid}", check=True)

    def alone(self, node: int) -> bool:
        """A machine that is being cut is not: it may go while it is asked."""
        try:
            return self.quorate(node, [node])
        except ChannelClosed:
            return False


@pytest.fixture(scope="module")
def site(module_cluster: Factory) -> Site:
    """Quorate, GFS2 mounted on both."""
    vcs = Site(module_cluster)
    vcs.witness()
    vcs.lab.each(lambda m: vcs.install(m.spec.node), *NODES)
    trace_on(vcs, *NODES)
    vcs.lab.each(lambda m: vcs.start(m.spec.node), *NODES)
    vcs.wait_quorate(*NODES, timeout=LIMIT_S)
    vcs.wait_dlm(*NODES, timeout=LIMIT_S)
    vcs.mkfs(journals=2)
    return vcs


@pytest.fixture
def gfs2(site: Site) -> Site:
    """Both well, whatever the story before has left."""
    bring_back(site, *NODES)
    site.wait_quorate(*NODES, timeout=LIMIT_S)
    site.wait_dlm(*NODES, timeout=LIMIT_S)
    for n in NODES:
        if not site.mounted(n):
            site.mount(n)
    wait_group(site, NODES)
    return site


def goes_on(vcs: Site, node: int, logs: dict[int, str], since_ns: int) -> None:
    """``node`` alone: it was started after the other one's fence, writes, and reads all that the dead one had fsynced."""
    [dead] = set(NODES) - {node}
    fence = no_start_before_fence(vcs, [node], dead, since_ns=since_ns)
    assert fence.asked_by == node and len(fences(vcs, dead, since_ns=since_ns)) == 1 and not fences(vcs, node, since_ns=since_ns)
    wait_group(vcs, [node])
    wait_writing(vcs, {node: logs[node]}, 10)
    vcs.stop_writers(node)
    fsynced = max(r["own"] for r in vcs.written(dead, logs[dead]))
    verify_file(vcs, node, f"{dead}/{int(logs[dead].removeprefix('writer')):08x}", fsynced)
    assert vcs.alone(node)


def test_the_higher_node_goes_on_alone(gfs2: Site) -> None:
    """Power cut of node 1: one of two votes, and the witness's word."""
    logs = {n: gfs2.start_writer(n) for n in NODES}
    wait_writing(gfs2, logs, 10)
    cut_ns = gfs2[1].power_off()
    goes_on(gfs2, 2, logs, cut_ns)
    assert "lets this half go on" in gfs2[2].run("vcs quorum", timeout=30, check=True).out


def test_of_two_halves_exactly_one_goes_on(gfs2: Site) -> None:
    """The wire between the nodes is cut while there is no witness: nobody goes on, and nobody is fenced. Then the witness is there, for
    both: one is granted what it asks for, the other one fenced by it, and never started."""
    vcs = gfs2
    logs = {n: vcs.start_writer(n) for n in NODES}
    wait_writing(vcs, logs, 10)
    vcs.no_witness()
    cut_ns = vcs.lab.network.block(1, 2)
    vcs.wait(lambda: not any(vcs.view(n)["quorate"] for n in NODES), 60, "both halves to be without quorum")
    vcs.wait(lambda: all(vcs.group(n)["phase"] == "stop" for n in NODES), 60, "both halves to be stopped")
    no_start(vcs, *NODES, since_ns=cut_ns)
    assert not any(fences(vcs, n, since_ns=cut_ns) for n in NODES)
    for n in NODES:
        vcs.wait(lambda n=n: "DOES NOT ANSWER" in vcs[n].run("vcs quorum", timeout=30, check=True).out, 60, f"node {n} to say so")  # type: ignore[misc]

    vcs.witness()
    vcs.wait(lambda: any(vcs.alone(n) for n in NODES), 60, "one of the halves to be granted its quorum")
    [lucky] = [n for n in NODES if vcs.alone(n)]
    other = 3 - lucky
    vcs.wait(lambda: fences(vcs, other, since_ns=cut_ns), 60, f"node {other} to be fenced")
    goes_on(vcs, lucky, logs, cut_ns)
    told = [e["event"] for e in node_events(vcs, other) if e["host_ns"] > cut_ns]
    assert "group_stop" in told and "group_start" not in told and "ls_started" not in told, told


def test_the_end(gfs2: Site) -> None:
    """Both leave cleanly: with all votes the witness is not asked."""
    gfs2.no_witness()
    for n in NODES:
        gfs2.umount(n)
        gfs2.leave(n)
