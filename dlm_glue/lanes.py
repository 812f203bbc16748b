# SPDX-License-Identifier: GPL-2.0-only
"""Worker threads by name: steps of one lane run one after the other, lanes run side by side.

A write to ``control`` sleeps as long as somebody is inside the DLM. With a lane per lockspace it delays no other lockspace and never
the event loop (SAFETY S23). The threads are daemons: a sleeping one cannot hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable


class Lanes:
    """To be used from one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[str, queue.SimpleQueue[Callable[[], None] | None]] = {}

    def submit(self, lane: str, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run ``work`` in the lane's thread, then ``done(error)`` in the event loop."""

        def job() -> None:
            error: BaseException | None = None
            try:
                work()
            except BaseException as caught:
                # Whatever it was: the plan must be told, or the lane's lockspace would stay busy for ever.
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(done, error)

        if lane not in self._queues:
            self._queues[lane] = queue.SimpleQueue()
            thread = threading.Thread(target=self._run, args=(self._queues[lane],), name=f"lane-{lane}", daemon=True)
            thread.start()
        self._queues[lane].put(job)

    def end(self, lane: str) -> None:
        """The lane's thread ends after what it has."""
        found = self._queues.pop(lane, None)
        if found is not None:
            found.put(None)

    def close(self) -> None:
        for lane in list(self._queues):
            self.end(lane)

    @staticmethod
    def _run(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while (job := jobs.get()) is not None:
            job()
