# SPDX-License-Identifier: GPL-2.0-only
"""Configuration changes without end (T21): ``python -m tests.fuzz.churn --changes 10000`` (make churn-totem N=10000).

One node stays, its two peers restart, leave, fall silent, are cut off and return, under load with fragments. What the one that stays
holds is counted at intervals, and must not grow once its bounded memories (retired incarnations, keys) are full.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.memory import reachable, resident_kb
from tests.scenarios.script import Script
from tests.sim.checkers.inside import J3Persisted, J5Memory

LOOKS = 10
WARM = 600
"Changes before the first look: they fill what is bounded (retired incarnations, keys)."
SLACK = 600
"Objects by which one look may differ from another: a store that is not empty, a queue."
RSS_SLACK_KB = 4000


class Churn:
    def __init__(self, seed: int | str) -> None:
        self.script = s = Script(3, seed=seed, jitter=True, checked=False, watch=())
        s.judge([J3Persisted(s.record, s.nodes), J5Memory(s.record)])  # not those that keep something of every process
        self.rng = s.world.rng("churn")
        self.changes = 0
        self.held: list[int] = []
        self.resident: list[int] = []
        s.load(15, size=400)
        s.load(40, 1, 2, size=6000, safe=True)

    def _together(self) -> None:
        self.script.ring(1, 2, 3, within=40_000)

    def once(self) -> None:
        """One disturbance, and everybody together again."""
        s, rng = self.script, self.rng
        node = rng.choice((2, 3))
        match rng.choices(("restart", "die", "leave", "both", "cut", "silent"), (40, 20, 20, 10, 2, 3))[0]:
            case "restart":
                s.restart(node, reboot=rng.random() < 0.3)
            case "die":
                s.die(node)
                s.run(rng.choice((3, 10)))
                s.start(node)
            case "leave":
                s.leave(node)
                s.run(rng.choice((1, 10)))
                s.start(node)
            case "both":
                s.restart(2, 3)
            case "cut":
                s.cut(2, 3)
                s.run(600)
                s.heal()
            case _:
                s.kill(node)
                s.run(500)
                s.start(node)
        s.run(rng.choice((2, 5, 12)))
        self._together()
        self.changes += len(s.seen[1].configurations) - 1
        for seen in s.seen.values():
            seen.forget()
        s.log.clear()
        s.world.events = 0

    def look(self) -> None:
        self.held.append(reachable(self.script.hosts[1].core))
        self.resident.append(resident_kb())

    def run(self, changes: int) -> None:
        for i in range(LOOKS):
            while self.changes < WARM + changes * (i + 1) // LOOKS:
                self.once()
            self.look()

    def verdict(self) -> str:
        """Empty when flat."""
        first = LOOKS // 3
        if max(self.held[first:]) > max(self.held[:first]) + SLACK:
            return f"node 1 holds more and more objects: {self.held}"
        if max(self.resident[first:]) > max(self.resident[:first]) + RSS_SLACK_KB:
            return f"the process grows: {self.resident} kB"
        return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    began = time.monotonic()
    churn = Churn(args.seed)
    churn.run(args.changes)
    print(f"{churn.changes} configurations at node 1 in {time.monotonic() - began:.0f} s\n"
          f"objects held {churn.held}\nresident kB {churn.resident}")
    text = churn.verdict()
    print(f"FAILED {text}" if text else "memory flat")
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main())
