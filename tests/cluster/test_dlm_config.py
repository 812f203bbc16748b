# SPDX-License-Identifier: GPL-2.0-only
"""[dlm] on three machines: SCTP, a lockspace with nodir and weights, one that is configured differently, and twenty at once."""

from __future__ import annotations

import re
import time

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import DLM, VcsCluster
from vcslab.story import wait_group

from tests.cluster.calm import site
from tests.cluster.conftest import NODES
from tests.cluster.test_dlm import OPEN_INPUT

pytestmark = [pytest.mark.vm, pytest.mark.turns]

CONFIG = """
[dlm]
protocol = "sctp"
[[dlm.lockspace]]
name = "weighed"
nodir = true
weights = { node1 = 2, node2 = 1 }
"""
MANY = 20
JOINS_S = 400.0
"For these joins on each of three nodes; a minute where nothing else runs."
LOCK = "python3 -S -m tests.cluster.dlm_lock weighed"


@pytest.fixture(scope="module")
def vcs(module_cluster: Factory) -> VcsCluster:
    return site(module_cluster, extra=CONFIG, modules="dlm sctp")


def test_weights_and_nodir_over_sctp(vcs: VcsCluster) -> None:
    for n in (1, 2):
        vcs[n].run("dlm_tool join weighed", timeout=60, check=True)
    wait_group(vcs, (1, 2), "weighed")
    assert vcs[1].read(f"{DLM}/protocol").strip() in ("1", "sctp")
    assert "protocol=sctp (dlm.conf)\n" in vcs[1].run("dlm_tool dump_config", check=True).out
    for n in (1, 2):
        assert vcs[n].read("/sys/kernel/dlm/weighed/nodir").strip() == "1"
        weights = [vcs[n].read(f"{DLM}/spaces/weighed/nodes/{m}/weight").strip() for m in (1, 2)]
        assert weights == ["2", "1"]


def test_who_is_configured_differently_cannot_join(vcs: VcsCluster) -> None:
    vcs.leave(3)
    other = vcs.toml.replace("nodir = true", "nodir = false")
    vcs[3].write("/etc/vcs/cluster.toml", other)
    vcs.start(3, log="vcsd-other")
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(3)
    refused = vcs[3].run("dlm_tool join weighed", timeout=60)
    assert refused.rc != 0 and "dlm_new_lockspace weighed error 22" in refused.err, refused
    words = vcs[3].run("dlm_tool dump", check=True).out
    assert re.search(r"weighed join_refused error 22 .*has 'sctp port=21064 weights=1:2,2:1' configured, .*nodir=1", words), words
    assert "weighed" not in vcs[3].run("ls /sys/kernel/dlm").out.split()
    wait_group(vcs, (1, 2), "weighed")
    vcs.leave(3)
    vcs[3].write("/etc/vcs/cluster.toml", vcs.toml)
    vcs.start(3, log="vcsd-again")
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(3)
    vcs[3].run("dlm_tool join weighed", timeout=60, check=True)
    wait_group(vcs, NODES, "weighed")
    assert vcs[3].read(f"{DLM}/spaces/weighed/nodes/3/weight").strip() == "0"
    held = vcs[3].spawn(f"{OPEN_INPUT} exec {LOCK} hold res", log="held")
    vcs.wait(lambda: held.log.exists() and "granted" in held.log.read_text(), 30, "a lock on node 3, which masters nothing")
    assert vcs[1].run(f"{LOCK} try res", timeout=30).rc == 11
    vcs[3].run(f"kill {held.pid}", check=True)
    vcs.wait(lambda: held.rc is not None, 20, "the lock to be given back")


def test_twenty_lockspaces_recover_side_by_side(vcs: VcsCluster) -> None:
    """Joined one after the other: the kernel takes one at a time, and in the same order nodes share a lockspace's events. After the
    power cut all recover at once."""
    names = [f"many{i}" for i in range(MANY)]
    joins = f"for i in $(seq 0 {MANY - 1}); do dlm_tool join many$i >/dev/null || exit; done"
    began = time.monotonic()
    vcs.lab.each(lambda m: m.run(joins, timeout=JOINS_S, check=True), *NODES)
    running(vcs, NODES, names)
    joined = time.monotonic() - began
    listed = vcs[1].run("dlm_tool ls", check=True).out
    assert len(re.findall(r"^name          many\d+$", listed, re.M)) == MANY
    vcs[3].power_off()
    began = time.monotonic()
    running(vcs, (1, 2), names)
    print(f"{MANY} lockspaces joined by three nodes in {joined:.1f} s; after a power cut all run again in {time.monotonic() - began:.1f} s")
    assert vcs[1].run("dlm_tool ls", check=True).out.count("\nmembers       1 2 \n") >= MANY


def running(vcs: VcsCluster, nodes: tuple[int, ...], names: list[str]) -> None:
    """Until every lockspace has exactly these members on all of them, and nothing is under way."""
    wanted = f"\nflags         0x00000000 \nchange        member {len(nodes)} "

    def done() -> bool:
        for n in nodes:
            spaces = vcs[n].run("dlm_tool ls", timeout=30, check=True).out.split("\nname          ")
            good = {s.split("\n", 1)[0] for s in spaces if wanted in s and "new change" not in s}
            if not good >= set(names):
                return False
            groups = vcs[n].run(f"grep -L finish /sys/kernel/vcs/{vcs.name}/groups/dlm:*/phase", timeout=30).out
            if groups.strip():
                return False
        return True

    vcs.wait(done, 120, f"{len(names)} lockspaces on nodes {nodes}")
