# SPDX-License-Identifier: GPL-2.0-only
"""`make bench-kernel`: what the switch itself costs, inside of a virtual machine per kernel. RUNS, KERNELS, ONLY.

vcs_bench.ko measures what only code in the kernel can (a read of the view, when a callback is called); kernel_loop.c is the provider and
the reader. No peer: the bar of a read is an empty RCU section, in the same loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Cluster

from bench.report import ROOT, Metric, Report

PROGRAM = "/tmp/kernel_loop"
HANDLE = "bench"
DEBUGFS = "/sys/kernel/debug/vcs_bench"
PYTHON = {"PYTHONPATH": "/opt/vcs/src:/opt/vcs/lib"}
GROUPS = (1, 10, 100)
"Of a round, in parallel."
DUMPED_GROUPS = (250, 500, 1000)
NODES = (2_500, 5_000, 10_000)
TIMES = 40
LIMIT_S = 200.0


def build(folder: Path) -> bytes:
    """The provider and reader, static: the guests have no libraries of this machine."""
    program = folder / "kernel_loop"
    source = Path(__file__).with_name("kernel_loop.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-I", ROOT / "kmod/include/uapi", "-o", program, source], check=True)
    return program.read_bytes()


class Guest:
    """A machine with vcs.ko and one cluster at a time."""

    def __init__(self, lab: Cluster, program: bytes) -> None:
        self.lab = lab
        self.node = node = lab[1]
        node.run("modprobe vcs dry_run=1", 60, check=True)
        node.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug", 60, check=True)
        node.write(PROGRAM, program, mode=0o755)

    def switch(self, call: str) -> None:
        self.node.run(["python3", "-c", f"from vcs.netlink import KernelSwitch\nKernelSwitch().{call}"], 60, check=True, env=PYTHON)

    def loop(self, *argv: object) -> dict[str, Any]:
        said = self.node.run([PROGRAM, *map(str, argv)], LIMIT_S, check=True).out
        found: dict[str, Any] = json.loads(said)
        return found

    def begin(self, module: str, options: str = "") -> None:
        self.switch(f"cluster_add({HANDLE!r}, {HANDLE!r}, 1)")
        self.node.run(f"modprobe {module} {options}", 60, check=True)

    def end(self, module: str) -> None:
        """The provider's process is gone; once the switch has seen that, nothing holds a module, and who leaves has left."""
        self.lab.wait(lambda: self.node.run(f"rmmod {module}", 60).rc == 0, 30, f"{module} to go")
        self.switch(f"cluster_del({HANDLE!r})")

    def memory_kb(self) -> int:
        """Of the kernel's allocators, what nobody could give back left aside."""
        fields = dict(line.split(":") for line in self.node.run("cat /proc/meminfo", 30, check=True).out.splitlines())
        return sum(int(fields[name].split()[0]) for name in ("SUnreclaim", "VmallocUsed"))


def reads(guest: Guest, series: str, runs: int) -> list[Metric]:
    """The best of twenty in each run, in ns."""
    guest.begin("vcs_bench")
    found: dict[str, list[float]] = {"empty": [], "view": []}
    for _ in range(runs):
        for line in guest.node.run(f"cat {DEBUGFS}/reads", 60, check=True).out.splitlines():
            name, picoseconds = line.split()
            found[name].append(int(picoseconds) / 1000)
    guest.end("vcs_bench")
    note = f"best of {20 * runs}"
    return [Metric.of(f"view_read_{series}", "ns", [min(found["view"])], [min(found["empty"])], "empty RCU section", note)]


def views(guest: Guest, series: str, _runs: int) -> list[Metric]:
    guest.begin("vcs_bench")
    found = guest.loop("views", HANDLE, 200)
    guest.end("vcs_bench")
    return [Metric.of(f"view_set_{what}_{series}", "us", found[f"{what}_us"]) for what in ("called", "answered")]


def rounds(guest: Guest, series: str, _runs: int) -> list[Metric]:
    metrics = []
    for groups in GROUPS:
        guest.begin("vcs_bench", f"groups={groups}")
        found = guest.loop("rounds", HANDLE, 20)
        guest.end("vcs_bench")
        if found["groups"] != groups:
            raise RuntimeError(f"{found['groups']} groups instead of {groups}")
        metrics.append(Metric.of(f"round_{groups}_groups_{series}", "us", found["took_us"]))
    return metrics


def whole(found: dict[str, Any], expected: int, what: str) -> str:
    """A note for the table; raises unless every dump was whole and of one moment."""
    if found["least"] != expected or found["torn"]:
        raise RuntimeError(f"{what}: {found['least']} of {expected}, {found['torn']} torn")
    return f"{found['messages']} messages, begun anew {found['again']} times in {len(found['took_us'])}"


def dumped_groups(guest: Guest, series: str, _runs: int) -> list[Metric]:
    metrics = []
    for groups in DUMPED_GROUPS:
        before = guest.memory_kb()
        guest.begin("vcs_bench", f"groups={groups}")
        held = guest.memory_kb() - before
        found = guest.loop("groups", HANDLE, TIMES)
        guest.end("vcs_bench")
        metrics.append(Metric.of(f"dump_{groups}_groups_{series}", "us", found["took_us"], note=whole(found, groups, "groups")))
        metrics.append(Metric.of(f"memory_{groups}_groups_{series}", "kB", [held]))
    return metrics


def dumped_nodes(guest: Guest, series: str, _runs: int) -> list[Metric]:
    metrics = []
    for nodes in NODES:
        guest.begin("vcs_test_provider")
        found = guest.loop("nodes", HANDLE, TIMES, nodes)
        guest.end("vcs_test_provider")
        note = f"{whole(found, nodes, 'nodes')}; {found['changes']} views among them"
        metrics.append(Metric.of(f"dump_{nodes}_nodes_{series}", "us", found["took_us"], note=note))
    return metrics


PARTS: dict[str, Callable[[Guest, str, int], list[Metric]]] = {
    "reads": reads, "views": views, "rounds": rounds, "groups": dumped_groups, "nodes": dumped_nodes,
}


def growth(metrics: list[Metric]) -> list[str]:
    """What doubling the size does to the best time and to the memory, for the record: 2 is linear."""
    lines = []
    by_name = {m.metric: m for m in metrics}
    for name, m in by_name.items():
        kind, size, rest = name.split("_", 2)
        if kind not in ("dump", "memory") or (half := by_name.get(f"{kind}_{int(size) // 2}_{rest}")) is None:
            continue
        lines.append(f"{name}: {m.ours_min / max(half.ours_min, 1):.2f} times that of half as many")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kernels", default="6.1 6.12", help="series, by space")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := set(only) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    report = Report("kernel", ROOT / "build/bench")
    with tempfile.TemporaryDirectory(prefix="vcs-kernel-") as folder:
        program = build(Path(folder))
    for series in options.kernels.split():
        with Cluster(1, series, cpus=2, artifacts=ROOT / "build/artifacts/bench-kernel" / series) as lab:
            guest = Guest(lab, program)
            for part in only:
                report.add(*PARTS[part](guest, series, options.runs))
                report.write()
    report.tables["growth"] = growth(report.metrics)
    print("\n".join(growth(report.metrics)))
    report.write()
    print(report.verdict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
