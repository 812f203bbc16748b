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
from membership.totem import control, frames
from membership.totem.clique import Claim
from membership.totem.control import Control
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
from membership.totem.limits import LISTS_MAX, MEMBERS_MAX, PROCESSORS_MAX, RING_SEQ_MAX
from vcs.errors import RemoteError
from vcs.model import RingId


class Type(IntEnum):
    """Those of frames.py (1, 2, 13) are not here."""

    JOIN = 3
    COMMIT = 4
    BEACON = 5
    LEAVE = 6
    HURRY = 7


_JOIN = struct.Struct(">BQQHHH16s16s16s16s")  # type, ring_seq, seq, proc, more heard, claims, masks over proc: fail, heard, choice, vouched
_CLAIMS = struct.Struct(">H16s")  # index of the claimant in proc, mask over proc
_RING = struct.Struct(">BQI")  # type, ring
_LEAVE = struct.Struct(">BQIB")  # type, ring, gasp
_BEACON = struct.Struct(">BQIHHH")  # type, ring, members, apart, heard
_APART = struct.Struct(">IQ")
_COMMIT = struct.Struct(">BQIQH")  # type, ring, token_seq, entries
_ENTRY = struct.Struct(">IQQBQIQQQIQ")  # processor, filled, old ring, aru, delivered, attempt, obligations
_PROCESSOR = struct.Struct(">IQQ")


@dataclass(frozen=True, slots=True)
class Join:
    ring_seq: int
    "Highest ring sequence that the sender has persisted."
    seq: int
    "Number of the sender's Join: a later one replaces what an earlier one chose."
    proc: tuple[Processor, ...]
    fail: tuple[Processor, ...]
    heard: tuple[Processor, ...]
    "Whom the sender has heard lately: only a Join that names its receiver is fresh."
    choice: tuple[Processor, ...]
    "With whom the sender is ready to form a ring; some of ``proc``."
    vouched: tuple[Processor, ...]
    "Some of ``proc`` that somebody cannot reach and somebody else has just heard."
    claims: tuple[Claim, ...]
    "(p, q): by p's word it has no round trip with q; both of ``proc``. Ascending."


@dataclass(frozen=True, slots=True)
class Beacon:
    ring: RingId
    members: tuple[int, ...]
    apart: tuple[tuple[int, int], ...]
    "(outsider, mask over ``members``): with whom of them it has no round trip, by their word. Ascending."
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


Body = Regular | Token | Piece | Join | Beacon | Leave | Hurry | Commit | Control


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
            return _join_bytes(message)
        case Beacon():
            return _beacon_bytes(message)
        case Leave():
            return _LEAVE.pack(Type.LEAVE, message.ring.seq, message.ring.rep, message.gasp)
        case Hurry():
            return _RING.pack(Type.HURRY, message.ring.seq, message.ring.rep)
        case Commit():
            ring = message.ring
            head = _COMMIT.pack(Type.COMMIT, ring.seq, ring.rep, message.token_seq, len(message.entries))
            return head + b"".join(_entry(e) for e in message.entries)
        case _:
            return control.encode(message)


def _processors(processors: tuple[Processor, ...]) -> bytes:
    return b"".join(_PROCESSOR.pack(p.nodeid, p.boot, p.engine) for p in processors)


def _join_bytes(message: Join) -> bytes:
    at = {p: 1 << i for i, p in enumerate(message.proc)}
    more = tuple(p for p in message.heard if p not in at)
    rows: dict[Processor, int] = {}
    for p, q in message.claims:
        rows[p] = rows.get(p, 0) | at[q]
    index = {p: i for i, p in enumerate(message.proc)} if rows else {}

    def mask(some: tuple[Processor, ...]) -> bytes:
        return sum(at.get(p, 0) for p in some).to_bytes(16, "big")

    head = _JOIN.pack(Type.JOIN, message.ring_seq, message.seq, len(message.proc), len(more), len(rows), mask(message.fail),
                      mask(message.heard), mask(message.choice), mask(message.vouched))
    claims = [_CLAIMS.pack(index[p], row.to_bytes(16, "big")) for p, row in sorted(rows.items())]
    return head + _processors(message.proc) + _processors(more) + b"".join(claims)


