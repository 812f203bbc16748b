# SPDX-License-Identifier: GPL-2.0-only
"""The long fuzzing run: ``python -m tests.fuzz.run --frames 1000000`` (make fuzz-totem N=1000000).

Half of the frames come from a liar, half from outsiders, some of whom carry genuine frames to the wrong members; seeds of CHUNK frames
each, in two processes. Prints what was sent, what the honest nodes held, and the verdict.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from tests.fuzz.memory import resident_kb
from tests.fuzz.mutate import TYPES
from tests.fuzz.ring import Report, liar, outsider

CHUNK = 50_000
ATTACKS = ("outsider", "liar", "carrier", "liar")
PROCESSES = 2
RSS_GROWTH_KB = 30_000
"What a process that ran many chunks may hold more at its end than after its first one."


def one(job: tuple[str, int, int]) -> tuple[str, int, Report | None, str, int]:
    """(attack, seed, report, error, resident memory after it)."""
    attack, seed, frames = job
    try:
        report = liar(frames, seed) if attack == "liar" else outsider(frames, seed, attack == "carrier")
    except Exception as e:
        return attack, seed, None, f"{type(e).__name__}: {e}", 0
    return attack, seed, report, "" if report.flat() else f"memory grows: {report.memory}", resident_kb()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    chunks = max(2, -(-args.frames // CHUNK))
    jobs = [(ATTACKS[i % len(ATTACKS)], args.seed + i // len(ATTACKS), -(-args.frames // chunks)) for i in range(chunks)]
    began = time.monotonic()
    kinds: Counter[str] = Counter()
    types: set[int] = set()
    frames = configurations = failed = 0
    resident: list[int] = []
    with multiprocessing.Pool(min(PROCESSES, len(jobs))) as pool:
        for attack, seed, report, error, rss in pool.imap(one, jobs):
            if error:
                failed += 1
                print(f"FAILED {attack} seed {seed}: {error}", flush=True)
            if report is not None:
                kinds.update({f"{attack}/{k}": n for k, n in report.kinds.items()})
                types |= set(report.types)
                frames += report.frames
                configurations += report.configurations
                resident.append(rss)
                print(f"{attack} seed {seed}: {report.frames} frames, {report.configurations} configurations, objects held "
                      f"{report.memory[0]}..{report.memory[-1]}, resident {rss // 1024} MB", flush=True)
    print(f"{frames} frames in {time.monotonic() - began:.0f} s: " + ", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    missing = set(TYPES) - types
    if missing:
        print(f"FAILED never mutated: {sorted(missing)}")
        failed += 1
    if len(resident) > 4 and max(resident[-2:]) > max(resident[:2]) + RSS_GROWTH_KB:
        print(f"FAILED the processes grew: {resident} kB")
        failed += 1
    print(f"{failed} failed" if failed else "no exception, memory flat, outsiders unnoticed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
