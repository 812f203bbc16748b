# SPDX-License-Identifier: GPL-2.0-only
"""`make bench-failover`: a power cut under GFS2, our stack beside corosync and dlm_controld in the same machines. RUNS, ONLY.

Three machines write one file under a flock, one loses its power. All times are on the host's clock, after the cut, and are read where both
stacks leave the same traces: in the kernels' logs, at the power switch, in the writers' records. Only when a failure was noticed and when
the new membership was there is taken from the stacks' own logs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from harness import Cluster
from harness.errors import LabError
from vcslab.classic import Classic, Tuning
from vcslab.cluster import DLM, VcsCluster
from vcslab.gfs2 import Gfs2Lab
from vcslab.report import Missing, node_events
from vcslab.story import wait_writing

from bench import failover_plot
from bench.report import BARS, ROOT, Metric, Report

NODES = (1, 2, 3)
VICTIMS = (2, 3, 1)
"In turns: also the node that has the others fenced."
RECOVERED = re.compile(r"dlm: shared: dlm_recover \d+ generation \d+ done")
REPLAYED = re.compile(r"fsid=\S+: jid=\d+: Done")
LIMIT_S, START_S = 90.0, 120.0
STARTS = 3


@dataclass(frozen=True, slots=True)
class Phases:
    """Milliseconds after the power cut."""

    detected: float
    view: float
    fenced: float
    dlm_recovered: float
    journal_replayed: float
    writes_resume: float


PHASES = {
    "detected": "first survivor noticed", "view": "every survivor has the new membership",
    "fenced": "the power switch has answered (self-fencing: the wait is over)",
    "dlm_recovered": "on every survivor", "journal_replayed": "the first survivor has replayed the victim's journal",
    "writes_resume": "every survivor has fsynced again",
}  # fmt: skip


def kernel_said(stack: Gfs2Lab, node: int, pattern: re.Pattern[str], since_ns: int) -> int:
    """When the node's kernel first said so after ``since_ns``. Raises Missing."""
    machine = stack[node]
    shift = machine.logs.printk_offset_ns + (machine.offset.boottime_ns if machine.offset else 0)
    for us, text in list(machine.logs.kmsg):
        if us * 1000 + shift > since_ns and pattern.search(text):
            return us * 1000 + shift
    raise Missing(f"node {node}: {pattern.pattern}")


def membership_ours(stack: Gfs2Lab, survivors: list[int], victim: int, cut_ns: int) -> tuple[int, int]:
    """(first notice, membership everywhere), host ns."""
    assert isinstance(stack, VcsCluster)
    noticed, views = [], []
    for node in survivors:
        events = [e for e in node_events(stack, node) if e["host_ns"] > cut_ns]
        noticed += [e["host_ns"] for e in events if e["event"] == "totem_state" and e.get("before") == "OPERATIONAL"][:1]
        found = [e["host_ns"] for e in events if e["event"] == "view_installed" and e.get("quorate") and victim not in e["members"]]
        if not found:
            raise Missing(f"node {node}: a view without node {victim}")
        views.append(found[0])
    return min(noticed), max(views)


def membership_classic(stack: Gfs2Lab, survivors: list[int], victim: int, cut_ns: int) -> tuple[int, int]:
    assert isinstance(stack, Classic)
    noticed, views = [], []
    for node in survivors:
        events = [(ns, what) for ns, what in stack.membership_events(node) if ns > cut_ns]
        noticed += [ns for ns, what in events if what == "failed"][:1]
        found = [ns for ns, what in events if what.startswith("formed") and f"left: {victim}" in what]
        if not found:
            raise Missing(f"node {node}: a membership without node {victim}")
        views.append(found[0])
    return min(noticed or views), max(views)


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    make: Callable[[Cluster], Gfs2Lab]
    membership: Callable[[Gfs2Lab, list[int], int, int], tuple[int, int]]
    fenced: Callable[[Gfs2Lab, list[int], int, int], int]
    ours: bool


