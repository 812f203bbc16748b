# SPDX-License-Identifier: GPL-2.0-only
"""The messages of the protocol and their bytes (network order, fixed layouts, no padding); those of a ring at work are frames.py's.

``decode`` accepts exactly what ``encode`` makes: any other input raises :class:`~vcs.errors.RemoteError`, whatever its bytes. The
frame around it (version, cluster, sender, incarnations, counter, seal) is seal.py's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from membership.api import Processor
from membership.totem import frames
from membership.totem.frames import (
    Piece,
    Regular,
    Token,
    decode_piece,
    decode_regular,
    decode_token,
    encode_piece,
    encode_token,
    require,
)
from membership.totem.limits import MEMBERS_MAX, PROCESSORS_MAX, RING_SEQ_MAX
from vcs.errors import RemoteError
from vcs.model import RingId


class Type(IntEnum):
    """Those of frames.py (1, 2, 13) are not here."""

    JOIN = 3
    COMMIT = 4
    BEACON = 5
    LEAVE = 6
    HURRY = 7


_JOIN = struct.Struct(">BQHHH")  # type, ring_seq, proc, fail, heard
_RING = struct.Struct(">BQI")  # type, ring
_LEAVE = struct.Struct(">BQIB")  # type, ring, gasp
_BEACON = struct.Struct(">BQIH")  # type, ring, heard
_COMMIT = struct.Struct(">BQIQH")  # type, ring, token_seq, entries
_ENTRY = struct.Struct(">IQQBQIQQQIQ")  # processor, filled, old ring, aru, delivered, attempt, obligations
_PROCESSOR = struct.Struct(">IQQ")


@dataclass(frozen=True, slots=True)
class Join:
    ring_seq: int
    "Highest ring sequence that the sender has persisted."
    proc: tuple[Processor, ...]
    fail: tuple[Processor, ...]
    heard: tuple[Processor, ...]
    "Whom the sender has heard lately: only a Join that names its receiver is fresh, and shows that both directions work."


@dataclass(frozen=True, slots=True)
class Beacon:
    ring: RingId
    heard: tuple[Processor, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    ring: RingId
    gasp: bool = False
    "The process died, and a helper that outlived it says so; its machine runs."


@dataclass(frozen=True, slots=True)
class Hurry:
    ring: RingId


NO_RING = RingId(0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One member's state in the commit token; meaningless until ``filled``."""

    processor: Processor
    filled: bool = False
    old_ring: RingId = NO_RING
    aru: int = 0
    delivered: int = 0
    attempt: RingId = NO_RING
    "The forming ring in which this member completed the exchange of its old ring's messages, NO_RING if in none."
    obligations: int = 0
    "Mask over the old ring's members (ascending): whose messages it promised to deliver in ``attempt``."


@dataclass(frozen=True, slots=True)
class Commit:
    ring: RingId
    token_seq: int
    entries: tuple[Entry, ...]


Body = Regular | Token | Piece | Join | Beacon | Leave | Hurry | Commit


# --- encoding ---------------------------------------------------------------------------------------------------------------


def encode(message: Body) -> bytes:
    match message:
        case Regular():
            return message.body
        case Token():
            return encode_token(message)
        case Piece():
            return encode_piece(message)
        case Join():
            head = _JOIN.pack(Type.JOIN, message.ring_seq, len(message.proc), len(message.fail), len(message.heard))
            return head + _processors(message.proc) + _processors(message.fail) + _processors(message.heard)
        case Beacon():
            ring = message.ring
            return _BEACON.pack(Type.BEACON, ring.seq, ring.rep, len(message.heard)) + _processors(message.heard)
        case Leave():
            return _LEAVE.pack(Type.LEAVE, message.ring.seq, message.ring.rep, message.gasp)
        case Hurry():
            return _RING.pack(Type.HURRY, message.ring.seq, message.ring.rep)
        case Commit():
            ring = message.ring
            head = _COMMIT.pack(Type.COMMIT, ring.seq, ring.rep, message.token_seq, len(message.entries))
            return head + b"".join(_entry(e) for e in message.entries)


def _processors(processors: tuple[Processor, ...]) -> bytes:
    return b"".join(_PROCESSOR.pack(p.nodeid, p.boot, p.engine) for p in processors)