def _beacon_bytes(message: Beacon) -> bytes:
    ring, members, apart = message.ring, message.members, message.apart
    head = _BEACON.pack(Type.BEACON, ring.seq, ring.rep, len(members), len(apart), len(message.heard))
    return (head + struct.pack(f">{len(members)}I", *members) + b"".join(_APART.pack(q, mask) for q, mask in apart)
            + _processors(message.heard))


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


_lists: dict[bytes, tuple[Processor, ...]] = {}
"Lists that came lately: in a gathering all tell the same one."


def _read_processors(body: bytes, at: int, count: int) -> tuple[Processor, ...]:
    if not count:
        return ()
    key = body[at:at + count * _PROCESSOR.size]
    known = _lists.get(key)
    if known is not None:
        return known
    require(count <= PROCESSORS_MAX, "too many processors")
    out = tuple(Processor(*_PROCESSOR.unpack_from(key, i * _PROCESSOR.size)) for i in range(count))
    require(all(map(all, out)), "a processor without identity")
    require(all(a < b for a, b in pairwise(out)), "processors out of order")
    if len(_lists) >= LISTS_MAX:
        _lists.clear()
    _lists[key] = out
    return out


def _join(body: bytes) -> Join:
    _type, ring_seq, seq, procs, mores, rows, *masks = _JOIN.unpack_from(body)
    size = _PROCESSOR.size
    require(len(body) == _JOIN.size + (procs + mores) * size + rows * _CLAIMS.size, "bad length of a Join")
    require(ring_seq < RING_SEQ_MAX, "impossible ring sequence")
    proc = _read_processors(body, _JOIN.size, procs)
    more = _read_processors(body, _JOIN.size + procs * size, mores)
    fail, heard, choice, vouched = (_of_mask(proc, m) for m in masks)
    heard = tuple(sorted(heard + more)) if more else heard
    require(bool(proc) and not set(more) & set(proc), "heard twice")
    require(bool(choice) and not set(choice) & set(fail), "nobody chosen, or one that has failed")
    claims: list[Claim] = []
    at, last = _JOIN.size + (procs + mores) * size, -1
    for _ in range(rows):
        index, row = _CLAIMS.unpack_from(body, at)
        at += _CLAIMS.size
        others = _of_mask(proc, row)
        require(last < index < procs and bool(others), "claims out of order, or none")
        last, p = index, proc[index]
        require(p not in others, "a claim about itself")
        claims += [(p, q) for q in others]
    return Join(ring_seq, seq, proc, fail, heard, choice, vouched, tuple(claims))


def _of_mask(proc: tuple[Processor, ...], mask: bytes) -> tuple[Processor, ...]:
    bits = int.from_bytes(mask, "big")
    require(bits >> len(proc) == 0, "a mask with more than there is")
    if bits == (1 << len(proc)) - 1:
        return proc
    return tuple(p for i, p in enumerate(proc) if bits >> i & 1) if bits else ()


def _beacon(body: bytes) -> Beacon:
    _type, ring_seq, rep, count, rows, heards = _BEACON.unpack_from(body)
    require(count <= MEMBERS_MAX and rows <= MEMBERS_MAX, "too many nodes")
    at = _BEACON.size + 4 * count
    require(len(body) == at + rows * _APART.size + heards * _PROCESSOR.size, "bad length of a beacon")
    members = struct.unpack_from(f">{count}I", body, _BEACON.size)
    apart = tuple(_APART.unpack_from(body, at + i * _APART.size) for i in range(rows))
    require(all(a < b for a, b in pairwise(members)) and all(a[0] < b[0] for a, b in pairwise(apart)), "out of order")
    require(all(0 < mask < 1 << count for _q, mask in apart), "a mask with more than there is")
    return Beacon(RingId(ring_seq, rep), members, apart, _read_processors(body, at + rows * _APART.size, heards))


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
    **control.DECODERS,
}
