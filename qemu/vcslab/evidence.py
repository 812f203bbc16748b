# SPDX-License-Identifier: GPL-2.0-only
"""What happened, from those who cannot be mistaken: the kernel's own tracepoints and the power switch's record, on the host's clock.

The daemons' event logs say what a daemon believed. For "nobody started before the fence" that is not enough: here the start is the
tracepoint in the victim's peers' kernels, and the fence the moment at which the victim's process was gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.power import PowerRequest

from vcslab.cluster import FSNAME, VcsCluster
from vcslab.story import check

GROUP = f"dlm:{FSNAME}"
TRACING = "/sys/kernel/tracing"
EVENTS = (
    "vcs_view_install", "vcs_provider_attach", "vcs_provider_detach", "vcs_provider_lost", "vcs_provider_orphan",
    "vcs_group_join", "vcs_group_leave",
    "vcs_group_left", "vcs_group_stop", "vcs_group_start", "vcs_group_finish", "vcs_group_ack", "vcs_group_orphan", "vcs_group_takeover",
    "vcs_group_lost", "vcs_fence_result",
)  # fmt: skip
LINE = re.compile(r"^.*\s(?P<seconds>\d+)\.(?P<fraction>\d+): (?P<event>\w+): (?P<rest>.*)$")


@dataclass(frozen=True, slots=True)
class Traced:
    """One tracepoint of the switch. ``host_ns`` is right to within the clocks' error, under a few milliseconds."""

    host_ns: int
    event: str
    fields: dict[str, str]


def trace_on(cluster: VcsCluster, *nodes: int) -> None:
    """Record the switch's tracepoints of ``nodes`` on CLOCK_BOOTTIME, from now on."""
    on = " && ".join(f"echo 1 > events/vcs/{event}/enable" for event in EVENTS)
    script = f"cd {TRACING} && echo boot > trace_clock && echo > trace && {on} && echo 1 > tracing_on"
    cluster.lab.each(lambda m: m.run(script, check=True), *nodes)


def traced(cluster: VcsCluster, node: int, event: str = "", *, since_ns: int = 0, group: str = GROUP) -> list[Traced]:
    """The recorded tracepoints after the host's ``since_ns``; those of other groups than ``group`` are left out."""
    machine = cluster[node]
    shift = machine.measure_clock().boottime_ns
    return [t for t in parse_trace(machine.read(f"{TRACING}/trace"), shift)
            if t.host_ns > since_ns and event in ("", t.event) and t.fields.get("group", group) == group]  # fmt: skip


def parse_trace(text: str, shift_ns: int) -> list[Traced]:
    """The switch's tracepoints in what tracefs shows; ``shift_ns`` turns the guest's CLOCK_BOOTTIME into the host's clock."""
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None or line.startswith("#"):
            continue
        stamp = int(match["seconds"]) * 10**9 + int(match["fraction"].ljust(9, "0"))
        fields = dict(part.split("=", 1) for part in match["rest"].split() if "=" in part)
        found.append(Traced(stamp + shift_ns, match["event"], fields))
    return found


def cuts(cluster: VcsCluster, since_ns: int = 0) -> list[PowerRequest]:
    """All that the power switch was asked for after ``since_ns`` but questions: agents look after their devices from time to time."""
    return [r for r in cluster.lab.power.history if r.action in ("off", "reboot") and r.asked_ns > since_ns]


def fences(cluster: VcsCluster, victim: int, *, since_ns: int = 0) -> list[PowerRequest]:
    """The successful power cuts of ``victim`` that the power switch was asked for after ``since_ns``."""
    return [r for r in cluster.lab.power.history
            if r.victim == victim and r.action == "off" and r.code == 0 and r.asked_ns > since_ns]  # fmt: skip


def wait_fenced(cluster: VcsCluster, victim: int, *, since_ns: int, timeout: float = 60) -> PowerRequest:
    """Until a survivor has had ``victim`` cut off; the first such request."""
    cluster.wait(lambda: fences(cluster, victim, since_ns=since_ns), timeout, f"node {victim} to be fenced")
    return fences(cluster, victim, since_ns=since_ns)[0]


def wait_started(
    cluster: VcsCluster, survivors: Iterable[int], *, since_ns: int, group: str = GROUP, timeout: float = 60
) -> dict[int, Traced]:
    """Until the kernels of ``survivors`` have been given a start after ``since_ns``; the first of each."""
    nodes = list(survivors)
    starts: dict[int, Traced] = {}

    def all_started() -> bool:
        for n in nodes:
            if n not in starts and (found := traced(cluster, n, "vcs_group_start", since_ns=since_ns, group=group)):
                starts[n] = found[0]
        return len(starts) == len(nodes)

    cluster.wait(all_started, timeout, f"a start of {group} on nodes {nodes}")
    return starts


def no_start(cluster: VcsCluster, *nodes: int, since_ns: int, group: str = GROUP) -> None:
    """The kernels of ``nodes`` were given a stop of ``group`` after ``since_ns``, and no start. The stop proves that they are recorded."""
    for node in nodes:
        told = [t.event for t in traced(cluster, node, since_ns=since_ns, group=group)]
        check("vcs_group_stop" in told, f"node {node}: no stop of {group} was recorded: {told}")
        check("vcs_group_start" not in told, f"node {node} was given a start of {group}: {told}")


def no_start_before_fence(
    cluster: VcsCluster, survivors: Iterable[int], victim: int, *, since_ns: int, group: str = GROUP
) -> PowerRequest:
    """Every survivor's first start since ``since_ns`` came after the power switch had answered that the victim is gone (SAFETY S4, S15)."""
    starts = wait_started(cluster, survivors, since_ns=since_ns, group=group)
    done = fences(cluster, victim, since_ns=since_ns)
    check(done, f"nodes {sorted(starts)} started, and nobody had node {victim} fenced")
    fence = done[0]
    for node, start in starts.items():
        early_ms = (fence.answered_ns - start.host_ns) / 1e6
        check(early_ms < 0, f"node {node} was given its start {early_ms:.1f} ms before node {victim}'s fence was done")
    return fence
