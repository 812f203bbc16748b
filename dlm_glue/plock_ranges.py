# SPDX-License-Identifier: GPL-2.0-only
"""The POSIX locks of one file: ranges, owners, and who waits, in the order of the requests. Pure.

An owner is a node together with the kernel's `owner` (a process's table of files, or an open file for OFD locks). Locks of one owner never
conflict with each other: a new one replaces what it overlaps, so ranges are split, merged, upgraded and downgraded. A request that finds
no conflict is granted though others wait, as on one machine; those who wait are tried in their order whenever something is let go.
Nobody looks for deadlocks (fs/dlm has never done that).
"""

from __future__ import annotations

from typing import NamedTuple

END_MAX = (1 << 63) - 1
"Last byte of a file, OFFSET_MAX: to the end, wherever that will be."


class Lock(NamedTuple):
    """Bytes ``start`` to ``end``, both included."""

    node: int
    owner: int
    pid: int
    ex: bool
    start: int
    end: int


class Waiter(NamedTuple):
    """A request that waits."""

    ticket: int
    "The requesting node's own number for it."
    lock: Lock


class File:
    __slots__ = ("locks", "waiters")

    def __init__(self, locks: list[Lock] | None = None, waiters: list[Waiter] | None = None) -> None:
        self.locks = locks or []
        self.waiters = waiters or []

    def idle(self) -> bool:
        return not self.locks and not self.waiters

    def conflict(self, wanted: Lock) -> Lock | None:
        """The first lock of another owner that stands in the way."""
        for held in self.locks:
            if (
                held.start <= wanted.end
                and wanted.start <= held.end
                and (wanted.ex or held.ex)
                and (held.owner != wanted.owner or held.node != wanted.node)
            ):
                return held
        return None

    def lock(self, wanted: Lock) -> bool:
        """Take it; False if somebody stands in the way."""
        if self.locks:
            if self.conflict(wanted) is not None:
                return False
            self._put(wanted)
        else:
            self.locks.append(wanted)
        return True

    def unlock(self, node: int, owner: int, start: int, end: int) -> bool:
        """Let go of what the owner holds of a range; False if that was nothing."""
        locks = self.locks
        kept: list[Lock] = []
        for held in locks:
            if held.owner != owner or held.node != node or held.end < start or end < held.start:
                kept.append(held)
                continue
            if held.start < start:
                kept.append(held._replace(end=start - 1))
            if held.end > end:
                kept.append(held._replace(start=end + 1))
        changed = kept != locks
        self.locks = kept
        return changed

    def _put(self, wanted: Lock) -> None:
        """No conflict: replace what the owner holds of the range, and join what is alike and next to it."""
        node, owner, pid, ex, start, end = wanted
        kept: list[Lock] = []
        for held in self.locks:
            if held.owner != owner or held.node != node or held.end < start - 1 or end + 1 < held.start:
                kept.append(held)
            elif held.ex == ex:
                start, end = min(start, held.start), max(end, held.end)
            elif held.end < wanted.start or wanted.end < held.start:
                kept.append(held)  # of the other kind, and next to what was joined, not to what is wanted
            else:
                if held.start < wanted.start:
                    kept.append(held._replace(end=wanted.start - 1))
                if held.end > wanted.end:
                    kept.append(held._replace(start=wanted.end + 1))
        kept.append(Lock(node, owner, pid, ex, start, end))
        self.locks = kept

    def grant(self) -> list[Waiter]:
        """Give those who wait what is free now, in their order; they wait no more."""
        granted: list[Waiter] = []
        again = bool(self.waiters)
        while again:
            again = False  # a grant that downgrades its owner's lock can make room for one that waits longer
            left: list[Waiter] = []
            for waiter in self.waiters:
                if self.lock(waiter.lock):
                    granted.append(waiter)
                    again = True
                else:
                    left.append(waiter)
            self.waiters = left
            again = again and bool(left)
        return granted

    def cancel(self, wanted: Lock) -> Waiter | None:
        """Take back the newest request that is just like this one; None if none waits."""
        for at in range(len(self.waiters) - 1, -1, -1):
            if self.waiters[at].lock == wanted:
                return self.waiters.pop(at)
        return None

    def cancel_all(self, node: int, owner: int) -> list[Waiter]:
        """Take back all requests of an owner: its file was closed."""
        gone = [w for w in self.waiters if w.lock.owner == owner and w.lock.node == node]
        if gone:
            self.waiters = [w for w in self.waiters if w not in gone]
        return gone

    def purge(self, node: int) -> None:
        """A node is gone, with its locks and requests."""
        self.locks = [held for held in self.locks if held.node != node]
        self.waiters = [w for w in self.waiters if w.lock.node != node]

    def only(self, node: int) -> bool:
        """Nobody but ``node`` holds or wants anything."""
        return all(held.node == node for held in self.locks) and all(w.lock.node == node for w in self.waiters)
