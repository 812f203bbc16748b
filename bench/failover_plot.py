# SPDX-License-Identifier: GPL-2.0-only
"""The failover as a picture: one bar per contestant, from the power cut to the writes, in the phases that it spent its time in."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from bench.report import Report

matplotlib.use("Agg")

from matplotlib import pyplot  # after the choice of a backend that needs no screen

COLOURS = ("#c8553d", "#e0a458", "#7d5ba6", "#1b6ca8", "#4c956c", "#888888")


def draw(report: Report, runs: dict[str, Sequence[Sequence[float]]], phases: list[str]) -> Path:
    """``runs``: contestant -> its runs' times of ``phases`` (ms after the cut). Medians as bars, every run's end as a dot."""
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.9 * len(runs)))
    for row, (_, values) in enumerate(runs.items()):
        middle = [statistics.median(column) for column in zip(*values, strict=True)]
        left = 0.0
        for phase, end, colour in zip(phases, middle, COLOURS, strict=True):
            width = max(0.0, end - left)
            axes.barh(row, width, left=left, color=colour, height=0.6, label=phase.replace("_", " ") if row == 0 else None)
            left = max(left, end)
        axes.scatter([v[-1] for v in values], [row] * len(values), s=12, color="black", zorder=3)
        axes.annotate(f" {left:,.0f} ms", (max(left, *(v[-1] for v in values)), row), va="center", fontsize=8)
    axes.set_yticks(range(len(runs)), list(runs), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms after the power cut; a colour ends when its phase was reached (medians), dots: writes resumed, each run")
    axes.legend(fontsize=7, loc="upper right")  # our bar is on top and leaves the room
    axes.set_title(f"power cut of one of three nodes under GFS2; {str(report.head['commit'])[:12]}, {report.head['began']}", fontsize=9)
    figure.tight_layout()
    path = report.path.with_suffix(".png")
    figure.savefig(path, dpi=110)
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vcs"}):
        figure.savefig(path.with_suffix(".svg"), metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    pyplot.close(figure)
    return path
