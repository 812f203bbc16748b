# SPDX-License-Identifier: GPL-2.0-only
"""vcsd dies, the machine lives, and nobody starts it again in time: the node has failed (SAFETY S1, S4, S15, S16). Daemons that are back
in time: test_restart.py."""

from __future__ import annotations

import pytest
from vcslab.cluster import FSNAME, VcsCluster
from vcslab.evidence import GROUP, fences, no_start, no_start_before_fence, traced, wait_fenced
from vcslab.report import node_events
from vcslab.story import cross_read, verify_file, wait_group, wait_writing

from tests.cluster.commands import agrees_with_kernel, ask
from tests.cluster.conftest import NODES, bring_back

pytestmark = [pytest.mark.vm, pytest.mark.turns]

VICTIM = 3
SURVIVORS = (1, 2)
AT_ONCE_MS = 1000
"""What "at once" means: to run `kill` in the guest and to take the process's locked memory apart. Otherwise it would be the lease."""
LEASE_S = 12
"Of the lab's configuration (PATIENT): so long a vcsd may be away."
CLOCKS_NS = 50_000_000
"What the clocks of host and guests may differ by."


def fsynced_by(vcs: VcsCluster, node: int, log: str, boot: int) -> tuple[str, int]:
    """(key in the file, last fsynced counter) of a writer of that boot."""
    key = f"{node}/{int(log.removeprefix('writer')):08x}"
    return key, max(r["own"] for r in vcs.written(node, log, boot=boot))


def orphan_at(vcs: VcsCluster, node: int, since_ns: int) -> int:
    """When the node's kernel noticed, host ns; its sysfs must say so too, and the group must be as it was."""
    vcs.wait(lambda: vcs.sysfs(node, "provider/state") == "orphan", 10, f"node {node}'s kernel to count its provider as gone")
    group = vcs.group(node)
    assert (group["state"], group["phase"]) == ("member", "finish"), group
    return traced(vcs, node, "vcs_provider_orphan", since_ns=since_ns)[0].host_ns


def failed_at(vcs: VcsCluster, node: int, since_ns: int) -> int:
    """When a survivor learned that the node has failed, host ns: the limit of its absence has passed."""

    def found() -> list[int]:
        mine = [e for e in node_events(vcs, 1) if e["event"] == "node_failed" and e["nodeid"] == node]
        return [e["host_ns"] for e in mine if e["host_ns"] > since_ns]

    vcs.wait(found, 40, f"node {node} to have failed")
    return int(found()[0])


def stopped(vcs: VcsCluster, node: int, since_ns: int) -> bool:
    """The node has stopped its lockspace for what happened after ``since_ns``, and said so; or it was started even: no_start tells."""
    group = vcs.group(node)
    told = [t.event for t in traced(vcs, node, since_ns=since_ns)]
    return "vcs_group_start" in told or ("vcs_group_stop" in told and group["acked_event"] == group["event"])


def ring_of(vcs: VcsCluster, node: int, since_ns: int) -> list[int]:
    """Members of the last regular configuration that the node's engine has delivered since."""
    rings = [e["members"] for e in node_events(vcs, node)
             if e["event"] == "configuration" and e["kind"] == "regular" and e["host_ns"] > since_ns]  # fmt: skip
    return list(rings[-1]) if rings else []


def survivors_go_on(vcs: VcsCluster, logs: dict[int, str], boot: int) -> None:
    """They write after the recovery, and both read everything the victim had fsynced in that boot."""
    survivors = {n: logs[n] for n in SURVIVORS}
    wait_group(vcs, SURVIVORS)
    wait_writing(vcs, survivors, 10)
    key, fsynced = fsynced_by(vcs, VICTIM, logs[VICTIM], boot)
    for n in SURVIVORS:
        vcs.stop_writers(n)
    for n in SURVIVORS:
        verify_file(vcs, n, key, fsynced)


def and_back(vcs: VcsCluster) -> None:
    bring_back(vcs)
    vcs.wait_quorate(*NODES)
    vcs.mount(VICTIM)
    wait_group(vcs, NODES)
    cross_read(vcs, NODES)


def what_is_told(vcs: VcsCluster) -> None:
    """The fence is waited for: `vcs` of the victim reads the kernel and says what is missing; the survivors name what they wait for."""
    agrees_with_kernel(vcs, VICTIM, "kernel")
    [gone, *_] = ask(vcs, VICTIM, "why", "waits")
    assert "the provider's process is gone" in gone["what"] and "systemctl start vcsd" in gone["remedy"]
    assert [w for w in ask(vcs, 1, "why", "waits") if w["subject"] == f"node node{VICTIM}" and "must be fenced" in w["what"]]
    [owed] = ask(vcs, 1, "status", "status")["fencing"]
    assert owed["nodeid"] == VICTIM and owed["state"] == "running" and owed["groups"] == [GROUP]
    assert {r["nodeid"]: r["state"] for r in ask(vcs, 2, "nodes", "nodes")}[VICTIM] == "failed"


