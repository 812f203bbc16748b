# SPDX-License-Identifier: GPL-2.0-only
"""What is inside a frame: the messages of the protocol and their bytes (network order, fixed layouts, no padding).

``decode`` accepts exactly what ``encode`` makes: any other input raises :class:`~vcs.errors.RemoteError`, whatever its bytes. The
frame around it (version, cluster, sender, incarnations, counter, seal) is seal.py's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from membership.api import Processor
from membership.totem.limits import (
    MEMBERS_MAX,
    MESSAGE_MAX,
    PROCESSORS_MAX,
    RANGE_MAX,
    RING_SEQ_MAX,
    RTR_RANGES_MAX,
)
from vcs.errors import RemoteError
from vcs.model import RingId


class Type(IntEnum):
    REGULAR = 1
    TOKEN = 2
    JOIN = 3
    COMMIT = 4
    BEACON = 5
    LEAVE = 6
    HURRY = 7


SAFE = 1
"Flag of a regular message: it holds application messages of safe order."
ENCAPSULATED = 2
"Flag: the payload is a whole regular message of an old ring."

_REGULAR = struct.Struct(">BBQIQI")  # type, flags, ring seq, ring rep, seq, origin
_TOKEN = struct.Struct(">BQIQQQIIIBH")  # type, ring, token_seq, seq, aru, aru_id, fcc, backlog, retrans, ranges
_RANGE = struct.Struct(">QI")  # first, count
_JOIN = struct.Struct(">BQHHH")  # type, ring_seq, proc, fail, heard
_RING = struct.Struct(">BQI")  # type, ring
_LEAVE = struct.Struct(">BQIB")  # type, ring, gasp
_BEACON = struct.Struct(">BQIH")  # type, ring, heard
_COMMIT = struct.Struct(">BQIQH")  # type, ring, token_seq, entries
_ENTRY = struct.Struct(">IQQBQIQQQIQ")  # processor, filled, old ring, aru, delivered, attempt, obligations
_PROCESSOR = struct.Struct(">IQQ")
_WHOLE = struct.Struct(">HB")  # length, kind 0
_FRAGMENT = struct.Struct(">HBII")  # length, kind 1, total, offset

WHOLE_OVERHEAD = _WHOLE.size
FRAGMENT_OVERHEAD = _FRAGMENT.size

Part = tuple[int, int, bytes]
"One application message or a piece of one: (total length, offset, bytes); a whole one has offset 0 and len(bytes) == total."


class Regular:
    """A regular message: one place in the ring's order. ``body`` is its encoding, kept so that a repair costs nothing."""

    __slots__ = ("body", "inner", "origin", "parts", "ring", "safe", "seq")

    def __init__(self, ring: RingId, seq: int, origin: int, safe: bool, body: bytes,
                 parts: tuple[Part, ...], inner: Regular | None) -> None:
        self.ring = ring
        self.seq = seq
        self.origin = origin
        "Nodeid of the member that sent it first; a repair may come from another."
        self.safe = safe
        self.body = body
        self.parts = parts
        self.inner = inner
        "The old ring's message inside, if this is one of recovery."


class Token:
    """The regular token. Mutable: a visit changes it in place and encodes it once."""

    __slots__ = ("aru", "aru_id", "backlog", "fcc", "retrans", "ring", "rtr", "seq", "token_seq")

    def __init__(self, ring: RingId, token_seq: int = 0, seq: int = 0, aru: int = 0, aru_id: int = 0, fcc: int = 0,
                 backlog: int = 0, retrans: bool = False, rtr: list[tuple[int, int]] | None = None) -> None:
        self.ring = ring
        self.token_seq = token_seq
        self.seq = seq
        self.aru = aru
        self.aru_id = aru_id
        "Nodeid of the member that lowered ``aru``; 0: nobody."
        self.fcc = fcc
        self.backlog = backlog
        self.retrans = retrans
        "Somebody still has old messages to send (recovery)."
        self.rtr: list[tuple[int, int]] = rtr if rtr is not None else []
        "Missing frames as (first, last), both included, ascending and disjoint."


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


