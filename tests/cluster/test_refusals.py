# SPDX-License-Identifier: GPL-2.0-only
"""What must not work, does not, and says why in one line: wrong configurations, foreign file systems, forged datagrams, no quorum."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from harness.spec import Result
from vcslab.cluster import HANDLE, KEY, MOUNTPOINT, SHARED_DISK, VcsCluster, cluster_toml
from vcslab.evidence import no_start, no_start_before_fence, trace_on
from vcslab.story import wait_group

from tests.cluster.commands import ask
from tests.cluster.conftest import NODES, bring_back

pytestmark = pytest.mark.vm

SPACES = ("idle", "later")


@pytest.fixture
def well(three: VcsCluster) -> VcsCluster:
    """Three nodes, quorate together, whatever the story before did."""
    bring_back(three)
    three.wait_quorate(*NODES)
    three.wait_dlm(*NODES)
    return three


def status(vcs: VcsCluster, node: int) -> dict[str, Any]:
    found: dict[str, Any] = ask(vcs, node, "status", "status")
    assert found["source"] == "vcsd"
    return found


def with_own_key(nodes: tuple[int, ...]) -> str:
    """The configuration of these nodes, with the key beside it."""
    return cluster_toml(nodes).replace("[cluster]\n", '[cluster]\nkey_file = "cluster.key"\n', 1)


def refused_vcsd(vcs: VcsCluster, toml: str, key: str = KEY, mode: int = 0o600, options: str = "") -> str:
    """What vcsd of node 1 says, in one line, before it exits with 78 because of this configuration."""
    m = vcs[1]
    m.write("/tmp/bad/cluster.toml", toml)
    m.run("rm -f /tmp/bad/cluster.key", check=True)
    m.write("/tmp/bad/cluster.key", key + "\n", mode=mode)
    ended: Result = m.run(f"vcsd --config /tmp/bad/cluster.toml --run-dir /tmp/bad/run --state-dir /tmp/bad/state {options}", timeout=60)
    lines = (ended.out + ended.err).splitlines()
    assert ended.rc == 78, f"exit {ended.rc}: {lines}"
    assert len(lines) == 1, lines
    return lines[0]


def test_vcsd_refuses_a_wrong_configuration(well: VcsCluster) -> None:
    """One line each, which names the place and the remedy, and exit status 78."""
    good = with_own_key(NODES)
    said = refused_vcsd(well, good, key="not a key")
    assert "cluster.key holds no key of 32 bytes" in said and "vcs keygen" in said
    said = refused_vcsd(well, good, mode=0o644)
    assert "0644" in said and "chmod 600" in said
    said = refused_vcsd(well, with_own_key((4, 5, 6)))
    assert "'node1' is no node of cluster" in said and "--node" in said
    said = refused_vcsd(well, good, options="--node node7")
    assert "node7" in said and "node1 (1), node2 (2), node3 (3)" in said
    twice = good.replace("id = 2", "id = 1")
    said = refused_vcsd(well, twice)
    assert re.search(r"cluster\.toml:\d+: node\.id: 1 is also that of the node in line \d+; give every node its own id", said), said
    assert well.view(1)["members"] == [1, 2, 3], "the vcsd that runs is not touched"


def test_a_node_with_another_key_stays_out(well: VcsCluster) -> None:
    """Node 3 leaves and comes with a key of its own: nobody believes it, nothing changes for the others, and it says what to look at.
    With the right key it is in again."""
    vcs = well
    vcs.leave(3)
    vcs.wait_quorate(1, 2)
    generation = vcs.view(1)["generation"]
    vcs[3].write("/etc/vcs/cluster.key", "7e" * 32 + "\n", mode=0o600)
    vcs.start(3, log="vcsd-wrong")

    def notes() -> str:
        return "\n".join(status(vcs, 3).get("notes", []))

    vcs.wait(lambda: "cluster.key" in notes(), 30, "node 3 to say that its key is another one")
    vcs.wait(lambda: status(vcs, 1)["engine"]["counters"].get("dropped_key", 0) > 0, 20, "node 1 to have dropped what node 3 sends")
    assert not vcs.view(3)["quorate"] and vcs.view(3)["members"] == [3]
    assert vcs.view(1)["generation"] == generation and vcs.view(1)["members"] == [1, 2]
    vcs.leave(3)
    vcs.install_key(3)
    vcs.start(3, log="vcsd-right")
    vcs.wait_quorate(*NODES)


def test_a_file_system_of_another_cluster_is_not_mounted(well: VcsCluster) -> None:
    """One line that names both clusters and the command that gives the file system away."""
    well.mkfs(table="elsewhere:shared")
    tried = well[1].run(f"mount -t gfs2 {SHARED_DISK} {MOUNTPOINT}", timeout=60)
    said = tried.err.splitlines()
    assert tried.rc == 32 and len(said) == 1, f"exit {tried.rc}: {said}"
    assert "belongs to cluster 'elsewhere' and this node is in 'demo'" in said[0]
    assert f"tunegfs2 -o locktable=demo:shared {SHARED_DISK}" in said[0]
    assert not well.mounted(1) and not well.group(1)


def test_the_module_stays_under_its_users(well: VcsCluster) -> None:
    """rmmod vcs is refused while GFS2 is mounted, and still while a cluster is there; after a clean leave it goes, and comes back."""
    well.mkfs()
    well.mount(1)
    tried = well[1].run("rmmod vcs", timeout=30)
    assert tried.rc == 1 and "in use" in tried.err, tried
    well[1].run(f"touch {MOUNTPOINT}/still-there && sync -f {MOUNTPOINT}", check=True)
    well.umount(1)
    assert well[1].run("rmmod vcs", timeout=30).rc == 1, "a cluster pins the module"
    well.leave(1)
    well[1].run("rmmod vcs && modprobe vcs", timeout=30, check=True)
    trace_on(well, 1)
    well.start(1, log="vcsd-after-rmmod")
    well.wait_quorate(*NODES)


def test_forged_datagrams_are_counted_and_dropped(well: VcsCluster) -> None:
    """Garbage, replayed frames and frames of another cluster, sent to node 1 by the node that hands it the token: each kind in its own
    counter, and the ring does not notice."""
    before, ring = status(well, 1)["engine"]["counters"], well.view(1)
    command = f"python3 -S -m tests.cluster.datagrams 10.77.0.1 {HANDLE} /etc/vcs/cluster.key"
    sent: dict[str, int] = json.loads(well[3].run(command, timeout=60, check=True).out)

    def risen() -> dict[str, int]:
        now = status(well, 1)["engine"]["counters"]
        return {name: now.get(name, 0) - before.get(name, 0) for name in sent}

    well.wait(lambda: all(risen()[name] >= number for name, number in sent.items()), 20, f"the counters of {sent}")
    assert risen() == sent
    assert min(sent.values()) >= 20
    assert well.view(1) == ring, "forged datagrams have changed the membership"
    assert all(well.view(n)["ring"] == ring["ring"] for n in NODES)


def test_without_quorum_nothing_starts_and_everybody_may_leave(well: VcsCluster) -> None:
    """Node 3 is cut off from the others and cannot be fenced. It starts nothing. A lockspace can be left at once, and another after the
    lease has run out, which without self-fencing costs nobody anything; then the node leaves. The others wait for its fence meanwhile."""
    vcs = well
    for n in NODES:
        for space in SPACES:
            vcs[n].run(f"python3 -S -m tests.cluster.dlm_lock {space} create", timeout=60, check=True)
    for space in SPACES:
        wait_group(vcs, NODES, space)
    vcsd = max((j for j in vcs[3].spawned.values() if j.name.startswith("vcsd")), key=lambda j: j.pid)
    vcs.lab.power.set_broken()
    cut_ns = vcs.now_ns()

    vcs.lab.network.isolate(3)
    vcs.wait(lambda: vcs.view(3)["members"] == [3] and not vcs.view(3)["quorate"], 30, "node 3 to be without quorum")
    waits = ask(vcs, 3, "why", "waits")
    assert any("no quorum" in w["what"] and w["on"] == ["node1", "node2"] for w in waits), waits
    drop(vcs, 3, "idle")

    vcs.wait(lambda: vcs.sysfs(3, "lease/state") == "expired", 30, "node 3's lease to run out")
    assert (vcs.sysfs(3, "provider/state"), vcs.sysfs(3, "lease/reset_armed"), vcsd.rc) == ("attached", "0", None)
    drop(vcs, 3, "later")
    assert not vcs[3].run(f"ls /sys/kernel/vcs/{HANDLE}/groups").out.split()
    vcs.leave(3)
    vcs.wait(lambda: vcsd.rc is not None, 20, "vcsd's exit status")
    assert vcsd.rc == 0, vcsd.log.read_text()

    assert vcs[3].on and [r for r in vcs.lab.power.history if r.victim == 3 and r.code == 1 and r.asked_ns > cut_ns], "a fence was tried"
    assert all(vcs.group(n, space)["phase"] == "stop" for n in (1, 2) for space in SPACES)
    for space in SPACES:
        no_start(vcs, *NODES, since_ns=cut_ns, group=f"dlm:{space}")
    vcs.lab.power.set_working()
    for space in SPACES:
        no_start_before_fence(vcs, (1, 2), 3, since_ns=cut_ns, group=f"dlm:{space}")
        wait_group(vcs, (1, 2), space)


def drop(vcs: VcsCluster, node: int, space: str) -> None:
    """Leave a lockspace that nobody has open on this node."""
    vcs[node].run(f"python3 -S -m tests.cluster.dlm_drop {space}", timeout=30, check=True)
    assert space not in vcs[node].run("ls /sys/kernel/dlm").out.split()
    vcs.wait(lambda: not vcs.group(node, space), 10, f"node {node} to be out of the group of {space}")
