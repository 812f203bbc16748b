# SPDX-License-Identifier: GPL-2.0-only
"""Runs seeds: ``python -m tests.sim.batch --seconds 480`` as many as fit, ``--count N`` so many, ``--seed S --count 1 --trace`` one.

The verdict needs more than silent checkers: the run must have visited every cell of the engine's state table that has an action, every
branch of recovery, and the events of a cluster's life that EXERCISED names. The first failing seed of the engine is shrunk and printed
as a scenario; the others print how to replay them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.sim import marks

if TYPE_CHECKING:
    from tests.sim.run import Outcome

REPLAYED = 6
"So many seeds are run a second time, in a process of their own: the same seed must give the same trace."
PROCESSES = 2
CHUNK = 5
ENOUGH = 1000
"""A run of so many seeds that does not show all of EXERCISED, of the state table and of the required branches proves nothing about
them, and fails. A run bounded by time has at least so many."""
EXERCISED = frozenset({
    "configuration", "view_installed", "node_failed", "node_joined", "node_left", "obligation", "fence_launched", "fence_result",
    "group_stop", "group_start", "group_finish", "group_left", "merged", "waiting_for_all", "new", "readmitted",
    "votes_changed", "vote_withdrawn", "maintenance_on", "maintenance_off", "shutdown", "expected_votes",
    "witness_granted",
})
SHRINK_SECONDS = 90.0
MS = 1_000_000


@dataclass(slots=True)
class Tally:
    """What all seeds together have shown."""

    began: float
    coverage: marks.Coverage
    seeds: Counter[str] = field(default_factory=Counter)
    events: int = 0
    seen: set[str] = field(default_factory=set)
    cells: set[tuple[int, int]] = field(default_factory=set)
    measures: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    first: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds[outcome.layer] += 1
        self.events += outcome.events
        self.seen |= outcome.seen
        self.cells |= outcome.cells
        for what, ns in outcome.measures:
            self.measures.setdefault(what, []).append(ns)
        if len(self.first) < REPLAYED:
            self.first.append(outcome)

    @property
    def count(self) -> int:
        return sum(self.seeds.values())

    def progress(self) -> str:
        seconds = time.monotonic() - self.began
        layers = ", ".join(f"{k} {v}" for k, v in sorted(self.seeds.items()))
        return (f"{seconds:6.0f} s  {self.count} seeds ({layers}), {self.events} events, {self.events / seconds:.0f}/s, "
                f"{len(self.failed)} failed")


def run_chunk(seeds: tuple[int, ...], layer: str) -> tuple[list[Outcome], dict[str, bytes]]:
    """In a worker: the outcomes, without the logs of what passed, and the branches taken in this process so far."""
    from tests.sim.run import run

    outcomes = []
    for seed in seeds:
        outcome = run(seed, layer=layer)
        outcomes.append(replace(outcome, log=()) if outcome.ok else outcome)
    return outcomes, marks.taken()


def batch(first: int, count: int, seconds: float, layer: str, shrink_seconds: float) -> int:
    """Run seeds from ``first``: ``count`` of them, or as many as fit into ``seconds`` (at least ENOUGH). The exit code."""
    from tests.sim import run  # noqa: F401  (before the workers are forked, so that they share what is compiled)

    print(f"seeds from {first}: {f'{count} of them' if count else f'{seconds:.0f} s'}{layer and f', layer {layer}'}", flush=True)
    tally = Tally(time.monotonic(), marks.Coverage())
    minute = 1
    seed = first
    running: deque[Any] = deque()
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        while True:
            elapsed = time.monotonic() - tally.began
            more = seed < first + count if count else (elapsed < seconds or seed - first < ENOUGH)
            while more and len(running) < 2 * PROCESSES:
                size = min(CHUNK, first + count - seed) if count else CHUNK
                if size <= 0:
                    break
                running.append(pool.apply_async(run_chunk, (tuple(range(seed, seed + size)), layer)))
                seed += size
            if not running:
                break
            outcomes, hits = running.popleft().get()
            tally.coverage.add(hits)
            for outcome in outcomes:
                tally.add(outcome)
                if not outcome.ok:
                    report(tally, outcome, shrink_seconds)
            if elapsed > 60 * minute:
                minute = int(elapsed // 60) + 1
                print(tally.progress(), flush=True)
    return verdict(tally, layer)


def report(tally: Tally, outcome: Outcome, shrink_seconds: float) -> None:
    """A failure: the rule, what the seed drew, how to see it again; the first one also shrunk, or with its log."""
    from tests.sim.world import columns

    again = not tally.failed
    tally.failed[outcome.seed] = outcome.name
    if again and outcome.layer != "engine":
        print("\n".join(map(columns, outcome.log[-200:])))
    print(f"FAILED {outcome.name} ({outcome.layer}, seed {outcome.seed}): {outcome.detail[:1000]}\n  drawn: {outcome.plan}\n"
          f"  replay: {replay_command(outcome)}", flush=True)
    if again and outcome.layer == "engine" and shrink_seconds:
        from tests.sim.tape import explain

        print(explain(outcome.seed, seconds=shrink_seconds), flush=True)


def replay_command(outcome: Outcome) -> str:
    return f"make sim N=1 SEED={outcome.seed} LAYER={outcome.layer}"


def replay_differs(outcome: Outcome) -> bool:
    """Run the seed again in a new interpreter, with another hash seed and without marks, and compare the fingerprints."""
    command = [sys.executable, "-m", "tests.sim.batch", "--hash", f"--seed={outcome.seed}", f"--layer={outcome.layer}"]
    environment = {**os.environ, "PYTHONHASHSEED": str(outcome.seed % 1000 + 1)}
    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()
    return again != outcome.trace_hash


def verdict(tally: Tally, layer: str) -> int:
    from membership.totem.states import TABLE

    print(tally.progress())
    for what, values in sorted(tally.measures.items()):
        values.sort()
        told = ", ".join(f"p{p} {values[min(len(values) - 1, len(values) * p // 100)] / MS:.1f}" for p in (50, 99))
        print(f"{what}: {told}, max {values[-1] / MS:.1f} ms ({len(values)} times)")
    bad = list(tally.failed)
    for outcome in tally.first:
        if replay_differs(outcome):
            bad.append(outcome.seed)
            print(f"FAILED the same seed gave two traces ({outcome.layer})\n  replay: {replay_command(outcome)}")
    wanted = {(int(s), int(e)) for (s, e), cell in TABLE.items() if cell.action}
    names = {(int(s), int(e)): f"({s.name}, {e.name})" for s, e in TABLE}
    holes: list[str] = []
    if layer in ("", "engine"):
        missed = [names[cell] for cell in sorted(wanted - tally.cells)]
        branches = tally.coverage.missed_required()
        print(f"coverage: {len(wanted) - len(missed)} of {len(wanted)} cells with an action; {tally.coverage.line()}")
        holes += [f"cell {m}" for m in missed] + [f"branch {b}" for b in branches]
    if layer == "":
        holes += [f"event {e}" for e in sorted(EXERCISED - tally.seen)]
    if holes and tally.count >= ENOUGH:
        print("FAILED these seeds never showed:\n  " + "\n  ".join(holes))
    elif holes:
        print(f"not shown by these few seeds: {', '.join(holes)}")
    failed = len(set(bad))
    print(f"{tally.count - failed} passed, {failed} failed")
    return 1 if failed or (holes and tally.count >= ENOUGH) else 0


def show(seed: int, layer: str, full: bool, shrink_seconds: float) -> int:
    """One seed, with its log in columns."""
    from tests.sim.run import run
    from tests.sim.tape import explain
    from tests.sim.world import columns

    outcome = run(seed, layer=layer)
    lines = [line for line in outcome.log if full or (" told " not in line and " submit " not in line)]
    print("\n".join(map(columns, lines)))
    print(f"seed {seed} ({outcome.layer}): {outcome.plan}\n{outcome.events} events, trace {outcome.trace_hash}")
    if not outcome.ok:
        print(f"FAILED {outcome.name}: {outcome.detail}")
        if outcome.layer == "engine" and shrink_seconds:
            print(explain(seed, seconds=shrink_seconds))
    print(f"{int(outcome.ok)} passed, {int(not outcome.ok)} failed")
    return int(not outcome.ok)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=lambda s: int(s, 0), default=1)
    parser.add_argument("--count", type=int, default=0, help="so many seeds, instead of --seconds")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--layer", choices=("oracle", "totem", "engine"), default="", help="the layer of every seed")
    parser.add_argument("--trace", action="store_true", help="one seed, with its log")
    parser.add_argument("--full", action="store_true", help="with --trace: also every message")
    parser.add_argument("--hash", action="store_true", help="print the trace hash of one seed, nothing else")
    parser.add_argument("--shrink", type=float, default=SHRINK_SECONDS, help="seconds for making the first failure short; 0: do not")
    args = parser.parse_args(arguments)
    if args.hash:
        from tests.sim.run import run

        print(run(args.seed, layer=args.layer).trace_hash)
        return 0
    if args.trace:
        return show(args.seed, args.layer, args.full, args.shrink)
    marks.install()
    return batch(args.seed, args.count, args.seconds, args.layer, args.shrink)


if __name__ == "__main__":
    sys.exit(main())
