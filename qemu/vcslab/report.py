# SPDX-License-Identifier: GPL-2.0-only
"""What a kill cost, made from events that were observed on the nodes and put on the host's clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vcslab.cluster import VcsCluster

PHASES = {
    "detected": "first survivor's engine noticed",
    "view": "view without the victim in every survivor's kernel",
    "fenced": "fence agent's success, ordered and known to all survivors",
    "dlm_recovered": "DLM recovered on every survivor",
    "journal_replayed": "GFS2 replayed the victim's journal",
    "first_write": "first fsynced write of a survivor after the recovery",
    "all_write": "every survivor has written again",
}


@dataclass(frozen=True, slots=True)
class Kill:
    """Milliseconds after the power cut; see PHASES."""

    detected: float
    view: float
    fenced: float
    dlm_recovered: float
    journal_replayed: float
    first_write: float
    all_write: float


class Missing(Exception):
    """A step of the failover has not been observed (yet)."""


def node_events(cluster: VcsCluster, node: int) -> list[dict[str, Any]]:
    """The node's events of this boot with ``host_ns``."""
    machine = cluster[node]
    shift = machine.offset.boottime_ns if machine.offset else 0
    return [e | {"host_ns": int(e["t"]) + shift} for e in machine.events()]


def measure(cluster: VcsCluster, victim: int, cut_ns: int, writers: Mapping[int, str]) -> Kill:
    """The phases of a kill; ``writers`` are the survivors' writer logs. Raises Missing while something has not happened."""
    survivors = sorted(writers)
    events = {n: [e for e in node_events(cluster, n) if e["host_ns"] > cut_ns] for n in survivors}

    def first(node: int, what: str, wanted: Callable[[dict[str, Any]], bool], after: int = cut_ns) -> int:
        for event in events[node]:
            if event["host_ns"] > after and wanted(event):
                return int(event["host_ns"])
        raise Missing(f"node {node}: {what}")

    def everywhere(what: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[int, int]:
        return {n: first(n, what, wanted) for n in survivors}

    detected = everywhere("loss of the token", lambda e: e["event"] == "totem_state" and e.get("before") == "OPERATIONAL")
    view = everywhere(
        "a quorate view without the victim",
        lambda e: e["event"] == "view_installed" and bool(e.get("quorate")) and victim not in e.get("members", [victim]),
    )
    fenced = everywhere(
        "the fence's result", lambda e: e["event"] == "fence_result" and e.get("nodeid") == victim and bool(e.get("ok"))
    )
    started = everywhere("the lockspace's start", lambda e: e["event"] == "ls_started")
    for node in survivors:
        if started[node] < fenced[node] - 5_000_000:  # both stamps are this node's; 5 ms for two processes writing them
            raise AssertionError(f"node {node} started its lockspace before it knew of the fence")
    recovered = {n: first(n, "the DLM's recovery", lambda e: e["event"] == "ls_recovered", started[n]) for n in survivors}
    replayed = []
    for node in survivors:
        replayed += [
            e["host_ns"] for e in events[node] if e["event"] == "gfs2_recovery" and str(e.get("result", "")).lower() == "done"
        ]
    if not replayed:
        raise Missing("GFS2's report that it replayed the journal")
    writes = {}
    for node, log in writers.items():
        done = [r["host_ns"] for r in cluster.written(node, log) if r["host_ns"] > recovered[node]]
        if not done:
            raise Missing(f"node {node}: a write after the recovery")
        writes[node] = min(done)

    def ms(ns: int) -> float:
        return round((ns - cut_ns) / 1e6, 1)

    return Kill(
        detected=ms(min(detected.values())),
        view=ms(max(view.values())),
        fenced=ms(max(fenced.values())),
        dlm_recovered=ms(max(recovered.values())),
        journal_replayed=ms(min(replayed)),
        first_write=ms(min(writes.values())),
        all_write=ms(max(writes.values())),
    )


def render(kills: Sequence[Kill]) -> str:
    """A table: a row per phase, a column per kill, and the median."""
    names = [f.name for f in fields(Kill)]
    head = f"{'ms after the power cut':24}" + "".join(f"{'kill ' + str(i + 1):>10}" for i in range(len(kills)))
    lines = [head + (f"{'median':>10}" if len(kills) > 1 else "")]
    for name in names:
        values = [getattr(k, name) for k in kills]
        line = f"{name.replace('_', ' '):24}" + "".join(f"{v:>10.1f}" for v in values)
        if len(values) > 1:
            line += f"{statistics.median(values):>10.1f}"
        lines.append(f"{line}   {PHASES[name]}")
    return "\n".join(lines)