Body = Regular | Token | Join | Beacon | Leave | Hurry | Commit


# --- encoding ---------------------------------------------------------------------------------------------------------------


def pack_parts(parts: Iterable[Part]) -> bytes:
    out = []
    for total, offset, data in parts:
        if len(data) == total:
            out.append(_WHOLE.pack(len(data), 0))
        else:
            out.append(_FRAGMENT.pack(len(data), 1, total, offset))
        out.append(data)
    return b"".join(out)


def make_regular(ring: RingId, seq: int, origin: int, safe: bool, parts: tuple[Part, ...]) -> Regular:
    body = _REGULAR.pack(Type.REGULAR, SAFE if safe else 0, ring.seq, ring.rep, seq, origin) + pack_parts(parts)
    return Regular(ring, seq, origin, safe, body, parts, None)


def make_encapsulated(ring: RingId, seq: int, origin: int, inner: Regular) -> Regular:
    body = _REGULAR.pack(Type.REGULAR, ENCAPSULATED, ring.seq, ring.rep, seq, origin) + inner.body
    return Regular(ring, seq, origin, False, body, (), inner)


def encode(message: Body) -> bytes:
    match message:
        case Regular():
            return message.body
        case Token():
            return encode_token(message)
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


def encode_token(t: Token) -> bytes:
    ring = t.ring
    head = _TOKEN.pack(Type.TOKEN, ring.seq, ring.rep, t.token_seq, t.seq, t.aru, t.aru_id, t.fcc, t.backlog, t.retrans, len(t.rtr))
    if not t.rtr:
        return head
    return head + b"".join(_RANGE.pack(first, last - first + 1) for first, last in t.rtr)


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


def _require(ok: bool, what: str) -> None:
    if not ok:
        raise RemoteError(what)


def _regular(body: bytes) -> Regular:
    _type, flags, ring_seq, rep, seq, origin = _REGULAR.unpack_from(body)
    _require(flags in (0, SAFE, ENCAPSULATED), "unknown flags")
    _require(seq > 0 and origin > 0, "a regular message without place or origin")
    ring = RingId(ring_seq, rep)
    if flags == ENCAPSULATED:
        inner_body = body[_REGULAR.size:]
        _require(len(inner_body) > _REGULAR.size and inner_body[0] == Type.REGULAR, "no message inside")
        _require(inner_body[1] != ENCAPSULATED, "encapsulated twice")
        return Regular(ring, seq, origin, False, body, (), _regular(inner_body))
    return Regular(ring, seq, origin, flags == SAFE, body, _parts(body, _REGULAR.size), None)


def _parts(body: bytes, at: int) -> tuple[Part, ...]:
    parts = []
    end = len(body)
    while at < end:
        length, kind = _WHOLE.unpack_from(body, at)
        if kind == 0:
            at += _WHOLE.size
            total, offset = length, 0
        else:
            _length, kind, total, offset = _FRAGMENT.unpack_from(body, at)
            at += _FRAGMENT.size
            _require(kind == 1 and 0 < length < total <= MESSAGE_MAX and offset + length <= total, "bad fragment")
        _require(at + length <= end, "a part beyond the end")
        parts.append((total, offset, body[at:at + length]))
        at += length
    _require(bool(parts), "a regular message without content")
    return tuple(parts)


def _token(body: bytes) -> Token:
    _type, ring_seq, rep, token_seq, seq, aru, aru_id, fcc, backlog, retrans, count = _TOKEN.unpack_from(body)
    _require(count <= RTR_RANGES_MAX and len(body) == _TOKEN.size + count * _RANGE.size, "bad count of ranges")
    _require(aru <= seq and retrans <= 1 and token_seq > 0, "impossible token")
    rtr: list[tuple[int, int]] = []
    low = 0
    for i in range(count):
        first, n = _RANGE.unpack_from(body, _TOKEN.size + i * _RANGE.size)
        _require(0 < n <= RANGE_MAX and first > low and first + n - 1 <= seq, "bad range")
        low = first + n - 1
        rtr.append((first, low))
    return Token(RingId(ring_seq, rep), token_seq, seq, aru, aru_id, fcc, backlog, bool(retrans), rtr)


