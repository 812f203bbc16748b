# SPDX-License-Identifier: GPL-2.0-only
"""The event log: one JSON line per thing that happened on this node, written by every process of it, on one clock.

A line is ``{"t": ..., "wall": ..., "node": ..., "source": ..., "event": ..., <fields>}``. ``t`` is CLOCK_BOOTTIME in ns (what durations are
made from), ``wall`` CLOCK_REALTIME in ns (what lines of several nodes are sorted by). A field that has one of these five names is
stored with a trailing underscore. Each line is one write(2) with O_APPEND, so processes may share a file. The file is bounded: past
``max_bytes`` it becomes ``<path>.1`` (the one before is lost) and a new one begins.

Writing never raises into the caller and never waits for a disk as long as the file lies on a tmpfs such as /run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict, is_dataclass

DEFAULT_PATH = "/run/vcs/events.jsonl"
MAX_BYTES = 8 << 20
"A log past this size is rotated (bytes)."
MAX_LINE = 16 << 10
"A longer line loses its fields and says so (bytes)."
RING = 1000
"How many records a process keeps in memory for subscribers that come late."

Record = dict[str, object]
Callback = Callable[[Record], None]
RESERVED = ("t", "wall", "node", "source", "event")


def boottime_ns() -> int:
    """The project's clock: CLOCK_BOOTTIME in ns (goes on while a machine sleeps)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _plain(value: object) -> object:
    """What json cannot write by itself, as something that it can."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return str(value)


class EventLog:
    """Writes events of one process. ``node`` is the node's name (or id), ``source`` the process or part, e.g. ``vcsd``."""

    def __init__(self, path: str = DEFAULT_PATH, node: str = "", source: str = "", max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.node = node
        self.source = source
        self.max_bytes = max_bytes
        self.dropped = 0
        "Lines that could not be written (disk full, folder gone); still seen by subscribers."
        self.ring: deque[Record] = deque(maxlen=RING)
        self._callbacks: list[Callback] = []
        self._fd = -1

    def note(self, event: str, /, **fields: object) -> None:
        """Write one event. Never raises."""
        record: Record = {
            "t": boottime_ns(),
            "wall": time.time_ns(),
            "node": self.node,
            "source": self.source,
            "event": event,
        }
        for key, value in fields.items():
            record[f"{key}_" if key in RESERVED else key] = value
        try:
            line = json.dumps(record, default=_plain, separators=(",", ":"))
            if len(line) >= MAX_LINE:
                short: Record = {key: record[key] for key in RESERVED}
                line = json.dumps({**short, "truncated": len(line)}, separators=(",", ":"))
            record = json.loads(line)
        except (TypeError, ValueError, RecursionError):
            self.dropped += 1
            return
        self._write(line.encode() + b"\n")
        self.ring.append(record)
        for callback in tuple(self._callbacks):
            with contextlib.suppress(Exception):
                callback(record)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` for each later event of this process, in the thread that notes it; returns what ends it."""
        self._callbacks.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: bytes) -> None:
        try:
            self._open()
            if os.write(self._fd, line) != len(line):
                self.dropped += 1
        except OSError:
            self.dropped += 1

    def _open(self) -> None:
        """Make ``_fd`` the file that the path names now (another process may have rotated it), rotated when it is too long."""
        if self._fd >= 0:
            mine = os.fstat(self._fd)
            try:
                there = os.stat(self.path)
                same = (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)
            except FileNotFoundError:
                same = False
            if same and mine.st_size < self.max_bytes:
                return
            if same:
                # Only one process may rename; whoever comes second sees another inode and just opens the new file.
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.stat(self.path).st_ino == mine.st_ino:
                        os.replace(self.path, f"{self.path}.1")
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            self._fd = os.open(self.path, flags, 0o644)


def parse(line: bytes | str) -> Record | None:
    """A line as a record; None for one that is torn or is no event."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def read(path: str = DEFAULT_PATH, since_ns: int = 0) -> Iterator[Record]:
    """All events on disk (all processes'), the rotated file first, from ``since_ns`` (CLOCK_BOOTTIME) on."""
    for name in (f"{path}.1", path):
        try:
            with open(name, "rb") as file:
                for line in file:
                    record = parse(line)
                    if record is not None and (since_ns == 0 or int(str(record.get("t", 0))) >= since_ns):
                        yield record
        except FileNotFoundError:
            continue


class Tail:
    """Reads a log as it grows, over rotations, whoever writes it. ``fileno()`` becomes readable when there may be more (inotify)."""

    IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100

    def __init__(self, path: str = DEFAULT_PATH, from_start: bool = False) -> None:
        self.path = path
        self._file = -1
        self._rest = b""
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        folder = os.fsencode(os.path.dirname(os.path.abspath(path)))
        if libc.inotify_add_watch(self._watch, folder, self.IN_MODIFY | self.IN_MOVED_TO | self.IN_CREATE) < 0:
            error = ctypes.get_errno()
            os.close(self._watch)
            raise OSError(error, os.strerror(error), os.fsdecode(folder))
        self._reopen()
        if not from_start and self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)

    def fileno(self) -> int:
        return self._watch

    def poll(self) -> list[Record]:
        """The records that came since the last call; returns at once."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._watch, 65536):
                pass
        found = self._drain()
        if self._rotated():
            # What was written to the old file before the rename comes first.
            found += self._drain()
            self._reopen()
            found += self._drain()
        return found

    def close(self) -> None:
        for fd in (self._watch, self._file):
            if fd >= 0:
                os.close(fd)
        self._watch = self._file = -1

    def _drain(self) -> list[Record]:
        found: list[Record] = []
        while self._file >= 0:
            block = os.read(self._file, 1 << 16)
            if not block:
                break
            *lines, self._rest = (self._rest + block).split(b"\n")
            found += [record for line in lines if (record := parse(line)) is not None]
        return found

    def _rotated(self) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return self._file < 0 or os.fstat(self._file).st_ino != there.st_ino

    def _reopen(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._rest = b""
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._file = -1


async def follow(path: str = DEFAULT_PATH, history: bool = False) -> AsyncGenerator[Record, None]:
    """Events of every process of this node as they are written; with ``history`` those on disk first. Ends by being closed."""
    tail = Tail(path, from_start=history)
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(tail.fileno(), wake.set)
    try:
        while True:
            wake.clear()
            for record in tail.poll():
                yield record
            await wake.wait()
    finally:
        loop.remove_reader(tail.fileno())
        tail.close()
