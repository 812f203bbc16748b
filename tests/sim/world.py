# SPDX-License-Identifier: GPL-2.0-only
"""A world with one clock: events in order of (time, tie), and nothing that the seed does not decide.

Time is integer nanoseconds. Randomness comes in streams by purpose, so that one kind of fault more does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable
from random import Random

MS = 1_000_000
SECOND = 1_000_000_000
EVENTS_MAX = 8000
TRACE_TAIL = 4000


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
        "The newest lines of the trace, for people."
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._tie = 0
        self._streams: dict[str, Random] = {}
        self._hash = hashlib.blake2b(digest_size=16)

    def rng(self, name: str) -> Random:
        """The stream of this name."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Random(f"{self.seed}/{name}")
        return stream

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Call ``action`` at ``time`` (ns; at once, after what is due now, if it has passed)."""
        self._tie += 1
        heapq.heappush(self._heap, (max(time, self.now), self._tie, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

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
        while self._heap and self._heap[0][0] <= until and self.events < self.events_max:
            time, _tie, action = heapq.heappop(self._heap)
            self.now = time
            self.events += 1
            action()
            if stop is not None and stop():
                return True
        if self.events < self.events_max:
            self.now = max(self.now, until)
        return False
