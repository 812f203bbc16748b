# SPDX-License-Identifier: GPL-2.0-only
"""Logging that never blocks: records go into a bounded queue, a thread writes them to standard error.

The reader of standard error may be a journal whose disk hangs below the very file system this daemon recovers. When the queue is
full, records are counted and dropped, and the next one that fits says how many. Lines carry systemd's priority prefix (``<6>``)
when standard error is not a terminal, so the journal knows their level.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
from typing import TextIO

QUEUE_MAX = 4096
PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class SystemdFormatter(logging.Formatter):
    """``<6>name: message``, each line of a traceback with the prefix too."""

    def __init__(self, prefix: bool) -> None:
        super().__init__("%(name)s: %(message)s" if prefix else "%(asctime)s %(name)s: %(message)s")
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._prefix:
            return text
        priority = PRIORITY.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines() or [""])


class DroppingQueueHandler(logging.handlers.QueueHandler):
    """Puts records into the queue, or counts them."""

    def __init__(self, target: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(target)
        self.target = target
        self.dropped = 0
        self._told = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.dropped != self._told:
            record.msg = f"{record.msg} [{self.dropped - self._told} log records before this were dropped]"
        try:
            self.target.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        else:
            self._told = self.dropped


class Log:
    """The running log. ``stop()`` writes what is queued, but waits at most ``timeout_s``."""

    def __init__(self, handler: DroppingQueueHandler, listener: logging.handlers.QueueListener) -> None:
        self.handler = handler
        self._listener = listener

    def drain(self) -> None:
        """Wait until what is queued now was written."""
        self.handler.target.join()

    def stop(self, timeout_s: float = 2.0) -> None:
        logging.getLogger().removeHandler(self.handler)
        with contextlib.suppress(queue.Full):
            self._listener.enqueue_sentinel()
        thread = self._listener._thread
        if thread is not None:
            thread.join(timeout_s)


def start(level: int = logging.INFO, stream: TextIO | None = None) -> Log:
    """Send the root logger's records to ``stream`` (standard error) through the queue."""
    out = stream if stream is not None else sys.stderr
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_MAX)
    writer = logging.StreamHandler(out)
    writer.setFormatter(SystemdFormatter(prefix=not out.isatty()))
    handler = DroppingQueueHandler(records)
    listener = logging.handlers.QueueListener(records, writer)
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(handler)
    listener.start()
    return Log(handler, listener)