def _entry(e: Entry) -> bytes:
    p = e.processor
    return _ENTRY.pack(p.nodeid, p.boot, p.engine, e.filled, e.old_ring.seq, e.old_ring.rep, e.aru, e.delivered,
                       e.attempt.seq, e.attempt.rep, e.obligations)


# --- decoding ---------------------------------------------------------------------------------------------------------------


def decode(body: bytes) -> Body:
    """The message in ``body``. Raises RemoteError for anything that ``encode`` does not make."""
    if not body:
        raise RemoteError("empty body")
    decoder = _DECODERS.get(body[0])
    if decoder is None:
        raise RemoteError(f"unknown message type {body[0]}")
    try:
        return decoder(body)
    except struct.error as e:
        raise RemoteError(f"truncated: {e}") from None


def _read_processors(body: bytes, at: int, count: int) -> tuple[Processor, ...]:
    require(count <= PROCESSORS_MAX, "too many processors")
    out = []
    for i in range(count):
        nodeid, boot, engine = _PROCESSOR.unpack_from(body, at + i * _PROCESSOR.size)
        require(nodeid > 0 and boot > 0 and engine > 0, "a processor without identity")
        out.append(Processor(nodeid, boot, engine))
    require(all(a < b for a, b in pairwise(out)), "processors out of order")
    return tuple(out)


def _join(body: bytes) -> Join:
    _type, ring_seq, procs, fails, heards = _JOIN.unpack_from(body)
    size = _PROCESSOR.size
    require(len(body) == _JOIN.size + (procs + fails + heards) * size, "bad length of a Join")
    require(ring_seq < RING_SEQ_MAX, "impossible ring sequence")
    proc = _read_processors(body, _JOIN.size, procs)
    fail = _read_processors(body, _JOIN.size + procs * size, fails)
    heard = _read_processors(body, _JOIN.size + (procs + fails) * size, heards)
    require(bool(proc) and set(fail) < set(proc), "a failed processor that does not take part")
    return Join(ring_seq, proc, fail, heard)


def _beacon(body: bytes) -> Beacon:
    _type, ring_seq, rep, count = _BEACON.unpack_from(body)
    require(len(body) == _BEACON.size + count * _PROCESSOR.size, "bad length of a beacon")
    return Beacon(RingId(ring_seq, rep), _read_processors(body, _BEACON.size, count))


def _leave(body: bytes) -> Leave:
    require(len(body) == _LEAVE.size, "bad length")
    _type, seq, rep, gasp = _LEAVE.unpack(body)
    require(gasp <= 1, "bad flag")
    return Leave(RingId(seq, rep), bool(gasp))


def _hurry(body: bytes) -> Hurry:
    return Hurry(_only_ring(body))


def _only_ring(body: bytes) -> RingId:
    require(len(body) == _RING.size, "bad length")
    _type, seq, rep = _RING.unpack(body)
    return RingId(seq, rep)


def _commit(body: bytes) -> Commit:
    _type, ring_seq, rep, token_seq, count = _COMMIT.unpack_from(body)
    require(1 < count <= MEMBERS_MAX and len(body) == _COMMIT.size + count * _ENTRY.size, "bad count of members")
    require(0 < ring_seq < RING_SEQ_MAX and token_seq > 0, "impossible commit token")
    entries = []
    for i in range(count):
        nodeid, boot, engine, filled, old_seq, old_rep, aru, delivered, try_seq, try_rep, mask = _ENTRY.unpack_from(
            body, _COMMIT.size + i * _ENTRY.size)
        require(nodeid > 0 and boot > 0 and engine > 0 and filled <= 1, "bad entry")
        entries.append(Entry(Processor(nodeid, boot, engine), bool(filled), RingId(old_seq, old_rep), aru, delivered,
                             RingId(try_seq, try_rep), mask))
    nodeids = [e.processor.nodeid for e in entries]
    require(all(a < b for a, b in pairwise(nodeids)) and nodeids[0] == rep, "members out of order")
    return Commit(RingId(ring_seq, rep), token_seq, tuple(entries))


_DECODERS: dict[int, Callable[[bytes], Body]] = {
    frames.REGULAR: decode_regular,
    frames.TOKEN: decode_token,
    frames.PIECE: decode_piece,
    Type.JOIN: _join,
    Type.COMMIT: _commit,
    Type.BEACON: _beacon,
    Type.LEAVE: _leave,
    Type.HURRY: _hurry,
}