def _read_processors(body: bytes, at: int, count: int) -> tuple[Processor, ...]:
    _require(count <= PROCESSORS_MAX, "too many processors")
    out = []
    for i in range(count):
        nodeid, boot, engine = _PROCESSOR.unpack_from(body, at + i * _PROCESSOR.size)
        _require(nodeid > 0 and boot > 0 and engine > 0, "a processor without identity")
        out.append(Processor(nodeid, boot, engine))
    _require(all(a < b for a, b in pairwise(out)), "processors out of order")
    return tuple(out)


def _join(body: bytes) -> Join:
    _type, ring_seq, procs, fails, heards = _JOIN.unpack_from(body)
    size = _PROCESSOR.size
    _require(len(body) == _JOIN.size + (procs + fails + heards) * size, "bad length of a Join")
    _require(ring_seq < RING_SEQ_MAX, "impossible ring sequence")
    proc = _read_processors(body, _JOIN.size, procs)
    fail = _read_processors(body, _JOIN.size + procs * size, fails)
    heard = _read_processors(body, _JOIN.size + (procs + fails) * size, heards)
    _require(bool(proc) and set(fail) < set(proc), "a failed processor that does not take part")
    return Join(ring_seq, proc, fail, heard)


def _beacon(body: bytes) -> Beacon:
    _type, ring_seq, rep, count = _BEACON.unpack_from(body)
    _require(len(body) == _BEACON.size + count * _PROCESSOR.size, "bad length of a beacon")
    return Beacon(RingId(ring_seq, rep), _read_processors(body, _BEACON.size, count))


def _leave(body: bytes) -> Leave:
    _require(len(body) == _LEAVE.size, "bad length")
    _type, seq, rep, gasp = _LEAVE.unpack(body)
    _require(gasp <= 1, "bad flag")
    return Leave(RingId(seq, rep), bool(gasp))


def _hurry(body: bytes) -> Hurry:
    return Hurry(_only_ring(body))


def _only_ring(body: bytes) -> RingId:
    _require(len(body) == _RING.size, "bad length")
    _type, seq, rep = _RING.unpack(body)
    return RingId(seq, rep)


def _commit(body: bytes) -> Commit:
    _type, ring_seq, rep, token_seq, count = _COMMIT.unpack_from(body)
    _require(1 < count <= MEMBERS_MAX and len(body) == _COMMIT.size + count * _ENTRY.size, "bad count of members")
    _require(0 < ring_seq < RING_SEQ_MAX and token_seq > 0, "impossible commit token")
    entries = []
    for i in range(count):
        nodeid, boot, engine, filled, old_seq, old_rep, aru, delivered, try_seq, try_rep, mask = _ENTRY.unpack_from(
            body, _COMMIT.size + i * _ENTRY.size)
        _require(nodeid > 0 and boot > 0 and engine > 0 and filled <= 1, "bad entry")
        entries.append(Entry(Processor(nodeid, boot, engine), bool(filled), RingId(old_seq, old_rep), aru, delivered,
                             RingId(try_seq, try_rep), mask))
    nodeids = [e.processor.nodeid for e in entries]
    _require(all(a < b for a, b in pairwise(nodeids)) and nodeids[0] == rep, "members out of order")
    return Commit(RingId(ring_seq, rep), token_seq, tuple(entries))


_DECODERS: dict[int, Callable[[bytes], Body]] = {
    Type.REGULAR: _regular,
    Type.TOKEN: _token,
    Type.JOIN: _join,
    Type.COMMIT: _commit,
    Type.BEACON: _beacon,
    Type.LEAVE: _leave,
    Type.HURRY: _hurry,
}
