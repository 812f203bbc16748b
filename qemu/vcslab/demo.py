# SPDX-License-Identifier: GPL-2.0-only
"""The main job: three machines, GFS2 on the switch, a node killed in the middle of writes, the others carrying on.

Run by ``make demo``. Exit status 0 only if every step was seen in the system's own state; the timeline is in build/demo/.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Cluster

from vcslab.cluster import VcsCluster
from vcslab.report import Kill, render
from vcslab.story import check, cross_read, key_of, kill_under_load, verify_file, wait_group, wait_writing

NODES = (1, 2, 3)
VICTIM = 2
TELLING = {
    "totem_state", "configuration", "view_installed", "merged", "node_failed", "node_joined", "node_left", "obligation",
    "fence_launched", "fence_result", "group_stop", "group_start", "group_finish", "group_left",
    "ls_online", "ls_offline", "ls_stopped", "comms_dropped", "ls_started", "ls_recovered", "ls_joined", "ls_left", "gfs2_recovery",
}  # fmt: skip


def clear(folder: Path) -> None:
    """An earlier run's logs must not be taken for this one's; what is no earlier run's folder is not ours to delete."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "network.log").exists():
        raise SystemExit(f"{folder} holds something else than an earlier demo's logs; name another folder with --artifacts")
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    print(f"== {text} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"   done in {time.monotonic() - began:.1f} s", flush=True)


def one_kill(vcs: VcsCluster, number: int) -> Kill:
    """Writers on all nodes, power cut of the victim, recovery, and the victim back with its mount."""
    with step(f"kill {number}: all nodes write, then node {VICTIM}'s power is cut"):
        logs = {n: vcs.start_writer(n) for n in NODES}
        victim_key = key_of(VICTIM, logs[VICTIM])
        wait_writing(vcs, logs, 10)
        kill, fsynced = kill_under_load(vcs, VICTIM, logs)
        survivors = {n: log for n, log in logs.items() if n != VICTIM}
        wait_writing(vcs, survivors, 10)
        for n in survivors:
            vcs.stop_writers(n)
        for n in survivors:
            answer = verify_file(vcs, n, victim_key, fsynced)
            print(f"   node {n} reads {answer['records']} whole records; node {VICTIM} had fsynced {fsynced}, all are there")
        wait_group(vcs, survivors)
    with step(f"node {VICTIM} boots again, joins, mounts, reads and writes"):
        vcs[VICTIM].boot()
        vcs.install(VICTIM)
        vcs.start(VICTIM)
        vcs.wait_quorate(*NODES)
        vcs.mount(VICTIM)
        wait_group(vcs, NODES)
        verify_file(vcs, VICTIM, victim_key, fsynced)
        cross_read(vcs, NODES)
    return kill


def story(lab: Cluster, kills: int) -> list[Kill]:
    vcs = VcsCluster(lab)
    with step("three nodes form a cluster: vcsd, Totem, the switch"):
        vcs.up(*NODES)
    print(vcs[1].run("vcs status", timeout=30).out.rstrip())
    with step("GFS2 is made on the shared disk and mounted on all three"):
        vcs.mkfs(1, journals=len(NODES))
        for n in NODES:
            vcs.mount(n)
        wait_group(vcs, NODES)
    with step("each node writes and reads what the others wrote"):
        cross_read(vcs, NODES)
    measured = [one_kill(vcs, i + 1) for i in range(kills)]
    print(vcs[1].run("vcs groups", timeout=30).out.rstrip())
    with step("all unmount and leave"):
        for n in NODES:
            vcs.umount(n)
        for n in NODES:
            vcs.leave(n)
            check(not vcs[n].run("ls /sys/kernel/dlm").out.strip(), f"node {n} still has a lockspace")
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, default=Path("build/demo"))
    parser.add_argument("--limit-ms", type=float, default=0, help="fail if the median of 'all write' is above")
    options = parser.parse_args()
    began = time.monotonic()
    clear(options.artifacts)
    with step("machines boot"):
        lab = Cluster(nodes=len(NODES), kernel=options.kernel, shared_disk_mib=512, artifacts=options.artifacts)
        lab.__enter__()
    try:
        kills = story(lab, options.kills)
    except BaseException as error:
        lab.__exit__(type(error), error, error.__traceback__)
        raise
    lab.__exit__(None, None, None)
    print("\nTimeline (seconds, one clock):")
    for e in lab.timeline.entries(kernel=False):
        if e.event in TELLING or e.source == "lab":
            who = f"node{e.node}" if e.node else "lab"
            print(f"{(e.host_ns - lab.timeline.start_ns) / 1e9:9.3f} {who:6} {e.source:9} {e.event} {e.details}"[:170])
    print(f"\nThe whole timeline, consoles and logs: {options.artifacts}/\n")
    print(render(kills))
    median = statistics.median(k.all_write for k in kills)
    print(f"\nwrites resumed {median:.0f} ms after the power cut (median of {len(kills)}); {time.monotonic() - began:.0f} s in all")
    if options.limit_ms and median > options.limit_ms:
        print(f"that is more than {options.limit_ms:.0f} ms")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
