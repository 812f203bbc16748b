# SPDX-License-Identifier: GPL-2.0-only
"""Repair: what to ask for and when, whom to serve, and how a large frame comes in pieces.

A member asks for what it lacks through the token, by name, so that a holder sends it to those who lack it and to nobody else. The
first two requests follow each other at the token's pace; then each waits twice as long as the one before, or a member that cannot be
reached would have the same frames sent to it at every rotation. When one of them comes, the others need not wait. From the second
request on, a frame that needs several segments comes in pieces, which are lost one by one and kept until they are complete.

The first member on the token's way that holds a frame serves a request. That may be the one whose way to the asker is broken, so from
the third request on the next members after the asker leave it alone: one of them, then two, and so on, round and round.
"""

from __future__ import annotations

from membership.totem.frames import Piece, Range
from membership.totem.limits import ASK_AGAIN_MAX_NS, ASK_AGAIN_NS, PIECE_MAX, PIECED_MAX, TRIES_MAX


class Asks:
    """How often each missing frame was asked for, and when it may be again."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: dict[int, tuple[int, int]] = {}
        "seq -> (times, not before)."

    def __len__(self) -> int:
        return len(self._asked)

    def due(self, who: int, missing: list[tuple[int, int]], now: int, most: int) -> list[Range]:
        """At most ``most`` ranges out of ``missing`` whose time has come, noted as asked. What is no longer missing is forgotten."""
        before, after = self._asked, {}
        here = len(before) > sum(seq in before for first, last in missing for seq in range(first, last + 1))
        out: list[Range] = []
        for first, last in missing:
            for seq in range(first, last + 1):
                times, at = before.get(seq, (0, 0))
                joins = bool(out) and out[-1].last == seq - 1 and out[-1].tries == times
                if (now < at and not here) or (not joins and len(out) == most):
                    after[seq] = (times, at)
                    continue
                if joins:
                    out[-1] = out[-1]._replace(last=seq)
                else:
                    out.append(Range(who, seq, seq, times))
                wait = min(ASK_AGAIN_NS << min(times - 1, 16), ASK_AGAIN_MAX_NS) if times else 0
                after[seq] = (times + 1 if times < TRIES_MAX else 1, now + wait)
        self._asked = after
        return out

    def clear(self) -> None:
        self._asked = {}


def wanted(rtr: list[Range], low: int, high: int, distance: dict[int, int]) -> dict[int, tuple[list[int], bool]]:
    """seq -> (who asks us for it, whether in pieces) for the frames in ``low`` to ``high``, ascending.

    ``distance``: of each other member to us, in hops of the token.
    """
    found: dict[int, tuple[list[int], bool]] = {}
    others = len(distance)
    for who, first, last, tries in rtr:
        hops = distance.get(who, 0)
        if not hops or (tries > 1 and hops <= (tries - 1) % others):
            continue
        for seq in range(max(first, low), min(last, high) + 1):
            askers, cut = found.get(seq, ((), False))
            found[seq] = ([*askers, who], cut or tries > 0)
    return dict(sorted(found.items()))


def without(rtr: list[Range], served: set[tuple[int, int]], who: int) -> list[Range]:
    """``rtr`` less what was ``served``, as (who, seq), and what ``who`` asked for."""
    out: list[Range] = []
    for r in rtr:
        if r.who == who:
            continue
        start = r.first
        for seq in range(r.first, r.last + 1) if served else ():
            if (r.who, seq) in served:
                if start < seq:
                    out.append(r._replace(first=start, last=seq - 1))
                start = seq + 1
        if start <= r.last:
            out.append(r._replace(first=start))
    return out


class Pieces:
    """Frames that come in pieces. At most PIECED_MAX at a time, the lowest ones."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial: dict[int, tuple[bytearray, set[int]]] = {}
        "seq -> (body so far, offsets that are here)."

    def __len__(self) -> int:
        return len(self._partial)

    def feed(self, piece: Piece) -> bytes | None:
        """The body that ``piece`` completes, or None."""
        partial = self._partial
        held = partial.get(piece.seq)
        if held is None or len(held[0]) != piece.total:
            if held is None and len(partial) >= PIECED_MAX:
                highest = max(partial)
                if highest < piece.seq:
                    return None
                del partial[highest]
            held = partial[piece.seq] = (bytearray(piece.total), set())
        body, offsets = held
        body[piece.offset:piece.offset + len(piece.data)] = piece.data
        offsets.add(piece.offset)
        if len(offsets) * PIECE_MAX < piece.total:
            return None
        del partial[piece.seq]
        return bytes(body)

    def forget(self, upto: int) -> None:
        """Frames up to ``upto`` are here."""
        if self._partial:
            self._partial = {seq: held for seq, held in self._partial.items() if seq > upto}