def killed_for_good(vcs: VcsCluster) -> tuple[int, int]:
    """kill -9 of the victim's vcsd, which nobody starts again; until it has failed. The power switch waits. (killed, failed) in host ns."""
    vcs.lab.power.hold()
    killed_ns = vcs.kill_daemon(VICTIM)
    noticed_ms = (orphan_at(vcs, VICTIM, killed_ns) - killed_ns) / 1e6
    assert noticed_ms < AT_ONCE_MS, f"the kernel noticed after {noticed_ms:.0f} ms"
    assert vcs.daemon_pid(VICTIM, "dlm_glue"), "dlm_glue must outlive vcsd"
    vcs.wait(lambda: vcs.view(1)["members"] == [1, 2], 20, "a view without the victim")
    assert {r["nodeid"]: r["state"] for r in ask(vcs, 2, "nodes", "nodes")}[VICTIM] == "detached"
    failed_ns = failed_at(vcs, VICTIM, killed_ns)
    stops = [t for n in SURVIVORS for t in traced(vcs, n, "vcs_group_stop", since_ns=killed_ns)]
    early = [t for t in stops if t.host_ns < failed_ns - CLOCKS_NS]
    assert not early, "while its daemon may come back, nobody is stopped"
    assert (failed_ns - killed_ns) / 1e9 >= LEASE_S - 0.5, "it failed before its time was over"
    assert vcs[VICTIM].on and not fences(vcs, VICTIM, since_ns=killed_ns)
    vcs.wait(lambda: all(stopped(vcs, n, killed_ns) for n in SURVIVORS), 30, "the survivors to stop and to wait for the fence")
    no_start(vcs, *SURVIVORS, since_ns=killed_ns)
    print(f"noticed {noticed_ms:.1f} ms, failed {(failed_ns - killed_ns) / 1e6:.0f} ms after the kill")
    return killed_ns, failed_ns


def test_a_vcsd_that_stays_dead_is_a_failed_node(gfs2: VcsCluster) -> None:
    """kill -9 of vcsd under a busy mount: all write on until its time is over, then the node is fenced, nobody starts before that, no data
    is lost."""
    logs = {n: gfs2.start_writer(n) for n in NODES}
    wait_writing(gfs2, logs, 10)
    boot = gfs2[VICTIM].boots
    killed_ns, _failed_ns = killed_for_good(gfs2)
    what_is_told(gfs2)

    gfs2.lab.power.release()
    wait_fenced(gfs2, VICTIM, since_ns=killed_ns)
    no_start_before_fence(gfs2, SURVIVORS, VICTIM, since_ns=killed_ns)
    assert {r["nodeid"]: r["state"] for r in ask(gfs2, 2, "nodes", "nodes")}[VICTIM] == "fenced"
    survivors_go_on(gfs2, logs, boot)
    and_back(gfs2)


def test_a_vcsd_that_is_back_too_late_is_no_newcomer(gfs2: VcsCluster) -> None:
    """The same, and vcsd is up again after its node has failed and before the fence is done. Its kernel still holds the mount of a failed
    membership: it gets no start, the fence goes on, and the others start only after it."""
    logs = {n: gfs2.start_writer(n) for n in NODES}
    wait_writing(gfs2, logs, 10)
    boot = gfs2[VICTIM].boots
    killed_ns, failed_ns = killed_for_good(gfs2)
    gfs2.start(VICTIM, log="vcsd-again")

    gfs2.wait(lambda: VICTIM in ring_of(gfs2, 1, failed_ns), 120, "a ring of the survivors with the restarted vcsd")
    gfs2.wait(lambda: gfs2.group(VICTIM)["phase"] == "stop", 30, "the failed node to be stopped by its own vcsd")
    assert gfs2[VICTIM].on and not fences(gfs2, VICTIM, since_ns=killed_ns)
    waits = [w["what"] for w in ask(gfs2, 1, "why", "waits")]
    assert any(f"lockspace {FSNAME} waits for node{VICTIM} (node {VICTIM}) to be fenced" in what for what in waits), waits
    no_start(gfs2, *SURVIVORS, since_ns=killed_ns)
    told = [t.event for t in traced(gfs2, VICTIM, since_ns=killed_ns)]
    assert "vcs_group_start" not in told, told
    assert gfs2.view(1)["members"] == [1, 2], "the restarted vcsd is in the ring and no member"

    gfs2.lab.power.release()
    fence = wait_fenced(gfs2, VICTIM, since_ns=killed_ns)
    no_start_before_fence(gfs2, SURVIVORS, VICTIM, since_ns=killed_ns)
    mine = [e for e in node_events(gfs2, VICTIM) if e["host_ns"] > killed_ns]
    assert not [e for e in mine if e["event"] in ("group_start", "ls_started")], "the failed node was given a start"
    print(f"fenced {(fence.gone_ns - killed_ns) / 1e6:.0f} ms after the kill")
    survivors_go_on(gfs2, logs, boot)
    and_back(gfs2)
