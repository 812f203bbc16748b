# SPDX-License-Identifier: GPL-2.0-only
"""What must outlive dlm_glue of its POSIX locks (SAFETY S17): a file in memory (tmpfs, or an inherited memfd), mapped.

A read(2) of the plock device takes the request for good, so the kernel copies it straight into the log: there is no moment at which it is
nowhere. The log is the list of all inputs of plock_node.Node since a checkpoint; whoever starts next gives them to a new Node and has the
state. There are two areas, so a checkpoint is complete in the other one before it counts.

    header   magic, which area counts, boot id
    area     length of the checkpoint, checkpoint | slots of 64 bytes: a record of the kernel as it is, or the head of a frame and its data

A slot whose first four bytes are 0 is the end. In a record the field `nodeid`, which the kernel leaves 0, tells how far its answer is.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from dlm_glue.plock_wire import SIZE
from vcs.errors import VcsError

MAGIC = b"VCSPLK01"
HEADER = 4096
AREA = 12 << 20
STATE_MAX = 7 << 20
SOFT, HARD = 2 << 20, 4 << 20
"Bytes since a checkpoint after which the next one is due; after HARD it cannot wait."
FRAME = 0x4C50_5356
"First four bytes of a frame's head; a record begins with its version, 1."
_HEADER = struct.Struct("<8sI16s")
_CHECKPOINT = struct.Struct("<QII")  # length, records kept, used
_FRAME = struct.Struct("<IIII")  # FRAME, kind, fsid, length
_MARK = struct.Struct("=i")
_MARK_AT = 20
FRAME_MAX = 256 << 10


class Mark(IntEnum):
    OPEN = 0
    ANSWERING = 1
    "The answer is about to be written: whoever finds this does not know whether it was."
    DONE = 2


class FrameKind(IntEnum):
    JOIN = 1
    OPENED = 2
    DELIVERY = 3
    TIDY = 4
    DROP = 5
    HURRY = 6


class Frame(NamedTuple):
    kind: FrameKind
    fsid: int
    data: bytes


class Record(NamedTuple):
    slot: int
    mark: Mark
    data: bytes


def boot_id() -> bytes:
    """Of the running kernel, 16 bytes: a log of an earlier boot says nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


