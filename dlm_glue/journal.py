# SPDX-License-Identifier: GPL-2.0-only
"""The journal of unanswered uevents, in a file of this boot that outlives dlm_glue and vcsd (SAFETY S17).

A lockspace event is told once, and its sender sleeps uninterruptibly until event_done is written once: never twice, as a second write
would stay latched and answer the *next* request before anybody has stopped. So an entry has three lines in its life:

    + 7 online home        read from the socket
    ? 7                    event_done is about to be written
    ! 7                    written

A successor takes an entry with ``?`` for answered. If the predecessor died exactly between the two, that caller is left waiting: this
window is one system call, and hanging one mount is the lesser evil.
"""

from __future__ import annotations

import os
import threading

from dlm_glue.state import OFFLINE, ONLINE, Pending

COMPACT_BYTES = 64 << 10
"The journal is emptied at this size when nothing is unanswered."


def parse(data: bytes) -> tuple[int, tuple[Pending, ...]]:
    """(highest sequence number, unanswered entries in order). A torn last line and nonsense are skipped."""
    entries: dict[int, Pending] = {}
    highest = 0
    for line in data.decode("utf-8", "replace").split("\n")[:-1]:
        match line.split(" ", 3):
            case ["+", seq, (("online" | "offline") as action), lockspace] if seq.isdigit() and lockspace:
                entries[int(seq)] = Pending(int(seq), action, lockspace)
                highest = max(highest, int(seq))
            case [("?" | "!"), seq] if seq.isdigit():
                entries.pop(int(seq), None)
    return highest, tuple(entries[seq] for seq in sorted(entries))


class Journal:
    """``fd`` is inherited or our own. Each change is one write, complete before it returns; any thread may make it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0)
        self._seq, left = parse(data)
        # A torn line is cut off, or the next one would be glued to it.
        self._end = data.rfind(b"\n") + 1
        os.ftruncate(fd, self._end)
        self._open = {p.seq for p in left}
        self._waiting = {p.seq: p for p in left}

    @classmethod
    def create(cls) -> Journal:
        return cls(os.memfd_create("vcs-journal", os.MFD_CLOEXEC))

    @property
    def pending(self) -> tuple[Pending, ...]:
        """Entries whose event_done is not begun, oldest first."""
        with self._lock:
            return tuple(self._waiting.values())

    def add(self, action: str, lockspace: str) -> Pending | None:
        """None if this very request is here already: the kernel has one waiter per lockspace, so it was heard twice (found by looking
        at /sys/kernel/dlm, then told by its uevent)."""
        assert action in (ONLINE, OFFLINE)
        with self._lock:
            if any((p.action, p.lockspace) == (action, lockspace) for p in self._waiting.values()):
                return None
            self._seq += 1
            pending = Pending(self._seq, action, lockspace)
            self._open.add(pending.seq)
            self._waiting[pending.seq] = pending
            self._append(f"+ {pending.seq} {action} {lockspace}\n")
            return pending

    def answering(self, pending: Pending) -> None:
        """Right before event_done is written, in the thread that does it."""
        with self._lock:
            self._waiting.pop(pending.seq, None)
            self._append(f"? {pending.seq}\n")

    def answered(self, pending: Pending) -> None:
        """After it, or when there is nobody any more who could be answered."""
        with self._lock:
            self._waiting.pop(pending.seq, None)
            self._append(f"! {pending.seq}\n")
            self._open.discard(pending.seq)
            if not self._open and self._end > COMPACT_BYTES:
                os.ftruncate(self._fd, 0)
                self._end = 0

    def close(self) -> None:
        os.close(self._fd)

    def _append(self, line: str) -> None:
        data = line.encode()
        self._end += os.pwrite(self._fd, data, self._end)
