# SPDX-License-Identifier: GPL-2.0-only
"""Daemons that are stopped, killed and started again under a load; what the load noticed of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vcslab.cluster import FSNAME, VcsCluster
from vcslab.report import node_events
from vcslab.story import check

VCSD, GLUE = "vcs.vcsd", "dlm_glue"
KILLS_MAX = 2
"A third crash of one node's vcsd within ten minutes is a failed node, by design."


def how(number: int) -> str:
    """KILL and TERM in turn, and KILL at most KILLS_MAX times per node of three: the ``number``-th restart, counted from 0."""
    return "KILL" if number % 2 == 0 and number // 3 < KILLS_MAX else "TERM"


def end(vcs: VcsCluster, node: int, module: str, signal: str) -> int:
    """Send the signal, and wait until the process is gone; the host's ns just before."""
    pid = vcs.daemon_pid(node, module)
    check(pid, f"node {node}: no {module} is running")
    when = vcs.now_ns()
    gone = f"for i in $(seq 500); do grep -qs '^State:.[^ZX]' /proc/{pid}/status || exit 0; sleep 0.02; done; exit 1"
    vcs[node].run(f"kill -{signal} {pid}; {gone}", timeout=30, check=True)
    return when


def restart_glue(vcs: VcsCluster, node: int, signal: str) -> None:
    """dlm_glue ends, vcsd starts another one, and that has taken the lockspace over."""
    before = vcs.daemon_pid(node, GLUE)
    when = end(vcs, node, GLUE, signal)

    def back() -> bool:
        started = [e for e in node_events(vcs, node) if e["event"] == "glue_started" and e["host_ns"] > when]
        return bool(started) and FSNAME in started[-1]["lockspaces"]

    vcs.wait(back, 30, f"a dlm_glue of node {node} that finds the lockspace")
    vcs.wait(lambda: vcs.sysfs(node, f"groups/dlm:{FSNAME}/orphan_since_ms") == "0", 20, "the group to be taken over")
    check(vcs.daemon_pid(node, GLUE) not in (0, before), f"node {node}: the former dlm_glue still runs")


def restart_vcsd(vcs: VcsCluster, nodes: Iterable[int], signal: str, all_nodes: Iterable[int]) -> None:
    """vcsd of ``nodes`` ends and is started as the service manager would; until the lockspace's group is whole again by a newer event."""
    nodes, everybody = list(nodes), list(all_nodes)
    before = max(int(vcs.group(n)["event"]) for n in everybody)
    for n in nodes:
        end(vcs, n, VCSD, signal)
    for n in nodes:
        vcs.start(n, log=f"vcsd-{vcs.now_ns()}")

    def whole() -> bool:
        groups = [vcs.group(n) for n in everybody]
        return len({g["event"] for g in groups}) == 1 and all(
            g["state"] == "member" and g["phase"] == "finish" and int(g["event"]) > before and int(g["nr_members"]) == len(everybody)
            for g in groups
        )

    vcs.wait(whole, 60, f"the group to be whole after the restart of vcsd on nodes {nodes}")


def stall(vcs: VcsCluster, logs: Mapping[int, str], since_ns: int) -> dict[int, float]:
    """Node -> its writer's longest pause between two fsynced records after ``since_ns``, in s; up to now, if that is longer."""
    found = {}
    for n, log in logs.items():
        times = [int(r["host_ns"]) for r in vcs.written(n, log) if r["host_ns"] > since_ns]
        times = [since_ns, *times, vcs.now_ns()]
        found[n] = max(b - a for a, b in zip(times, times[1:], strict=False)) / 1e9
    return found


def cuts(vcs: VcsCluster, since_ns: int) -> list[str]:
    """Who was cut off by whom since."""
    return [f"node {r.victim} at {(r.asked_ns - since_ns) / 1e9:.1f} s" for r in vcs.lab.power.history
            if r.action == "off" and r.asked_ns > since_ns]  # fmt: skip
