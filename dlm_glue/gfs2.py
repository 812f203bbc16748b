# SPDX-License-Identifier: GPL-2.0-only
"""Carries out what journals.py decides: GFS2's files in sysfs, timers, and each lockspace's own lane for the writes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from dlm_glue import journals
from dlm_glue.lanes import Lanes
from dlm_glue.lockspace import Tree
from vcs.events import EventLog


class Journals:
    """Of all file systems. Called by the component, in its loop; every write goes through the lane of its lockspace, behind a control=1 and
    before the next control=0."""

    def __init__(self, cluster: str, tree: Tree, log: EventLog) -> None:
        self._cluster = cluster
        self._tree = tree
        self._log = log
        self._watches: dict[str, journals.Watch | None] = {}
        self._heard: dict[str, float] = {}
        "When a journal of that file system was last spoken of, or tried (the loop's time)."
        self._loop: asyncio.AbstractEventLoop
        self._lanes: Lanes

    def attach(self, loop: asyncio.AbstractEventLoop, lanes: Lanes) -> None:
        self._loop, self._lanes = loop, lanes

    def _table(self, lockspace: str) -> str:
        return f"{self._cluster}:{lockspace}"

    def stopping(self, lockspace: str) -> None:
        """Just before control=0."""
        now = self._loop.time()
        quiet = now - self._heard.get(lockspace, now - 2 * journals.QUIET_S) > journals.QUIET_S
        try:
            blocked = self._tree.read(journals.files(self._table(lockspace))[1])
        except OSError:
            blocked = ""  # no GFS2, or not mounted
        self._watches[lockspace] = journals.stopped(self._watches.get(lockspace), blocked, quiet)

    def dropping(self, lockspace: str, members: int) -> None:
        watch = self._watches.get(lockspace)
        if watch is not None:
            self._watches[lockspace] = journals.dropped(watch, members)

    def starting(self, lockspace: str) -> None:
        """Just before control=1."""
        watch = self._watches.get(lockspace)
        if watch is not None:
            self._watches[lockspace] = journals.started(watch)

    def forget(self, lockspace: str) -> None:
        self._watches.pop(lockspace, None)
        self._heard.pop(lockspace, None)

    def reported(self, table: str, jid: int, done: bool) -> None:
        """GFS2's uevent about a journal."""
        cluster, _, lockspace = table.partition(":")
        if cluster != self._cluster or jid < 0 or jid == self._own(table):
            return
        self._heard[lockspace] = self._loop.time()
        watch = self._watches.get(lockspace)
        if watch is None:
            return
        self._watches[lockspace], again = journals.reported(watch, jid, done)
        if again:
            self._loop.call_later(journals.RETRY_S, self._try, lockspace, jid)
        self._give_free(lockspace)

    def _own(self, table: str) -> int:
        try:
            return int(self._tree.read(journals.own_journal(table)))
        except (OSError, ValueError):
            return -1

    def _try(self, lockspace: str, jid: int) -> None:
        watch = self._watches.get(lockspace)
        if watch is None or not watch.running or jid in watch.clean:
            return
        self._heard[lockspace] = self._loop.time()

        def ended(error: BaseException | None) -> None:
            # The kernel says Failed a moment before it would take the next try: no uevent will follow this one.
            if isinstance(error, OSError) and error.errno == errno.EBUSY:
                self._loop.call_later(journals.RETRY_S, self._try, lockspace, jid)

        self._write(lockspace, journals.files(self._table(lockspace))[0], str(jid), ended)

    def _give_free(self, lockspace: str) -> None:
        watch = self._watches.get(lockspace)
        if watch is None or not watch.free:
            return
        self._watches[lockspace] = None
        self._log.note("gfs2_unblocked", lockspace=lockspace, journals=sorted(watch.clean), tries=watch.tries)
        self._write(lockspace, journals.files(self._table(lockspace))[1], "0", lambda _error: None)

    def _write(self, lockspace: str, path: str, text: str, ended: Callable[[BaseException | None], None]) -> None:
        """Errors but EBUSY: unmounted meanwhile; and if not, the kernel's own second is on its way."""
        work: Callable[[], None] = lambda: self._tree.write(path, text.encode())  # noqa: E731
        self._lanes.submit(lockspace, work, ended)
