# SPDX-License-Identifier: GPL-2.0-only
"""Three machines, no fence device, the defaults: who is cut off resets itself, and the others go on after that (SAFETY S9 to S13).

SLOW=1 (environment): a longer lease, for a host that is busy with other things. It starves all three machines of a rotation for seconds,
and then they reset themselves, as they must."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import VcsCluster
from vcslab.evidence import trace_on, wait_started
from vcslab.story import key_of, kill_under_load, verify_file, wait_group, wait_writing

from tests.cluster.commands import ask
from tests.cluster.conftest import NODES, PATIENT, bring_back, mounted_everywhere

pytestmark = pytest.mark.vm

VICTIM, SURVIVORS = 3, (1, 2)
SLOW = float(os.environ.get("SLOW", "0")) > 0
LEASE_S, GRACE_S, MARGIN_S = 12.0 if SLOW else 5.0, 1.0, 2.0
WAIT_S = LEASE_S + GRACE_S + MARGIN_S
FROZEN_S = WAIT_S + 4
STALL_MS = 2000
"A host that is busy with other things may stop the machine for so long. The window is some ms; it is measured."


@pytest.fixture(scope="module")
def bare(module_cluster: Factory) -> VcsCluster:
    """GFS2 on three nodes that have nothing to fence with."""
    vcs = VcsCluster(module_cluster(nodes=3, shared_disk_mib=512), extra=PATIENT if SLOW else "", fence=False)
    vcs.lab.each(lambda m: vcs.install(m.spec.node))
    trace_on(vcs, *NODES)
    for n in NODES:
        vcs.start(n)
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(*NODES, timeout=180)
    vcs.mkfs(1)
    return vcs


@pytest.fixture
def gfs2(bare: VcsCluster) -> VcsCluster:
    mounted_everywhere(bare)
    return bare


def writers(vcs: VcsCluster) -> dict[int, str]:
    logs = {n: vcs.start_writer(n) for n in NODES}
    wait_writing(vcs, logs, 10)
    return logs


def victim_of(vcs: VcsCluster, logs: dict[int, str], boot: int) -> tuple[str, int, int]:
    """(key in the file, last fsynced record, host ns of it) of the victim's writer in that boot."""
    records = vcs.written(VICTIM, logs[VICTIM], boot=boot)
    return key_of(VICTIM, logs[VICTIM]), max(r["own"] for r in records), max(r["host_ns"] for r in records)


def others_go_on(vcs: VcsCluster, logs: dict[int, str], boot: int, since_ns: int) -> tuple[int, int]:
    """They start without the victim, write, and read all that it had fsynced, which was all before the first start. Returns the host's
    ns of the first start and of the victim's last fsynced write."""
    starts = wait_started(vcs, SURVIVORS, since_ns=since_ns)
    wait_group(vcs, SURVIVORS)
    wait_writing(vcs, {n: logs[n] for n in SURVIVORS}, 10)
    for n in SURVIVORS:
        vcs.stop_writers(n)
    key, fsynced, last_ns = victim_of(vcs, logs, boot)
    for n in SURVIVORS:
        verify_file(vcs, n, key, fsynced)
    began_ns = min(s.host_ns for s in starts.values())
    assert last_ns < began_ns, f"node {VICTIM} wrote {(last_ns - began_ns) / 1e6:.0f} ms after the others' start"
    return began_ns, last_ns


def reset_by_itself(vcs: VcsCluster) -> int:
    """The victim's machine has reset itself; the host's ns."""
    gone_ns = vcs[VICTIM].wait_off(60)
    assert vcs[VICTIM].stop_reason == "guest-reset"
    return gone_ns


def test_it_is_armed_by_the_first_mount_and_said_so(gfs2: VcsCluster) -> None:
    for n in NODES:
        shown = {f: gfs2.sysfs(n, f"lease/{f}") for f in ("state", "lease_ms", "grace_ms", "reset_armed", "dry_run")}
        assert shown == {"state": "armed", "lease_ms": f"{LEASE_S * 1000:.0f}", "grace_ms": "1000", "reset_armed": "1", "dry_run": "0"}
        assert not [note for note in ask(gfs2, n, "status", "status")["notes"] if "fence" in note]
    gfs2.umount(2)
    gfs2.wait(lambda: gfs2.sysfs(2, "lease/reset_armed") == "0", 10, "node 2's lease to be disarmed with its last group")
    gfs2.mount(2)


