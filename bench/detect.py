# SPDX-License-Identifier: GPL-2.0-only
"""How long until all survivors have the new configuration: a killed process, a host that falls silent, a clean leave.

The victims take turns, so that the representative of the ring is among them. Between two episodes the ring rests: the figures are those
of an idle ring, which is where a failure is noticed last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.contest import Ring
from bench.corosync import Corosync, Setting
from bench.lab import Lab
from bench.ours import Ours
from bench.report import Metric, Report

REST_SECONDS = 1.0
METRIC = {"kill": "kill_to_configuration_{}", "silent": "silent_host_{}", "leave": "leave_{}"}
PEERS = (Setting(), Setting(token_ms=1000))


def episode(ring: Ring, what: str, victim: int) -> float:
    """Milliseconds from the deed to the last survivor's configuration; then all are together again."""
    time.sleep(REST_SECONDS)
    ring.mark()
    node = ring.nodes[victim]
    began = node.kill() if what == "kill" else node.leave() if what == "leave" else node.machine.cut()
    formed = ring.await_all([n for n in ring.nodes if n != victim])
    took = max(f.time_ns for f in formed.values()) - began
    ring.mark()
    if what == "silent":
        node.machine.mend()
    else:
        node.end()
        node.start()
    ring.await_all(ring.nodes)
    return took / 1e6


def episodes(ring: Ring, kinds: Sequence[str], runs: int) -> dict[str, list[float]]:
    ring.start()
    found: dict[str, list[float]] = {what: [] for what in kinds}
    numbers = sorted(ring.nodes)
    for what in kinds:
        for i in range(runs):
            victim = numbers[(i * (len(numbers) // 3 or 1)) % len(numbers)]
            found[what].append(episode(ring, what, victim))
            print(f"  {ring.name}, {len(numbers)} nodes, {what} {victim}: {found[what][-1]:.1f} ms", flush=True)
    return found


def of_peer(setting: Setting, kinds: Sequence[str], size: int, runs: int) -> dict[str, list[float]]:
    """The peer's settings run side by side, each in a lab of its own: their times are timeouts of seconds, at which nobody computes."""
    with Lab(size) as lab, Corosync(lab, setting) as ring:
        return episodes(ring, kinds, runs)


def run(report: Report, kinds: Sequence[str], sizes: Sequence[int], runs: int, peer: bool) -> None:
    for size in sizes:
        with Lab(size) as lab, Ours(lab) as ring:
            ours = episodes(ring, kinds, runs)
        if not peer:
            report.add(*(Metric.of(METRIC[what].format(size), "ms", ours[what]) for what in kinds))
            continue
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda setting, size=size: of_peer(setting, kinds, size, runs), PEERS))
        for setting, theirs in zip(PEERS, found, strict=True):
            report.command(f"corosync -f, {setting.name}, {size} nodes")
            report.add(*(Metric.of(METRIC[what].format(size), "ms", ours[what], theirs[what], setting.name) for what in kinds))
        report.write()
