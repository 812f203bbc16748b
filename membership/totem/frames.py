# SPDX-License-Identifier: GPL-2.0-only
"""The messages of an installed ring, and their bytes: the ordered frame, the token, and a piece of a frame that is sent again.

A frame is the unit that is ordered, stored, repaired and recovered. It holds whole application messages behind one vector of their
lengths, or one fragment of a message that is larger than a frame. The messages are cut out when they are delivered, so a frame
costs the same whether it carries one message or a thousand. As in wire.py: network order, and what encode does not make is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from membership.totem.limits import MESSAGE_MAX, MESSAGES_PER_FRAME, PAYLOAD_MAX, PIECE_MAX, RANGE_MAX, RTR_RANGES_MAX, WINDOW
from vcs.errors import RemoteError
from vcs.model import RingId

REGULAR = 1
TOKEN = 2
PIECE = 13
"Types: the first byte of a body. The others are wire.py's."
SAFE = 1
"Flag of a frame: its messages are of safe order."
ENCAPSULATED = 2
"Flag: the content is a whole frame of an old ring."
FRAGMENT = 4
"Flag: the content is a fragment of one message."

_REGULAR = struct.Struct(">BBQIQI")  # type, flags, ring seq, ring rep, seq, origin
_COUNT = struct.Struct(">H")  # messages; then so many u16 lengths, then their bytes
_FRAGMENT = struct.Struct(">II")  # total, offset
_TOKEN = struct.Struct(">BQIQQQIIIIIIBH")
# type, ring, token_seq, seq, aru, aru_id, rest_at, fcc, backlog, window, repaired, retrans, ranges
_RANGE = struct.Struct(">IQIB")  # who, first, count, tries
_PIECE = struct.Struct(">BQIQII")  # type, ring, seq, total, offset

SEQ_END = 1 << 63
"""Places and token numbers are below this: a ring that counts a thousand million a second reaches it in three hundred years, and one
more than any of them can still be encoded."""
FRAME_OVERHEAD = _REGULAR.size
"Bytes before a frame's content."
FRAME_MAX = FRAME_OVERHEAD + PAYLOAD_MAX
"Largest frame that carries messages."
BODY_MAX = FRAME_OVERHEAD + FRAME_MAX
"Largest frame: recovery wraps one once."
_LENGTHS: dict[int, struct.Struct] = {}
"The vectors of lengths by their count (at most MESSAGES_PER_FRAME)."


def require(ok: bool, what: str) -> None:
    """Raises RemoteError: a peer sent what no encoder makes."""
    if not ok:
        raise RemoteError(what)


def content_size(messages: int, size: int) -> int:
    """Content bytes of a frame with so many whole messages of ``size`` bytes in all."""
    return 2 + 2 * messages + size


class Fragment(NamedTuple):
    """A piece of one application message, alone in its frame."""

    total: int
    offset: int
    data: bytes


Content = Sequence[bytes] | Fragment
"What one frame carries: whole messages, or one fragment."
FRAGMENT_OVERHEAD = _FRAGMENT.size


class Regular:
    """A frame: one place in the ring's order. ``body`` is its encoding, kept so that a repair costs nothing."""

    __slots__ = ("_own", "body", "inner", "lengths", "origin", "ring", "safe", "seq")

    def __init__(self, ring: RingId, seq: int, origin: int, safe: bool, body: bytes,
                 lengths: tuple[int, ...] | None, inner: Regular | None, own: Content | None = None) -> None:
        self.ring = ring
        self.seq = seq
        self.origin = origin
        "Nodeid of the member that sent it first; a repair may come from another."
        self.safe = safe
        self.body = body
        self.lengths = lengths
        "Of the messages inside; None: a fragment, or a frame of recovery."
        self.inner = inner
        "The old ring's frame inside, if this is one of recovery."
        self._own = own
        "What it was made from, here: need not be cut out again."

    def content(self) -> Content:
        """What it carries, cut out of ``body``; nothing if it is a frame of recovery."""
        if self._own is not None:
            return self._own
        if self.inner is not None:
            return ()
        body, lengths = self.body, self.lengths
        if lengths is None:
            total, offset = _FRAGMENT.unpack_from(body, FRAME_OVERHEAD)
            return Fragment(total, offset, body[FRAME_OVERHEAD + FRAGMENT_OVERHEAD:])
        at = FRAME_OVERHEAD + 2 + 2 * len(lengths)
        if len(lengths) == 1:
            return (body[at:],)
        out = []
        for n in lengths:
            out.append(body[at:at + n])
            at += n
        return out


