# SPDX-License-Identifier: GPL-2.0-only
"""The figures: build/bench/NAME.json as DESIGN section 10 says, and the table that people read.

A metric's ``ratio`` is ours / peer, always: more is better for throughput, less for times. The bars are those of the issue tracker.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a metric has to reach: ``ours`` at most, or the ratio at least or at most."""

    most: float | None = None
    ratio_least: float = 0.0
    ratio_most: float = 0.0

    def met(self, ours: float, ratio: float | None) -> bool:
        if self.ratio_least and (ratio is None or ratio < self.ratio_least):
            return False
        if self.ratio_most and (ratio is None or ratio > self.ratio_most):
            return False
        return self.most is None or ours <= self.most

    def __str__(self) -> str:
        if self.ratio_least:
            return f">= {self.ratio_least}x"
        return f"<= {self.ratio_most}x" if self.ratio_most else f"<= {self.most:g}"


BARS: dict[str, Bar] = {
    "kill_to_configuration_3": Bar(most=25), "kill_to_configuration_16": Bar(most=60),
    "silent_host_3": Bar(most=350), "silent_host_16": Bar(most=500),
    "leave_3": Bar(most=10),
    "false_suspicion_loaded": Bar(most=0), "false_suspicion_frozen": Bar(most=0),
    "throughput_64": Bar(ratio_least=1.5), "throughput_1300": Bar(ratio_least=1.5),
    "throughput_8192": Bar(ratio_least=2), "throughput_60000": Bar(ratio_least=2.5),
    "writes_resume_vs_default": Bar(ratio_most=0.2), "writes_resume_vs_tuned": Bar(ratio_most=0.35), "dlm_recovered": Bar(most=1200),
    "latency_idle_median": Bar(ratio_most=1.0), "latency_idle_p99": Bar(ratio_most=1.0),
    "plock_alone_vs_default": Bar(ratio_least=10), "plock_contended_vs_default": Bar(ratio_least=1),
    "plock_contended_lock_longest_vs_default": Bar(most=300), "plock_alone_lock_longest_vs_default": Bar(most=300),
    "view_read_6.1": Bar(ratio_most=2), "view_read_6.12": Bar(ratio_most=2),
}


@dataclass(slots=True)
class Metric:
    metric: str
    unit: str
    ours: float
    ours_min: float
    ours_max: float
    peer: float | None
    peer_min: float | None
    peer_max: float | None
    peer_name: str
    ratio: float | None
    runs: int
    note: str = ""
    samples: list[float] = field(default_factory=list)
    peer_samples: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, metric: str, unit: str, ours: Sequence[float], peer: Sequence[float] = (), peer_name: str = "", note: str = "") -> Metric:
        middle = statistics.median(ours)
        other = statistics.median(peer) if peer else None
        return cls(
            metric, unit, middle, min(ours), max(ours), other, min(peer, default=None), max(peer, default=None), peer_name,
            middle / other if other else None, len(ours), note, list(ours), list(peer))


def _said(*argv: str) -> str:
    got = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    return got.stdout.strip()


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpu, "cores": os.cpu_count(), "memory_kb": int(memory), "kernel": platform.release(), "python": platform.python_version(),
        "corosync": _said("dpkg-query", "-W", "-f", "${Version}", "corosync"), "load_before": os.getloadavg(),
    }


class Report:
    """Collects metrics; ``write`` after each section, so that a run that is broken off leaves what it has."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / f"{name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics: list[Metric] = []
        self.tables: dict[str, object] = {}
        self.head = {
            "name": name, "machine": machine(), "commit": _said("git", "rev-parse", "HEAD"),
            "changed": bool(_said("git", "status", "--porcelain")),
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commands": [" ".join(["python", "-m", *sys.orig_argv[2:]])],
        }

    def command(self, text: str) -> None:
        """A command of the peer's or ours that a figure comes from."""
        commands = self.head["commands"]
        assert isinstance(commands, list)
        if text not in commands:
            commands.append(text)

    def add(self, *metrics: Metric) -> None:
        self.metrics += metrics
        for metric in metrics:
            print(row(metric), flush=True)

    def write(self) -> None:
        body = {**self.head, "metrics": [asdict(m) for m in self.metrics], **self.tables}
        self.path.write_text(json.dumps(body, indent=1) + "\n")

    def missed(self) -> list[Metric]:
        return [m for m in self.metrics if m.metric in BARS and not BARS[m.metric].met(m.ours, m.ratio)]

    def verdict(self) -> str:
        missed = self.missed()
        return "all bars met" if not missed else f"missed: {', '.join(m.metric for m in missed)}"


def row(m: Metric) -> str:
    peer = f"{m.peer:>12,.1f} [{m.peer_min:,.1f} .. {m.peer_max:,.1f}] {m.peer_name}" if m.peer is not None else ""
    ratio = f"{m.ratio:8.3f}x" if m.ratio is not None else " " * 9
    bar = BARS.get(m.metric)
    verdict = "" if bar is None else f"{bar}: {'met' if bar.met(m.ours, m.ratio) else 'MISSED'}"
    ours = f"{m.ours:>12,.1f} {m.unit:<6} [{m.ours_min:,.1f} .. {m.ours_max:,.1f}]"
    return f"{m.metric:<32} {ours} {ratio} {verdict:<18} {peer} {m.note}".rstrip()
