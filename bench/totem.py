# SPDX-License-Identifier: GPL-2.0-only
"""`make bench-totem`: our engine beside corosync. ONLY=kill,silent,leave,throughput,latency,loaded,frozen,growth; RUNS, NODES, PEER=0."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import calm, detect, growth, plot, speed
from bench.report import BARS, ROOT, Report, row

SECTIONS = ("kill", "silent", "leave", "throughput", "latency", "loaded", "frozen", "growth")
PAYLOADS = (64, 1300, 8192, 60000)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nodes", default="3,16", help="sizes of the ring for kill, silent and leave")
    parser.add_argument("--payloads", default=",".join(map(str, PAYLOADS)))
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the loaded run; the frozen one takes a tenth of it")
    parser.add_argument("--no-peer", action="store_true", help="ours alone: figures without ratios")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    args = options()
    only = [s for s in args.only.split(",") if s]
    unknown = set(only) - set(SECTIONS)
    if unknown:
        print(f"unknown sections: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    report = Report("totem", args.folder)
    kinds = [s for s in ("kill", "silent", "leave") if s in only]
    if kinds:
        detect.run(report, kinds, numbers(args.nodes), args.runs, not args.no_peer)
    if {"throughput", "latency"} & set(only):
        speed.run(report, only, numbers(args.payloads), args.runs, not args.no_peer)
    if {"loaded", "frozen"} & set(only):
        calm.run(report, only, args.minutes)
    if "growth" in only:
        growth.run(report)
    report.write()
    plot.draw(report)
    print("\n" + "\n".join(row(m) for m in report.metrics))
    missed = report.missed()
    judged = sum(m.metric in BARS for m in report.metrics)
    print(f"\n{report.path}: {len(report.metrics)} metrics; of {judged} with a bar {len(missed)} missed"
          + "".join(f"\n  missed: {m.metric}" for m in missed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