class Token:
    """The regular token. Mutable: a visit changes it in place and encodes it once."""

    __slots__ = ("aru", "aru_id", "backlog", "fcc", "repaired", "rest_at", "retrans", "ring", "rtr", "seq", "token_seq", "window")

    def __init__(self, ring: RingId, token_seq: int = 0, seq: int = 0, aru: int = 0, aru_id: int = 0, fcc: int = 0, backlog: int = 0,
                 retrans: bool = False, rtr: list[Range] | None = None, rest_at: int = 0, window: int = WINDOW, repaired: int = 0) -> None:
        self.ring = ring
        self.token_seq = token_seq
        self.seq = seq
        self.aru = aru
        self.aru_id = aru_id
        "Nodeid of the member that lowered ``aru``; 0: nobody."
        self.rest_at = rest_at
        "Nodeid of the member that sent the newest frame: there the token rests; 0: nobody."
        self.fcc = fcc
        "Units sent in the last rotation."
        self.backlog = backlog
        "Units that wait at all members together."
        self.window = window
        "Units that the member with the smallest receive buffer can take in one rotation."
        self.repaired = repaired
        "Frames sent again since the ring began, modulo 2^32."
        self.retrans = retrans
        "Somebody still has old messages to send (recovery)."
        self.rtr: list[Range] = rtr if rtr is not None else []
        "What is missing where; ascending and disjoint for each member."


class Range(NamedTuple):
    """A member misses the frames ``first`` to ``last``, both included."""

    who: int
    first: int
    last: int
    tries: int = 0
    "So many requests for them were in vain: see repair.py for who serves the next one, and how."


class Piece(NamedTuple):
    """A part of a frame's body that fits one datagram of the smallest size; the offset is a multiple of PIECE_MAX."""

    ring: RingId
    seq: int
    total: int
    offset: int
    data: bytes


# --- encoding ---------------------------------------------------------------------------------------------------------------


def _lengths(count: int) -> struct.Struct:
    found = _LENGTHS.get(count)
    if found is None:
        found = _LENGTHS[count] = struct.Struct(f">{count}H")
    return found


def make_regular(ring: RingId, seq: int, origin: int, safe: bool, content: Content) -> Regular:
    if isinstance(content, Fragment):
        head = _REGULAR.pack(REGULAR, FRAGMENT | safe, ring.seq, ring.rep, seq, origin)
        body = b"".join((head, _FRAGMENT.pack(content.total, content.offset), content.data))
        return Regular(ring, seq, origin, safe, body, None, None)
    lengths = tuple(map(len, content))
    head = _REGULAR.pack(REGULAR, SAFE if safe else 0, ring.seq, ring.rep, seq, origin)
    body = b"".join((head, _COUNT.pack(len(lengths)), _lengths(len(lengths)).pack(*lengths), *content))
    return Regular(ring, seq, origin, safe, body, lengths, None, content)


def make_encapsulated(ring: RingId, seq: int, origin: int, inner: Regular) -> Regular:
    body = _REGULAR.pack(REGULAR, ENCAPSULATED, ring.seq, ring.rep, seq, origin) + inner.body
    return Regular(ring, seq, origin, False, body, None, inner)


def encode_token(t: Token) -> bytes:
    ring = t.ring
    head = _TOKEN.pack(TOKEN, ring.seq, ring.rep, t.token_seq, t.seq, t.aru, t.aru_id, t.rest_at, t.fcc, t.backlog, t.window, t.repaired,
                       t.retrans, len(t.rtr))
    if not t.rtr:
        return head
    return head + b"".join(_RANGE.pack(who, first, last - first + 1, tries) for who, first, last, tries in t.rtr)


