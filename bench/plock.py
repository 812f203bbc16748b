# SPDX-License-Identifier: GPL-2.0-only
"""`make bench-plock`: fcntl locks on GFS2, dlm_glue beside dlm_controld in the same machines. RUNS, PLOCK_SECONDS.

Two nodes run plock_loop.c: lock one byte, unlock it, again. One node alone on a file, then both on one byte. dlm_controld with its default,
where each operation is an ordered message, and with plock_ownership=1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from harness import Cluster
from vcslab.classic import Classic, Tuning
from vcslab.cluster import VcsCluster
from vcslab.gfs2 import MOUNTPOINT, Gfs2Lab

from bench.report import ROOT, Metric, Report

matplotlib.use("Agg")

from matplotlib import pyplot  # after the choice of a backend that needs no screen

PROGRAM = "/tmp/plock_loop"
CASES = {"alone": (1,), "contended": (1, 2)}
"A file each."


@dataclass(slots=True)
class Figures:
    """Of one stack and case, one entry a run."""

    pairs: list[float] = field(default_factory=list)
    "Per second, of all nodes together."
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    max_ms: list[float] = field(default_factory=list)


def build(folder: Path) -> bytes:
    """The workload, static: the guests have no libraries of this machine."""
    program = folder / "plock_loop"
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", program, Path(__file__).with_name("plock_loop.c")], check=True)
    return program.read_bytes()


def ours(lab: Cluster) -> Gfs2Lab:
    """Node 1 has two votes: vcsd takes no cluster in which both halves of a split are quorate."""
    stack = VcsCluster(lab)
    stack.toml = stack.toml.replace('name = "node1"\n', 'name = "node1"\nvotes = 2\n')
    stack.up(1, 2)
    return stack


def classic(lab: Cluster, ownership: bool) -> Gfs2Lab:
    stack = Classic(lab, Tuning(plock_ownership=ownership))
    stack.up(1, 2)
    return stack


STACKS: dict[str, Callable[[Cluster], Gfs2Lab]] = {
    "ours": ours,
    "default": lambda lab: classic(lab, False),
    "ownership": lambda lab: classic(lab, True),
}
NAMES = {"ours": "dlm_glue", "default": "dlm_controld", "ownership": "dlm_controld plock_ownership=1"}


def once(stack: Gfs2Lab, case: str, seconds: float, figures: Figures) -> None:
    jobs = {n: stack[n].spawn(f"exec {PROGRAM} {MOUNTPOINT}/{case} 0 {seconds}", log="plock_loop") for n in CASES[case]}
    stack.wait(lambda: all(j.rc is not None for j in jobs.values()), seconds + 60, "the workload to end")
    said = []
    for n, job in jobs.items():
        text = job.log.read_text()
        if job.rc:
            raise RuntimeError(f"node {n}: {text}")
        said.append(json.loads(text.splitlines()[-1]))
    figures.pairs.append(sum(s["pairs"] / s["seconds"] for s in said))
    figures.p50_ms.append(max(s["p50_us"] for s in said) / 1000)
    figures.p99_ms.append(max(s["p99_us"] for s in said) / 1000)
    figures.max_ms.append(max(s["max_us"] for s in said) / 1000)


def measure(name: str, program: bytes, runs: int, seconds: float, artifacts: Path) -> dict[str, Figures]:
    """All cases of one stack, on two machines that were just booted."""
    found = {case: Figures() for case in CASES}
    with Cluster(2, shared_disk_mib=512, artifacts=artifacts / name) as lab:
        stack = STACKS[name](lab)
        stack.mkfs(1, journals=2)
        for n in (1, 2):
            stack.mount(n)
            stack[n].write(PROGRAM, program, mode=0o755)
        for run in range(runs):
            for case in CASES:
                once(stack, case, seconds, found[case])
                print(f"{NAMES[name]}: run {run + 1}, {case}: {found[case].pairs[-1]:.0f} pairs/s, lock {found[case].p50_ms[-1]:.3f} ms "
                      f"(p99 {found[case].p99_ms[-1]:.2f}, longest {found[case].max_ms[-1]:.1f})", flush=True)
    return found


def metrics(all_of: dict[str, dict[str, Figures]]) -> list[Metric]:
    found = []
    for peer in ("default", "ownership"):
        for case in CASES if {"ours", peer} <= all_of.keys() else ():
            us, them, name = all_of["ours"][case], all_of[peer][case], NAMES[peer]
            found.append(Metric.of(f"plock_{case}_vs_{peer}", "pairs/s", us.pairs, them.pairs, name))
            found.append(Metric.of(f"plock_{case}_lock_p50_vs_{peer}", "ms", us.p50_ms, them.p50_ms, name))
            found.append(Metric.of(f"plock_{case}_lock_p99_vs_{peer}", "ms", us.p99_ms, them.p99_ms, name))
            found.append(Metric.of(f"plock_{case}_lock_longest_vs_{peer}", "ms", us.max_ms, them.max_ms, name))
    return found


def draw(all_of: dict[str, dict[str, Figures]], path: Path) -> None:
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for axes, case in zip(panels, CASES, strict=True):
        for at, cases in enumerate(all_of.values()):
            values = sorted(cases[case].pairs)
            middle = values[len(values) // 2]
            axes.bar(at, middle, yerr=[[middle - values[0]], [values[-1] - middle]], capsize=3)
            axes.annotate(f"{middle:,.0f}", (at, middle), ha="center", va="bottom", fontsize=7)
        axes.set_xticks(range(len(all_of)), [NAMES[n].replace(" ", "\n") for n in all_of], fontsize=7)
        axes.set_ylabel("lock + unlock, pairs/s")
        axes.set_title({"alone": "a file that one node uses", "contended": "one byte, two nodes"}[case], fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default=",".join(STACKS), help="stacks, by comma")
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := set(only) - set(STACKS):
        parser.error(f"unknown stacks: {', '.join(sorted(unknown))}; there are {', '.join(STACKS)}")
    report = Report("plock", ROOT / "build/bench")
    all_of: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="vcs-plock-") as folder:
        program = build(Path(folder))
        for name in only:
            all_of[name] = measure(name, program, options.runs, options.seconds, ROOT / "build/artifacts/bench-plock")
    report.add(*metrics(all_of))
    draw(all_of, report.path.with_suffix(".png"))
    report.write()
    print(report.verdict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