def fenced_by_power(stack: Gfs2Lab, _survivors: list[int], victim: int, cut_ns: int) -> int:
    """When the power switch had answered."""
    done = [r.answered_ns for r in stack.lab.power.history
            if r.victim == victim and r.action == "off" and r.code == 0 and r.asked_ns > cut_ns]  # fmt: skip
    if not done:
        raise Missing("the fence")
    return min(done)


def fenced_by_lease(stack: Gfs2Lab, survivors: list[int], victim: int, cut_ns: int) -> int:
    """When every survivor counted the victim as fenced."""
    assert isinstance(stack, VcsCluster)
    told: list[int] = []
    for node in survivors:
        found = [e["host_ns"] for e in node_events(stack, node)
                 if e["host_ns"] > cut_ns and e["event"] == "fence_result" and e.get("nodeid") == victim and e.get("ok")]  # fmt: skip
        if not found:
            raise Missing(f"node {node}: the end of the victim's lease")
        told.append(found[0])
    return max(told)


def without_switch(lab: Cluster) -> Gfs2Lab:
    return VcsCluster(lab, fence=False)


def ours(lab: Cluster) -> Gfs2Lab:
    return VcsCluster(lab)


def classic(tuning: Tuning) -> Callable[[Cluster], Gfs2Lab]:
    return lambda lab: Classic(lab, tuning)


CONTESTANTS = {
    "ours": Contestant("ours", ours, membership_ours, fenced_by_power, True),
    "default": Contestant(Tuning().name, classic(Tuning()), membership_classic, fenced_by_power, False),
    "tuned": Contestant(Tuning(1000).name, classic(Tuning(1000)), membership_classic, fenced_by_power, False),
    "self": Contestant("ours, self-fencing", without_switch, membership_ours, fenced_by_lease, True),
}


def measure(stack: Gfs2Lab, who: Contestant, victim: int, cut_ns: int, logs: dict[int, str]) -> Phases:
    """Raises Missing while something has not happened."""
    survivors = sorted(logs)
    detected, view = who.membership(stack, survivors, victim, cut_ns)
    fenced = who.fenced(stack, survivors, victim, cut_ns)
    recovered = {n: kernel_said(stack, n, RECOVERED, cut_ns) for n in survivors}
    replayed = []
    for node in survivors:
        try:
            replayed.append(kernel_said(stack, node, REPLAYED, cut_ns))
        except Missing:
            continue  # another survivor was quicker
    if not replayed:
        raise Missing("the replay of the journal")
    writes = []
    for node, log in logs.items():
        done = [r["host_ns"] for r in stack.written(node, log) if r["host_ns"] > recovered[node]]
        if not done:
            raise Missing(f"node {node}: a write after the recovery")
        writes.append(min(done))
    stamps = (detected, view, fenced, max(recovered.values()), min(replayed), max(writes))
    return Phases(*(round((ns - cut_ns) / 1e6, 1) for ns in stamps))


def start(stack: Gfs2Lab, *nodes: int) -> None:
    """The stack's daemons on ``nodes``, and the DLM's word about its recoveries."""
    assert isinstance(stack, (VcsCluster, Classic))
    stack.lab.each(lambda m: stack.install(m.spec.node), *nodes)
    stack.lab.each(lambda m: stack.start(m.spec.node), *nodes)
    stack.wait_quorate(*NODES, timeout=START_S)
    stack.wait_dlm(*nodes, timeout=START_S)
    for node in nodes:
        stack[node].write(f"{DLM}/log_info", "1")


def one_kill(stack: Gfs2Lab, who: Contestant, victim: int) -> Phases:
    """All write, ``victim`` loses its power, the others go on; then it boots and mounts again."""
    logs = {n: stack.start_writer(n) for n in NODES}
    wait_writing(stack, logs, 10)
    cut_ns = stack[victim].power_off()
    survivors = {n: log for n, log in logs.items() if n != victim}
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            phases = measure(stack, who, victim, cut_ns, survivors)
            break
        except Missing as missing:
            if time.monotonic() > deadline:
                raise AssertionError(f"{who.name}: no failover within {LIMIT_S:.0f} s: {missing}. {stack.lab.where()}") from missing
        time.sleep(0.1)
    for node in survivors:
        stack.stop_writers(node)
    stack[victim].boot()
    start(stack, victim)
    stack.mount(victim)
    return phases