def test_power_is_cut(gfs2: VcsCluster) -> None:
    logs = writers(gfs2)
    boot = gfs2[VICTIM].boots
    cut_ns = gfs2.now_ns()
    kill, _ = kill_under_load(gfs2, VICTIM, logs)
    began_ns, _ = others_go_on(gfs2, logs, boot, cut_ns)
    assert (began_ns - cut_ns) / 1e9 >= WAIT_S, "counted from the configuration without the victim, never earlier"
    print(f"writes went on {kill.all_write:.0f} ms after the cut: {kill}")
    bring_back(gfs2)
    gfs2.wait_quorate(*NODES)


def test_a_node_that_is_cut_off_resets_itself_first(gfs2: VcsCluster) -> None:
    logs = writers(gfs2)
    boot = gfs2[VICTIM].boots
    cut_ns = gfs2.now_ns()
    gfs2.lab.network.isolate(VICTIM)
    gone_ns = reset_by_itself(gfs2)
    began_ns, last_ns = others_go_on(gfs2, logs, boot, cut_ns)
    assert last_ns < gone_ns < began_ns
    assert (gone_ns - cut_ns) / 1e9 < WAIT_S
    print(f"reset {(gone_ns - cut_ns) / 1e6:.0f} ms after the cut, last fsync {(last_ns - cut_ns) / 1e6:.0f} ms, "
          f"start {(began_ns - cut_ns) / 1e6:.0f} ms")  # fmt: skip
    bring_back(gfs2)
    gfs2.wait_quorate(*NODES)


def test_a_node_without_its_daemon_resets_itself_first(gfs2: VcsCluster) -> None:
    """vcsd is killed and nobody starts it again: no more evidence, so the lease ends."""
    logs = writers(gfs2)
    boot = gfs2[VICTIM].boots
    killed_ns = gfs2.kill_daemon(VICTIM)
    gone_ns = reset_by_itself(gfs2)
    began_ns, last_ns = others_go_on(gfs2, logs, boot, killed_ns)
    assert last_ns < gone_ns < began_ns
    print(f"reset {(gone_ns - killed_ns) / 1e6:.0f} ms after the kill, start {(began_ns - killed_ns) / 1e6:.0f} ms")
    bring_back(gfs2)
    gfs2.wait_quorate(*NODES)


@pytest.mark.parametrize("turn", range(int(os.environ.get("PAUSES", "1"))))
def test_a_paused_machine_resets_itself_when_it_goes_on(
    gfs2: VcsCluster, turn: int, record_property: Callable[[str, object], None]
) -> None:
    """S11: beyond its deadline it stood still, and the others have gone on. What it does between its resumption and its reset no lease
    can prevent: that window is measured here and stands in docs/safety.md. QEMU counts the writes, those that it had in hand when it was
    stopped among them; the few that it did between the first count and the stop are counted, too."""
    unloaded = gfs2[VICTIM].writes()
    logs = writers(gfs2)
    boot = gfs2[VICTIM].boots
    gfs2[VICTIM].stand_after_reset()
    before = gfs2[VICTIM].writes()
    assert before > unloaded, "QEMU's count does not see the writer"
    frozen_ns = gfs2[VICTIM].freeze()
    began_ns = min(s.host_ns for s in wait_started(gfs2, SURVIVORS, since_ns=frozen_ns).values())
    gfs2.wait(lambda: gfs2.now_ns() > frozen_ns + FROZEN_S * 1e9, 60, "the pause to be longer than the deadline")
    resumed_ns = gfs2[VICTIM].resume()
    window_ms = (gfs2[VICTIM].wait_reset(30) - resumed_ns) / 1e6
    writes = gfs2[VICTIM].writes() - before
    assert gfs2[VICTIM].stop_reason == "guest-reset"
    gfs2[VICTIM].power_off()
    late = [r for r in gfs2.written(VICTIM, logs[VICTIM], boot=boot) if r["host_ns"] > began_ns]
    record_property("window_ms", round(window_ms, 1))
    record_property("writes", writes)
    record_property("fsynced", len(late))
    print(f"pause {turn + 1}: reset {window_ms:.1f} ms after the resumption, at most {writes} writes, {len(late)} fsynced")
    assert (began_ns - frozen_ns) / 1e9 >= WAIT_S
    assert window_ms < STALL_MS
    assert len(late) <= 3
    bring_back(gfs2)
    gfs2.wait_quorate(*NODES)
