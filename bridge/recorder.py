# SPDX-License-Identifier: GPL-2.0-only
"""Listens to this node's event log and keeps what people ask for afterwards: the failovers' timelines and the history of fences.

Both are written to the state folder when things have become quiet, by a thread, and survive restarts. A file that cannot be read costs the
memory of the past and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from bridge import failover, fence_history
from bridge.storage import RecordFile, StorageError
from vcs.events import EventLog, boottime_ns
from vcs.failover import Failover, valid
from vcs.report import FenceReport

QUIET_S = 1.2
"After the last thing that happened; longer than what ends a failover."


class Recorder:
    """Between :meth:`start` and :meth:`close`, on the running loop."""

    def __init__(self, log: EventLog, state_dir: str) -> None:
        self._log = log
        self._files = {name: RecordFile(state_dir, name) for name in ("failovers", "fences")}
        self.failovers = failover.Failovers(v for v in self._load("failovers") if valid(v))
        self.fences = fence_history.FenceHistory(v for v in self._load("fences") if fence_history.valid(v))
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._end: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._end = self._log.subscribe(self._heard)

    def close(self) -> None:
        """What is not on the disk yet is written now. Idempotent."""
        self._end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._write(self._texts())

    def timelines(self) -> list[Failover]:
        self.failovers.settle(boottime_ns())
        return self.failovers.all

    def history(self) -> list[FenceReport]:
        return self.fences.entries

    def _load(self, name: str) -> list[Any]:
        try:
            found = json.loads(self._files[name].load() or b"[]")
        except (StorageError, ValueError) as error:
            self._log.note("history_lost", file=str(self._files[name].path), problem=str(error))
            return []
        return found if isinstance(found, list) else []

    def _heard(self, record: Mapping[str, Any]) -> None:
        self.failovers.feed(record)
        if self.fences.feed(record) or self.failovers.open is not None:
            self._later()

    def _later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(QUIET_S, self._quiet)

    def _quiet(self) -> None:
        self._timer = None
        self.failovers.settle(boottime_ns())
        if self.failovers.open is not None:
            self._later()
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(asyncio.to_thread(self._write, self._texts()))

    def _texts(self) -> dict[str, bytes]:
        lists = {"failovers": self.failovers.all, "fences": self.fences.entries}
        return {name: json.dumps(value, separators=(",", ":")).encode() for name, value in lists.items()}

    def _write(self, texts: Mapping[str, bytes]) -> None:
        for name, text in texts.items():
            with contextlib.suppress(StorageError):
                self._files[name].save(text)
