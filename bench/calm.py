# SPDX-License-Identifier: GPL-2.0-only
"""Nobody is suspected who is only late: eight nodes on cores that are full of other work, and nodes that are frozen again and again.

Both runs must see no configuration at all. Each ends with a control: a host that really falls silent must be found, else the silence
before would prove nothing.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.detect import episode
from bench.lab import Lab
from bench.ours import Ours
from bench.report import Metric, Report

NODES = 8
FROZEN = 0.8
"Of the detection time that was just measured."
DETECTIONS = 5
FROZEN_SHARE = 0.1
"Of the loaded run's length."
TOGETHER = (1, 1, 1, 2, 3)
"How many nodes freeze at once."
PAUSE_SECONDS = (0.1, 0.6)
"Between two freezes: from no time to breathe to a ring at rest."


class Busy:
    """Two busy loops per core, at ordinary priority, as other work is."""

    def __enter__(self) -> Busy:
        self.loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
        return self

    def __exit__(self, *_exc: object) -> None:
        for loop in self.loops:
            loop.kill()
            loop.wait()


def changes(ring: Ours) -> list[str]:
    """Every configuration since the mark, of every node; how often they noticed what of each other is printed for people."""
    noticed = Counter(line.split()[3] for node in ring.nodes.values() for line in node.noticed())
    print("  noticed: " + ", ".join(f"{what} {count}" for what, count in sorted(noticed.items())), flush=True)
    return [f"node {n}: {line}" for n, node in ring.nodes.items() for line in node.configurations()]


def loaded(report: Report, minutes: float, ordinary: bool) -> None:
    suffix = "_ordinary" if ordinary else ""
    with Lab(NODES) as lab, Ours(lab, ordinary=ordinary) as ring:
        ring.start()
        time.sleep(1)
        with Busy():
            ring.mark()
            began = [node.cpu() for node in ring.nodes.values()]
            time.sleep(minutes * 60)
            used = [node.cpu() - before for node, before in zip(ring.nodes.values(), began, strict=True)]
            found = changes(ring)
            control = episode(ring, "silent", 2)
    note = f"{minutes:g} minutes, {NODES} nodes, {2 * (os.cpu_count() or 1)} busy loops on {os.cpu_count()} cores"
    note += ", engines at ordinary priority" if ordinary else ""
    report.add(
        Metric.of(f"false_suspicion_loaded{suffix}", "count", [float(len(found))], note=note),
        Metric.of(f"silent_host_{NODES}_loaded{suffix}", "ms", [control], note="control: the same ring and load, a host really cut"),
        Metric.of(f"idle_cpu_loaded{suffix}", "%", [100 * u / (minutes * 60) for u in used], note="of a core, per engine"))
    for line in found:
        print(f"  {line}", flush=True)


def frozen(report: Report, seconds: float) -> None:
    with Lab(NODES) as lab, Ours(lab) as ring:
        ring.start()
        detected = [episode(ring, "silent", 1 + i % NODES) for i in range(DETECTIONS)]
        limit = FROZEN * statistics.median(detected) / 1e3
        time.sleep(1)
        ring.mark()
        rng = random.Random(1)
        lengths: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frozen_now = [ring.nodes[n] for n in rng.sample(sorted(ring.nodes), rng.choice(TOGETHER))]
            began = [node.engine.send_signal(signal.SIGSTOP) for node in frozen_now]
            time.sleep(limit)
            lengths += [(node.engine.send_signal(signal.SIGCONT) - at) / 1e6 for node, at in zip(frozen_now, began, strict=True)]
            time.sleep(rng.uniform(*PAUSE_SECONDS))
        time.sleep(1)
        found = changes(ring)
        node = ring.nodes[3]
        ring.mark()
        node.engine.send_signal(signal.SIGSTOP)
        ring.await_all([n for n in ring.nodes if n != 3])
        node.engine.send_signal(signal.SIGCONT)
        ring.await_all(ring.nodes)
    report.add(
        Metric.of(f"silent_host_{NODES}", "ms", detected),
        Metric.of("false_suspicion_frozen", "count", [float(len(found))],
                  note=f"{len(lengths)} freezes in {seconds:.0f} s, {NODES} nodes; control: an endless freeze was found"),
        Metric.of("frozen_for", "ms", lengths, note=f"{FROZEN} of the detection time"))
    for line in found:
        print(f"  {line}", flush=True)


def run(report: Report, kinds: Sequence[str], minutes: float) -> None:
    if "frozen" in kinds:
        frozen(report, minutes * 60 * FROZEN_SHARE)
        report.write()
    if "loaded" in kinds:
        loaded(report, minutes, ordinary=False)
        report.write()
        loaded(report, minutes * FROZEN_SHARE, ordinary=True)
        report.write()
