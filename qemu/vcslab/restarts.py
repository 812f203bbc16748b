# SPDX-License-Identifier: GPL-2.0-only
"""Daemons that are stopped, killed and started again under a load; what the load noticed of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vcslab.cluster import FSNAME, VcsCluster
from vcslab.report import node_events
from vcslab.story import check

VCSD, GLUE = "vcs.vcsd", "dlm_glue"
START_S = 120.0
"A daemon's start in an emulated machine on a busy host."


def how(number: int) -> str:
    """SIGKILL and SIGTERM in turn."""
    return "KILL" if number % 2 == 0 else "TERM"


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

    vcs.wait(back, START_S, f"a dlm_glue of node {node} that finds the lockspace")
    vcs.wait(lambda: vcs.sysfs(node, f"groups/dlm:{FSNAME}/orphan_since_ms") == "0", 20, "the group to be taken over")
    check(vcs.daemon_pid(node, GLUE) not in (0, before), f"node {node}: the former dlm_glue still runs")


def restart_vcsd(vcs: VcsCluster, nodes: Iterable[int], signal: str, all_nodes: Iterable[int]) -> dict[str, float]:
    """vcsd of ``nodes`` ends and is started as the service manager would; until all are members of one view again, and the lockspace's
    group is at rest. Unless everybody's vcsd ended, its event must be the former one: then nobody was stopped for it (SAFETY S16).
    Returns how long it took, in s."""
    nodes, everybody = list(nodes), list(all_nodes)
    event = max(int(vcs.group(n)["event"]) for n in everybody)
    rings = {n: vcs.view(n)["ring"] for n in everybody}
    began_ns = vcs.now_ns()
    # At once: with the first ones gone the last one has no quorum, and stops.
    vcs.lab.each(lambda m: end(vcs, m.spec.node, VCSD, signal), *nodes)
    ended_ns = vcs.now_ns()
    for n in nodes:
        vcs.start(n, log=f"vcsd-{vcs.now_ns()}")
    vcs.wait(
        lambda: all(vcs.quorate(n, everybody) and vcs.view(n)["ring"] != rings[n] for n in everybody),
        START_S, f"one view of all after the restart of vcsd on nodes {nodes}",
    )  # fmt: skip
    member_ns = vcs.now_ns()
    anew = len(nodes) == len(everybody)

    def whole() -> bool:
        groups = [vcs.group(n) for n in everybody]
        return len({g["event"] for g in groups}) == 1 and all(
            g["state"] == "member" and g["phase"] == "finish" and (not anew or int(g["event"]) > event) for g in groups
        )

    vcs.wait(whole, START_S, f"the group to be at rest after the restart of vcsd on nodes {nodes}")
    check(anew or int(vcs.group(nodes[0])["event"]) == event, "the lockspace was stopped and started for a restart of vcsd")
    return {"end": (ended_ns - began_ns) / 1e9, "start": (member_ns - ended_ns) / 1e9}


def stall(vcs: VcsCluster, logs: Mapping[int, str], since_ns: int) -> dict[int, float]:
    """Node -> its writer's longest pause between two fsynced records after ``since_ns``, in s; up to now, if that is longer."""
    found = {}
    for n, log in logs.items():
        times = [int(r["host_ns"]) for r in vcs.written(n, log) if r["host_ns"] > since_ns]
        times = [since_ns, *times, vcs.now_ns()]
        found[n] = max(b - a for a, b in zip(times, times[1:], strict=False)) / 1e9
    return found
