# SPDX-License-Identifier: GPL-2.0-only
"""Locks and says when it held them: DLM locks through libdlm and flocks on GFS2. Runs in a virtual machine until SIGTERM.

    python3 -S -m tests.cluster.faults.locker LOCKSPACE FOLDER SEED

Each time a lock is had, two lines of JSON: ``{"lock": NAME, "mode": MODE, "from": T}`` after the grant and ``{"lock": NAME, "to": T}``
before the release is asked for, CLOCK_BOOTTIME in ns. So what is printed lies inside what was held, and two such intervals of
different nodes that overlap with incompatible modes are two holders at once, whoever says otherwise. Which lock, which mode and how
long follow from SEED.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from tests.cluster.dlm_lock import Lksb, Lockspace, now

MODES = {"CR": 1, "CW": 2, "PR": 3, "PW": 4, "EX": 5}
"libdlm's numbers (linux/dlmconstants.h)."
DRAWN = ("EX", "EX", "PW", "PR", "PR", "CW", "CR")
FLOCKS = (("EX", fcntl.LOCK_EX), ("PR", fcntl.LOCK_SH))
RESOURCES, FILES = 3, 2
HOLD_MS, PAUSE_MS = (3, 25), (10, 40)


class Chance:
    """A small generator (numerical recipes' constants); importing Python's takes a third of a second in an emulated machine."""

    def __init__(self, seed: int) -> None:
        self._state = (seed * 2654435761 + 12345) & 0xFFFFFFFF

    def below(self, limit: int) -> int:
        self._state = (self._state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self._state >> 8) % limit

    def ms(self, least_most: tuple[int, int]) -> float:
        least, most = least_most
        return (least + self.below(most - least + 1)) / 1000


def say(**fields: object) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def held(name: str, mode: str, chance: Chance, release: Callable[[], None]) -> None:
    """Called with the lock in hand."""
    say(lock=name, mode=mode, **{"from": now()})
    time.sleep(chance.ms(HOLD_MS))
    say(lock=name, to=now())
    release()


def dlm_turn(ls: Lockspace, chance: Chance) -> None:
    name, mode = f"r{chance.below(RESOURCES)}", DRAWN[chance.below(len(DRAWN))]
    lksb = Lksb()
    ls.lock(name, MODES[mode], 0, lksb)
    held(f"dlm:{name}", mode, chance, lambda: ls.unlock(lksb))


def flock_turn(files: list[int], chance: Chance) -> None:
    number, (mode, operation) = chance.below(len(files)), FLOCKS[chance.below(2)]
    fcntl.flock(files[number], operation)
    held(f"flock:{number}", mode, chance, lambda: fcntl.flock(files[number], fcntl.LOCK_UN))


def main(lockspace: str, folder: str, seed: int) -> int:
    chance = Chance(seed)
    ends: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    ls = Lockspace(lockspace)
    files = [os.open(f"{folder}/flock{n}", os.O_RDWR | os.O_CREAT, 0o644) for n in range(FILES)]
    while not ends:
        dlm_turn(ls, chance)
        flock_turn(files, chance)
        time.sleep(chance.ms(PAUSE_MS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
