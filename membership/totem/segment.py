# SPDX-License-Identifier: GPL-2.0-only
"""A sealed frame that is longer than a path takes travels in segments, each a datagram of its own. Pure.

    magic u16 | index u8 | count u8 | total u16 | nodeid u32 | engine u32 | counter u64 | part of the frame

nodeid, the low half of the engine incarnation and the counter are those of the frame's own header: together they name the frame. All
segments but the last one carry the same number of bytes. Nothing here is authenticated: the frame's seal covers the whole of it, so
a forged segment costs a frame, which the protocol repairs, and bounded memory: a sender has at most PENDING_FRAMES_MAX incomplete
frames, the oldest one makes room.

Segments of one frame go out and come in by one system call each way where the kernel can (UDP_SEGMENT, UDP_GRO): then ``cut`` and
``whole_train`` are one copy of the frame each.
"""

from __future__ import annotations

import struct
from collections import Counter

from membership.totem.limits import PENDING_FRAMES_MAX, SEGMENT_PAYLOAD_MIN

MAGIC = 0x5653
MAGIC_BYTES = MAGIC.to_bytes(2, "big")
HEADER = struct.Struct(">HBBHIIQ")
SIZE = HEADER.size
_INDEX = 2
_COUNTER_LOW = SIZE - 1
COUNT_MAX = 255
BATCH_SEGMENTS_MAX = 64
"UDP_MAX_SEGMENTS of older kernels: what one UDP_SEGMENT call takes."
BATCH_BYTES_MAX = 65_000
"A little less than the largest UDP payload of either family."
_COUNTING = bytes(range(256))
_HEADS = [MAGIC_BYTES + bytes((index,)) for index in range(256)]

Batch = tuple[bytes, int]
"(bytes of one or more datagrams, size of each but the last); one datagram if the size is not less than the length."


def cut(frame: bytes, limit: int) -> list[Batch]:
    """``frame`` as datagrams of at most ``limit`` bytes. Raises ValueError when it would take more than COUNT_MAX of them."""
    if len(frame) <= limit:
        return [(frame, len(frame))]
    size = max(limit, SEGMENT_PAYLOAD_MIN) - SIZE
    total = len(frame)
    count = -(-total // size)
    if count > COUNT_MAX:
        raise ValueError(f"{total} bytes do not fit {COUNT_MAX} segments of {size}")
    # What follows the index: count, total; nodeid, engine's low half and counter, which are bytes 12-16 and 28-40 of the frame's header.
    tail = bytes((count,)) + total.to_bytes(2, "big") + frame[12:16] + frame[28:40]
    per_batch = min(BATCH_SEGMENTS_MAX, BATCH_BYTES_MAX // (size + SIZE))
    batches = []
    for first in range(0, count, per_batch):
        upto = min(first + per_batch, count)
        pieces = [b""] * (2 * (upto - first))
        pieces[::2] = [head + tail for head in _HEADS[first:upto]]
        pieces[1::2] = [frame[at:at + size] for at in range(first * size, min(upto * size, total), size)]
        batches.append((b"".join(pieces), size + SIZE))
    return batches


def whole_train(data: memoryview, size: int) -> bytes | None:
    """The frame, if ``data`` is all its segments in order, each of ``size`` bytes (the last one may be shorter)."""
    length = len(data)
    count = data[3]
    if size <= SIZE or count * size < length or (count - 1) * size + SIZE >= length:
        return None
    if bytes(data[_INDEX::size]) != _COUNTING[:count] or data[_COUNTER_LOW::size].tobytes().count(data[_COUNTER_LOW]) != count:
        return None
    if length - count * SIZE != data[4] << 8 | data[5]:
        return None
    return b"".join([data[at + SIZE:at + size] for at in range(0, length, size)])


class _Pending:
    """A frame of which some segments are here."""

    __slots__ = ("buffer", "count", "missing", "seen", "size", "total")

    def __init__(self, total: int, count: int, size: int) -> None:
        self.total = total
        self.count = count
        self.size = size
        self.buffer = bytearray(total)
        self.seen = 0
        self.missing = count


class Assembler:
    """Puts frames together from segments that arrive one by one, in any order, on any link."""

    def __init__(self) -> None:
        self._pending: dict[int, dict[tuple[int, int], _Pending]] = {}
        self._done: dict[int, tuple[int, int]] = {}
        "The newest frame that was completed, per sender: copies of its segments may still come by another link."
        self.counters: Counter[str] = Counter()

    def feed(self, data: memoryview, known: frozenset[int]) -> bytes | None:
        """The frame that ``data`` (one segment) completes, if it does. ``known``: nodeids that are believed to exist."""
        if len(data) <= SIZE:
            self.counters["segment_malformed"] += 1
            return None
        _magic, index, count, total, nodeid, engine, counter = HEADER.unpack_from(data)
        part = data[SIZE:]
        size = _part_size(index, count, total, len(part))
        if not size or nodeid not in known:
            self.counters["segment_malformed" if not size else "segment_unknown_node"] += 1
            return None
        name = (engine, counter)
        if self._done.get(nodeid) == name:
            return None
        frames = self._pending.setdefault(nodeid, {})
        pending = frames.get(name)
        if pending is None or (pending.total, pending.count, pending.size) != (total, count, size):
            if pending is None and len(frames) >= PENDING_FRAMES_MAX:
                del frames[next(iter(frames))]
                self.counters["frame_incomplete"] += 1
            pending = frames[name] = _Pending(total, count, size)
        bit = 1 << index
        if pending.seen & bit:
            return None
        pending.seen |= bit
        pending.missing -= 1
        at = index * size
        pending.buffer[at:at + len(part)] = part
        if pending.missing:
            return None
        del frames[name]
        self._done[nodeid] = name
        return bytes(pending.buffer)

    def keep(self, known: frozenset[int]) -> None:
        """Forget senders that are configured no longer."""
        for nodeid in [n for n in self._pending if n not in known]:
            del self._pending[nodeid]
            self._done.pop(nodeid, None)


def _part_size(index: int, count: int, total: int, length: int) -> int:
    """Bytes of the frame in every segment but the last, as this one tells; 0: it contradicts itself."""
    if count < 2 or index >= count:
        return 0
    if index < count - 1:
        size = length
    else:
        size, rest = divmod(total - length, count - 1)
        if rest or total <= length:
            return 0
    last = total - (count - 1) * size
    return size if 0 < last <= size and (index < count - 1 or last == length) else 0
