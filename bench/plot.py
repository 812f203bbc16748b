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
COSTS = {"silent": "#c8553d", "form": "#4c956c", "rejoin": "#7d5ba6", "leave": "#e0a458"}
REST = OURS


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


def _growth(panels: Any, rows: list[dict[str, Any]]) -> None:
    """Solid: simulated; dashed: real."""
    times, packets, octets = panels
    for where, style in (("simulated", "-o"), ("real", "--x")):
        of = [row for row in rows if row["where"] == where]
        sizes = [row["nodes"] for row in of]
        for cost, colour in COSTS.items():
            times.plot(sizes, [row[cost]["ms"] for row in of], style, color=colour, markersize=4, linewidth=1, label=f"{cost}, {where}")
            packets.plot(sizes, [row[cost]["packets"] / row["nodes"] for row in of], style, color=colour, markersize=4, linewidth=1)
            octets.plot(sizes, [row[cost]["octets"] / row["nodes"] for row in of], style, color=colour, markersize=4, linewidth=1)
        packets.plot(sizes, [row["idle_packets"] for row in of], style, color=REST, label=f"at rest, per second, {where}")
        octets.plot(sizes, [row["idle_bytes"] for row in of], style, color=REST, label=f"at rest, per second, {where}")
    for each, title, unit in (
        (times, "time to a configuration", "ms"), (packets, "packets per node", "packets"), (octets, "bytes per node", "bytes")):
        each.set_xscale("log", base=2)
        each.set_yscale("log")
        each.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
        each.set_xlabel("nodes")
        each.set_ylabel(unit)
        each.set_title(title, fontsize=9)
        each.legend(fontsize=6)


def draw(report: Report) -> Path:
    """Draw what was measured; returns the file's path."""
    figure, axes = pyplot.subplots(2, 3, figsize=(16, 9))
    groups = (
        ("detection and leave (log)", "ms", True, ("kill_", "silent_host_", "leave_")),
        ("throughput at three nodes (log)", "msg/s", True, ("throughput_",)),
        ("idle latency at three nodes", "us", False, ("latency_idle_",)),
    )
    for axis, (title, unit, log, prefixes) in zip(axes[0], groups, strict=True):
        found = [m for m in report.metrics if m.metric.startswith(prefixes) and m.peer is not None]
        if found:
            _pairs(axis, found, title, unit, log)
        else:
            axis.axis("off")
    rows = report.tables.get("growth", [])
    assert isinstance(rows, list)
    if rows:
        _growth(axes[1], rows)
    else:
        for axis in axes[1]:
            axis.axis("off")
    peers = ", ".join(dict.fromkeys(m.peer_name for m in report.metrics if m.peer_name))
    figure.text(0.01, 0.005, f"ours, encryption on: blue; peer, encryption off: red and yellow: {peers}; lines from least to most; "
                f"{str(report.head['commit'])[:12]}, {report.head['began']}", fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    path = report.path.with_suffix(".png")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