class NotStarted(LabError):
    """No cluster came up: corosync with token=1000 on a busy machine fences a node before it has begun."""


def contest(who: Contestant, runs: int, folder: Path) -> list[Phases]:
    """All runs of one contestant. A peer whose cluster does not start, or breaks down (an emulated processor is sometimes wrong), begins
    anew with the runs that are left; ours does not. Raises LabError or AssertionError."""
    print(f"== {who.name}", flush=True)
    done: list[Phases] = []
    for attempt in range(1, STARTS + 1):
        shutil.rmtree(folder, ignore_errors=True)  # an earlier run's logs are not this one's
        try:
            _contest(who, runs, folder, done)
            return done
        except (LabError, AssertionError) as error:
            if who.ours and not isinstance(error, NotStarted):
                raise
            print(f"   cluster {attempt} of {STARTS}: {error}", flush=True)
    raise LabError(f"{who.name}: {len(done)} of {runs} runs in {STARTS} clusters")


def _contest(who: Contestant, runs: int, folder: Path, done: list[Phases]) -> None:
    with Cluster(nodes=len(NODES), shared_disk_mib=256, artifacts=folder) as lab:
        stack = who.make(lab)
        try:
            start(stack, *NODES)
        except LabError as error:
            raise NotStarted(str(error)) from error
        stack.mkfs(1)
        for node in NODES:
            stack.mount(node)
        while len(done) < runs:
            done.append(one_kill(stack, who, VICTIMS[len(done) % len(VICTIMS)]))
            print(f"   {done[-1]}", flush=True)


def metrics(found: dict[str, list[Phases]]) -> list[Metric]:
    """Each phase of ours beside each peer's; the two of the issue by name."""
    mine = found.get("ours", [])
    peers = [(key, CONTESTANTS[key].name, found[key]) for key in ("default", "tuned") if found.get(key)]
    rows = []
    for f in fields(Phases):
        values = [getattr(p, f.name) for p in mine]
        for _, name, theirs in peers or [("", "", [])]:
            if mine:
                rows.append(Metric.of(f.name, "ms", values, [getattr(p, f.name) for p in theirs], name, PHASES[f.name]))
    for key, name, theirs in peers:
        if mine:
            resumed = [p.writes_resume for p in mine]
            rows.append(Metric.of(f"writes_resume_vs_{key}", "ms", resumed, [p.writes_resume for p in theirs], name))
    rows += [Metric.of(f"self_fencing_{f.name}", "ms", [getattr(p, f.name) for p in found["self"]], (), "", PHASES[f.name])
             for f in fields(Phases) if found.get("self")]  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, by comma")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    args = parser.parse_args()
    only = args.only.split(",")
    unknown = set(only) - set(CONTESTANTS)
    if unknown:
        print(f"unknown contestants: {', '.join(sorted(unknown))}; there are {', '.join(CONTESTANTS)}", file=sys.stderr)
        return 2
    report = Report("failover", args.folder)
    found: dict[str, list[Phases]] = {}
    failed: dict[str, str] = {}
    for key in only:
        try:
            found[key] = contest(CONTESTANTS[key], args.runs, args.folder / "failover" / key)
        except (LabError, AssertionError) as error:
            failed[key] = str(error)
            report.tables["failed"] = failed
            print(f"   {error}", file=sys.stderr, flush=True)
        report.tables["runs"] = {k: [dict(zip(PHASES, astuple(p), strict=True)) for p in v] for k, v in found.items()}
        report.write()
    report.add(*metrics(found))
    report.write()
    failover_plot.draw(report, {CONTESTANTS[k].name: [astuple(p) for p in v] for k, v in found.items()}, list(PHASES))
    missed = report.missed()
    judged = sum(m.metric in BARS for m in report.metrics)
    print(f"\n{report.path}: of {judged} metrics with a bar {len(missed)} missed" + "".join(f"\n  missed: {m.metric}" for m in missed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