def encode_piece(piece: Piece) -> bytes:
    ring = piece.ring
    return _PIECE.pack(PIECE, ring.seq, ring.rep, piece.seq, piece.total, piece.offset) + piece.data


def cut(frame: Regular) -> list[bytes]:
    """``frame`` as encoded pieces."""
    body = frame.body
    return [encode_piece(Piece(frame.ring, frame.seq, len(body), at, body[at:at + PIECE_MAX])) for at in range(0, len(body), PIECE_MAX)]


# --- decoding (called by wire.decode, which turns a struct.error into a RemoteError) ----------------------------------------


def decode_regular(body: bytes) -> Regular:
    _type, flags, ring_seq, rep, seq, origin = _REGULAR.unpack_from(body)
    require(0 < seq < SEQ_END and origin > 0, "a frame without place or origin")
    size = len(body)
    if flags <= SAFE:
        (count,) = _COUNT.unpack_from(body, FRAME_OVERHEAD)
        require(0 < count <= MESSAGES_PER_FRAME and size <= FRAME_MAX, "bad count of messages")
        lengths = _lengths(count).unpack_from(body, FRAME_OVERHEAD + 2)
        require(FRAME_OVERHEAD + 2 + 2 * count + sum(lengths) == size, "lengths that do not fit")
        return Regular(RingId(ring_seq, rep), seq, origin, flags == SAFE, body, lengths, None)
    if flags | SAFE == FRAGMENT | SAFE:
        total, offset = _FRAGMENT.unpack_from(body, FRAME_OVERHEAD)
        length = size - FRAME_OVERHEAD - FRAGMENT_OVERHEAD
        require(0 < length < total <= MESSAGE_MAX and offset + length <= total and size <= FRAME_MAX, "bad fragment")
        return Regular(RingId(ring_seq, rep), seq, origin, bool(flags & SAFE), body, None, None)
    require(flags == ENCAPSULATED, "unknown flags")
    inner = body[FRAME_OVERHEAD:]
    require(len(inner) > FRAME_OVERHEAD and inner[0] == REGULAR and inner[1] != ENCAPSULATED, "no frame inside")
    return Regular(RingId(ring_seq, rep), seq, origin, False, body, None, decode_regular(inner))


def decode_token(body: bytes) -> Token:
    (_type, ring_seq, rep, token_seq, seq, aru, aru_id, rest_at, fcc, backlog, window, repaired, retrans,
     count) = _TOKEN.unpack_from(body)
    require(count <= RTR_RANGES_MAX and len(body) == _TOKEN.size + count * _RANGE.size, "bad count of ranges")
    require(aru <= seq < SEQ_END and retrans <= 1 and 0 < token_seq < SEQ_END, "impossible token")
    token = Token(RingId(ring_seq, rep), token_seq, seq, aru, aru_id, fcc, backlog, bool(retrans), None, rest_at, window, repaired)
    low, before = 0, 0
    for at in range(_TOKEN.size, len(body), _RANGE.size):
        who, first, n, tries = _RANGE.unpack_from(body, at)
        if who != before:
            require(who > before, "ranges out of order")
            low, before = 0, who
        require(0 < n <= RANGE_MAX and first > low and first + n - 1 <= seq, "bad range")
        low = first + n - 1
        token.rtr.append(Range(who, first, low, tries))
    return token


def decode_piece(body: bytes) -> Piece:
    _type, ring_seq, rep, seq, total, offset = _PIECE.unpack_from(body)
    length = len(body) - _PIECE.size
    require(0 < seq < SEQ_END and PIECE_MAX < total <= BODY_MAX, "impossible piece")
    require(offset < total and offset % PIECE_MAX == 0 and length == min(PIECE_MAX, total - offset), "bad piece")
    return Piece(RingId(ring_seq, rep), seq, total, offset, body[_PIECE.size:])
