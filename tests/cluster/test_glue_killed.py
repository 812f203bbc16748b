# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue dies and the machine lives: that is nobody's death (SAFETY S2, S17)."""

from __future__ import annotations

import pytest
from vcslab.cluster import FSNAME, VcsCluster
from vcslab.report import node_events
from vcslab.story import key_of, verify_file, wait_group, wait_writing

from tests.cluster.conftest import NODES

pytestmark = pytest.mark.vm

VICTIM = 3


def fsynced_by(vcs: VcsCluster, node: int, log: str, boot: int) -> tuple[str, int]:
    """(key in the file, last fsynced counter) of a writer of that boot."""
    return key_of(node, log), max(r["own"] for r in vcs.written(node, log, boot=boot))


def test_a_killed_dlm_glue_harms_nobody(gfs2: VcsCluster) -> None:
    """kill -9 of dlm_glue: vcsd starts it again, it takes the lockspace over, all write on, nobody is fenced; and it does its work: a node
    leaves the lockspace and comes back."""
    logs = {n: gfs2.start_writer(n) for n in NODES}
    wait_writing(gfs2, logs, 10)
    generation = gfs2.view(VICTIM)["generation"]
    before = gfs2.daemon_pid(VICTIM, "dlm_glue")

    killed_ns = gfs2.kill_daemon(VICTIM, "dlm_glue")
    gfs2.wait(lambda: gfs2.daemon_pid(VICTIM, "dlm_glue") not in (0, before), 20, "a new dlm_glue")
    gfs2.wait(
        lambda: [e for e in node_events(gfs2, VICTIM) if e["event"] == "glue_started" and e["host_ns"] > killed_ns
                 and FSNAME in e["lockspaces"]],
        30, "the new dlm_glue to find the lockspace",
    )  # fmt: skip
    gfs2.wait(lambda: gfs2.sysfs(VICTIM, f"groups/dlm:{FSNAME}/orphan_since_ms") == "0", 20, "the group to be taken over")
    wait_writing(gfs2, logs, 10)
    assert gfs2.view(VICTIM)["generation"] == generation, "the membership has nothing to do with it"
    assert not [r for r in gfs2.lab.power.history if r.action == "off" and r.asked_ns > killed_ns]

    gfs2.stop_writers(1)
    gfs2.umount(1)
    wait_group(gfs2, (2, 3))
    gfs2.mount(1)
    wait_group(gfs2, NODES)
    for n in (2, 3):
        gfs2.stop_writers(n)
    for n, log in logs.items():
        verify_file(gfs2, 1, *fsynced_by(gfs2, n, log, gfs2[n].boots))
