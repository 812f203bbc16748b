# SPDX-License-Identifier: GPL-2.0-only
"""One ring: its members, the frames it ordered, how far they are received, delivered and released, and where the token stands."""

from __future__ import annotations

from membership.api import Processor
from membership.totem.frames import Piece, Regular, Token
from membership.totem.limits import STORE_BYTES_MAX, STORE_MAX
from membership.totem.repair import Asks, Pieces
from membership.totem.wire import decode
from vcs.errors import RemoteError
from vcs.model import RingId


class TokenState:
    """What this member remembers of the token between two visits."""

    __slots__ = ("calm", "held", "hurried", "idle", "last_body", "own_backlog", "own_sent", "prev_aru", "prev_seq", "rest_at",
                 "retransmits", "sample_repaired", "sample_seq", "seen", "sent_ns", "stalled", "still_since", "still_visits")

    def __init__(self) -> None:
        self.seen = 0
        "Highest token_seq accepted; older ones are copies."
        self.last_body: bytes | None = None
        "The token as we passed it on, to send again."
        self.sent_ns: int | None = None
        "When it was first passed on, while the ring is a regular configuration; None before."
        self.prev_aru = 0
        self.prev_seq = 0
        self.own_sent = 0
        "Our part in the token's fcc."
        self.own_backlog = 0
        "Our part in the token's backlog."
        self.still_visits = 0
        "Visits during which another member's acknowledgement stood still..."
        self.still_since = 0
        "... and since when."
        self.idle = 0
        "Rotations without news."
        self.calm = False
        "The token brought no new frame: it may rest somewhere."
        self.stalled = 0
        "Rotations that moved nothing although something is missing."
        self.rest_at = 0
        "Where it rests: who sent the newest frame; 0: nobody yet."
        self.held: Token | None = None
        "The resting token, not yet processed."
        self.hurried = False
        self.retransmits = 0
        self.sample_seq = 0
        self.sample_repaired = 0
        "Where the count of repairs began (FrameSize)."


class Ring:
    """An installed ring or one that is being formed."""

    __slots__ = ("aru", "asks", "by_id", "delivered", "distance", "high", "id", "local", "members", "nodeids", "others", "pieces",
                 "predecessor", "released", "safe_upto", "store", "stored_bytes", "successor", "token")

    def __init__(self, ring: RingId, members: tuple[Processor, ...], local: Processor) -> None:
        self.id = ring
        self.members = members
        self.local = local
        self.nodeids = tuple(p.nodeid for p in members)
        self.by_id = {p.nodeid: p for p in members}
        self.others = tuple(n for n in self.nodeids if n != local.nodeid)
        at = self.nodeids.index(local.nodeid)
        self.distance = {n: (at - i) % len(members) for i, n in enumerate(self.nodeids) if n != local.nodeid}
        "Hops that the token takes from each other member to us."
        self.successor = self.nodeids[(at + 1) % len(members)]
        self.predecessor = self.nodeids[at - 1]
        self.store: dict[int, Regular] = {}
        self.stored_bytes = 0
        self.aru = 0
        "All frames up to this one are here (or were, and are released)."
        self.high = 0
        "Highest frame known to exist."
        self.delivered = 0
        "All frames up to this one are delivered to the application."
        self.safe_upto = 0
        "All members are known to hold the frames up to this one."
        self.released = 0
        "Frames up to this one are no longer stored: everybody has them and they are delivered here."
        self.asks = Asks()
        self.pieces = Pieces()
        self.token = TokenState()

    @property
    def rep(self) -> int:
        return self.nodeids[0]

    @property
    def resting_place(self) -> int:
        """Where the token rests, as far as we know: at the member that spoke last, else at the representative."""
        at = self.token.rest_at
        return at if at in self.by_id else self.nodeids[0]

    def add(self, message: Regular) -> bool:
        """Store a frame. False: it is here already, or beyond all limits."""
        seq = message.seq
        store = self.store
        aru = self.aru
        if seq <= aru or seq in store or seq > aru + STORE_MAX:
            return False
        if seq == aru + 1:
            store[seq] = message
            aru = seq
            while aru + 1 in store:
                aru += 1
            self.aru = aru
        elif self.stored_bytes > 2 * STORE_BYTES_MAX:
            return False
        else:
            store[seq] = message
        self.stored_bytes += len(message.body)
        self.high = max(self.high, seq)
        return True

    def take_piece(self, piece: Piece) -> Regular | None:
        """The frame that ``piece`` completes, if it is missing here. Raises RemoteError when the pieces make no frame of this place."""
        if piece.seq <= self.aru or piece.seq in self.store or piece.seq > self.aru + STORE_MAX:
            return None
        body = self.pieces.feed(piece)
        if body is None:
            return None
        frame = decode(body)
        if isinstance(frame, Regular) and frame.ring == self.id and frame.seq == piece.seq:
            return frame
        raise RemoteError("pieces of something else")

    def missing(self, upto: int) -> list[tuple[int, int]]:
        """Ranges of frames up to ``upto`` that are not here."""
        ranges: list[tuple[int, int]] = []
        store = self.store
        seq = self.aru + 1
        upto = min(upto, self.aru + STORE_MAX)
        while seq <= upto:
            if seq in store:
                seq += 1
                continue
            first = seq
            while seq <= upto and seq not in store:
                seq += 1
            ranges.append((first, seq - 1))
        return ranges

    def release(self, upto: int) -> None:
        """Forget frames that every member holds and that are delivered here."""
        upto = min(upto, self.delivered)
        if upto <= self.released:
            return
        pop = self.store.pop
        for seq in range(self.released + 1, upto + 1):
            frame = pop(seq, None)
            if frame is not None:
                self.stored_bytes -= len(frame.body)
        self.released = upto