class Log:
    def __init__(self, fd: int, boot: bytes) -> None:
        """``fd``: the file, which belongs to the log from now on. Raises VcsError: another process has it."""
        self._fd = fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise VcsError(f"the log of POSIX locks is in use: {error.strerror}", "another dlm_glue runs on this machine") from None
        new = os.fstat(fd).st_size == 0
        os.ftruncate(fd, HEADER + 2 * AREA)
        self._map = mmap.mmap(fd, HEADER + 2 * AREA)
        self._view = memoryview(self._map)
        self._words = self._view.cast("i")
        "The same, for the marks: a slot is 64 bytes, so its mark is a whole word."
        magic, area, there = _HEADER.unpack_from(self._map)
        self.valid = magic == MAGIC and area < 2 and there == boot
        "There is a checkpoint of a predecessor."
        self._boot = boot
        self._area = area if self.valid else 0
        self._tail = self._begin = self._base
        "Where the next input goes; where the first one went."
        self._used = [0, 0] if new else [AREA, AREA]
        "Bytes of each area that may not be 0."

    @classmethod
    def open(cls, path: str, boot: bytes) -> Log:
        return cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), boot)

    def close(self) -> None:
        self._words.release()
        self._view.release()
        self._map.close()
        os.close(self._fd)

    @property
    def _base(self) -> int:
        return HEADER + self._area * AREA

    # --- writing --------------------------------------------------------------------------------------------------------------------------

    def room(self, records: int) -> list[memoryview]:
        """Slots at the end, for the kernel to copy records into."""
        view, tail = self._view, self._tail
        if records == 1:
            return [view[tail : tail + SIZE]]
        return [view[at : at + SIZE] for at in range(tail, tail + records * SIZE, SIZE)]

    def took(self, records: int) -> int:
        """So many were filled; the first one's slot."""
        first = self._tail
        self._tail += records * SIZE
        return first

    def record(self, slot: int) -> memoryview:
        return self._view[slot : slot + SIZE]

    def frame(self, kind: FrameKind, fsid: int, data: bytes = b"") -> None:
        """One more input. The four bytes that make it count come last."""
        at = self._tail
        self._view[at + SIZE : at + SIZE + len(data)] = data
        _FRAME.pack_into(self._map, at, 0, kind, fsid, len(data))
        struct.pack_into("<I", self._map, at, FRAME)
        self._tail = at + SIZE + -(-len(data) // SIZE) * SIZE

    def mark_of(self, slot: int) -> Mark:
        return self._record(slot).mark

    def mark(self, slot: int, mark: int) -> None:
        self._words[slot + _MARK_AT >> 2] = mark

    @property
    def due(self) -> bool:
        return self._tail - self._begin > SOFT

    @property
    def left(self) -> int:
        """Records until a checkpoint is due."""
        return max(0, SOFT - (self._tail - self._begin)) // SIZE

    @property
    def overdue(self) -> bool:
        return self._tail - self._begin > HARD

    def checkpoint(self, state: bytes, slots: Sequence[int]) -> list[int]:
        """Begin anew with this state and the records in ``slots``; their new slots. Raises VcsError if it is too much."""
        records = [bytes(self.record(slot)) for slot in slots]
        other = 1 - self._area
        base = HEADER + other * AREA
        at = base + _aligned(_CHECKPOINT.size + len(state))
        if at + len(records) * SIZE - base > STATE_MAX:
            raise VcsError(f"the state of POSIX locks is too large to keep ({len(state)} bytes)")
        self._view[base : base + self._used[other]] = bytes(self._used[other])
        _CHECKPOINT.pack_into(self._map, base, len(state), len(records), 0)
        self._view[base + _CHECKPOINT.size : base + _CHECKPOINT.size + len(state)] = state
        moved = list(range(at, at + len(records) * SIZE, SIZE))
        for slot, record in zip(moved, records, strict=True):
            self._view[slot : slot + SIZE] = record
        _HEADER.pack_into(self._map, 0, MAGIC, other, self._boot)
        self._used[self._area] = min(AREA, self._tail - self._base + SIZE)
        self._area, self._tail, self.valid = other, at + len(records) * SIZE, True
        self._begin = self._tail
        return moved

    # --- reading --------------------------------------------------------------------------------------------------------------------------

    def kept(self) -> tuple[bytes, list[Record]]:
        """The checkpoint: state and records."""
        length, count, _used = _CHECKPOINT.unpack_from(self._map, self._base)
        begin = self._base + _CHECKPOINT.size
        at = self._base + _aligned(_CHECKPOINT.size + length)
        if at + count * SIZE > self._base + AREA:
            raise ValueError("a checkpoint beyond its area")
        self._tail = self._begin = at + count * SIZE
        return bytes(self._view[begin : begin + length]), [self._record(slot) for slot in range(at, self._tail, SIZE)]

    def inputs(self) -> Iterator[Record | Frame]:
        """Everything since the checkpoint, in order; afterwards the log goes on behind it."""
        end = self._base + AREA - SIZE
        while self._tail < end:
            at = self._tail
            first, kind, fsid, length = _FRAME.unpack_from(self._map, at)
            if first == FRAME and length <= FRAME_MAX:
                data = bytes(self._view[at + SIZE : at + SIZE + length])
                self._tail = at + SIZE + -(-length // SIZE) * SIZE
                yield Frame(FrameKind(kind), fsid, data)
            elif first:
                self._tail = at + SIZE
                yield self._record(at)
            else:
                break
        rest = min(FRAME_MAX + SIZE, self._base + AREA - self._tail)
        self._view[self._tail : self._tail + rest] = bytes(rest)  # a torn frame's data would look like inputs later

    def _record(self, slot: int) -> Record:
        return Record(slot, Mark(_MARK.unpack_from(self._map, slot + _MARK_AT)[0]), bytes(self._view[slot : slot + SIZE]))


def _aligned(size: int) -> int:
    return -(-size // SIZE) * SIZE
