# SPDX-License-Identifier: GPL-2.0-only
"""The figures as one picture beside the JSON: times and rates of both contestants, and the growth with the number of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from bench.report import Metric, Report

matplotlib.use("Agg")

from matplotlib import pyplot  # after the choice of a backend that needs no screen

OURS, PEER, OTHER = "#1b6ca8", "#c8553d", "#e0a458"
COSTS = ("silent", "form", "rejoin", "leave")


def _pairs(axes: Any, metrics: list[Metric], title: str, unit: str, log: bool) -> None:
    """A group of bars for each metric: ours, then each peer, with the range of the runs."""
    names = list(dict.fromkeys(m.metric for m in metrics))
    for at, name in enumerate(names):
        of = [m for m in metrics if m.metric == name]
        bars = [(of[0].ours, of[0].ours_min, of[0].ours_max, OURS)]
        bars += [(m.peer, m.peer_min or 0.0, m.peer_max or 0.0, colour) for m, colour in zip(of, (PEER, OTHER), strict=False)
                 if m.peer is not None]
        for i, (middle, least, most, colour) in enumerate(bars):
            axes.bar(at + 0.27 * (i - 1), middle, 0.25, color=colour, yerr=[[middle - least], [most - middle]], capsize=2)
            axes.annotate(f"{middle:,.0f}", (at + 0.27 * (i - 1), middle), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=20, ha="right")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=9)
    if log:
        axes.set_yscale("log")


def _growth(axes: Any, other: Any, rows: list[dict[str, Any]]) -> None:
    for where, style in (("simulated", "-o"), ("real", "--x")):
        of = [row for row in rows if row["where"] == where]
        sizes = [row["nodes"] for row in of]
        for cost in COSTS:
            axes.plot(sizes, [row[cost]["ms"] for row in of], style, label=f"{cost}, {where}", markersize=3, linewidth=1)
        other.plot(sizes, [row["idle_packets"] for row in of], style, color=OURS, label=f"at rest, per node and second, {where}")
        other.plot(sizes, [row["silent"]["packets"] / row["nodes"] for row in of], style, color=PEER, markersize=3,
                   label=f"one silent host, per node, {where}")
    for each, title, unit in ((axes, "time to a configuration", "ms"), (other, "packets", "packets")):
        each.set_xscale("log", base=2)
        each.set_yscale("log")
        each.set_xlabel("nodes")
        each.set_ylabel(unit)
        each.set_title(title, fontsize=9)
        each.legend(fontsize=6)


def draw(report: Report) -> Path:
    """Draw what was measured; returns the file's path."""
    figure, axes = pyplot.subplots(2, 3, figsize=(16, 9))
    groups = (
        ("detection and leave (log)", "ms", True, ("kill_", "silent_host_", "leave_")),
        ("throughput, client to client", "msg/s", True, ("throughput_",)),
        ("idle latency, client to client", "us", False, ("latency_idle_",)),
    )
    for axis, (title, unit, log, prefixes) in zip(axes[0], groups, strict=True):
        _pairs(axis, [m for m in report.metrics if m.metric.startswith(prefixes) and m.peer is not None], title, unit, log)
    rows = report.tables.get("growth", [])
    assert isinstance(rows, list)
    if rows:
        _growth(axes[1][0], axes[1][1], rows)
    peers = sorted({m.peer_name for m in report.metrics if m.peer_name})
    axes[1][2].axis("off")
    for i, (text, colour) in enumerate((("ours, encryption on", OURS), (f"peer: {', '.join(peers)}; encryption off", PEER))):
        axes[1][2].text(0, 0.8 - 0.1 * i, text, color=colour, fontsize=9, wrap=True)
    axes[1][2].text(0, 0.5, f"medians; the lines are least and most\n{report.head['commit']}\n{report.head['began']}", fontsize=8)
    figure.tight_layout()
    path = report.path.with_suffix(".png")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
