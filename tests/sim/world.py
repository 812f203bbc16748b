# SPDX-License-Identifier: GPL-2.0-only
"""A world with one clock: events in order of (time, tie), and nothing that the seed does not decide.

Time is integer nanoseconds. Randomness comes in streams by purpose, so that one kind of fault more does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

MS = 1_000_000
SECOND = 1_000_000_000
EVENTS_MAX = 8000
TRACE_TAIL = 4000
SCRIPT_TIE = 1 << 60
"Scripted actions come after everything else that is due at the same time, in the script's order."


class Violation(Exception):
    """A checker saw what must never happen; ``name`` is the invariant's."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name
        self.detail = detail


class World:
    def __init__(self, seed: int | str, events_max: int = EVENTS_MAX) -> None:
        self.seed = seed
        self.now = SECOND
        self.events = 0
        self.events_max = events_max
        self.log: deque[str] = deque(maxlen=TRACE_TAIL)
        "The newest lines of the trace, for people; ``columns`` makes them readable."
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tie = 0
        self._script = SCRIPT_TIE
        self._streams: dict[str, Random] = {}
        self._hash = hashlib.blake2b(digest_size=16)

    def rng(self, name: str) -> Random:
        """The stream of this name."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Random(f"{self.seed}/{name}")
        return stream

    def at(self, time: int, action: Callable[..., None], *args: Any) -> None:
        """Call ``action(*args)`` at ``time`` (ns; at once, after what is due now, if it has passed)."""
        self._tie += 1
        now = self.now
        heappush(self._heap, (time if time > now else now, self._tie, action, args))

    def after(self, delay: int, action: Callable[..., None], *args: Any) -> None:
        self._tie += 1
        heappush(self._heap, (self.now + delay, self._tie, action, args))

    def script(self, time: int, action: Callable[..., None], *args: Any) -> None:
        """As ``at``, behind everything else of that time."""
        self._script += 1
        heappush(self._heap, (max(time, self.now), self._script, action, args))

    def trace(self, *fields: object) -> None:
        """Part of the run's fingerprint and of its log."""
        line = f"{self.now} " + " ".join(map(str, fields))
        self._hash.update(line.encode())
        self.log.append(line)

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    def run(self, until: int, stop: Callable[[], bool] | None = None) -> bool:
        """Run to the time ``until``, to the limit of events, or until ``stop`` (asked after every event). True: stopped by it."""
        heap = self._heap
        while heap and heap[0][0] <= until and self.events < self.events_max:
            self.now, _tie, action, args = heappop(heap)
            self.events += 1
            action(*args)
            if stop is not None and stop():
                return True
        if self.events < self.events_max:
            self.now = max(self.now, until)
        return False


def columns(line: str) -> str:
    """A line of the trace for reading: time in ms, what, whom it concerns, the rest."""
    time, what, *rest = line.split(" ", 3)
    who = rest[0] if rest else ""
    return f"{int(time) / MS:12.3f} {what:<10} {who:>3}  {rest[1] if len(rest) > 1 else ''}".rstrip()
