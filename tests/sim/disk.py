# SPDX-License-Identifier: GPL-2.0-only
"""The shared disk and the locks that guard it, as they really are: who wrote what and when, and who believes to hold which lock.

A lock is granted by what the granting node's lockspace knows: the members of the event that it recovered for. A holder outside them is
taken for dead and its lock is given away; whether it *is* dead is what the checkers look at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Incarnation = tuple[int, int]
"(nodeid, boot)"
LOCKS = 3


@dataclass(slots=True)
class Write:
    at_ns: int
    who: Incarnation
    group: str
    lock: int


@dataclass(slots=True)
class SharedDisk:
    """One disk for all; ``holders`` is the union of the lock masters' knowledge."""

    writes: list[Write] = field(default_factory=list)
    holders: dict[tuple[str, int], Incarnation] = field(default_factory=dict)
    believed: dict[tuple[str, int], set[Incarnation]] = field(default_factory=dict)
    "Who acts as if it held the lock. A machine that is off believes nothing."

    def acquire(self, who: Incarnation, group: str, lock: int, members: frozenset[Incarnation]) -> bool:
        """Ask for a lock with the eyes of a lockspace that knows ``members``."""
        holder = self.holders.get((group, lock))
        if holder is not None and holder != who and holder in members:
            return False
        self.holders[group, lock] = who
        self.believed.setdefault((group, lock), set()).add(who)
        return True

    def release(self, who: Incarnation, group: str, lock: int) -> None:
        if self.holders.get((group, lock)) == who:
            del self.holders[group, lock]
        self.believed.get((group, lock), set()).discard(who)

    def power_off(self, who: Incarnation) -> None:
        """The machine writes no more. Its locks stay granted until a recovery without it."""
        for believers in self.believed.values():
            believers.discard(who)

    def write(self, at_ns: int, who: Incarnation, group: str, lock: int) -> None:
        self.writes.append(Write(at_ns, who, group, lock))
