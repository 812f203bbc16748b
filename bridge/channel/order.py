# SPDX-License-Identifier: GPL-2.0-only
"""One group's messages as every member sees them: which count, in which event, with which sequence. Pure, and the same everywhere.

Bundles and the coordinator's messages come in one total order. So "the event in force" is the same at every member at the place of a
bundle, and counting gives every message the same sequence.

A bundle counts only in the ring that its head names, and its sender names a ring only once the coordinator has merged there. Anything
sent earlier, and delivered later, is void at every member alike, and its sender repeats it. Members that went different ways
between two rings (and were not taken out of the group for it) find out by *sync* messages, the first that each sends in a new ring:
who was with fewer members has missed messages, and its channels are closed. A daemon that was restarted begins in the middle of an
event, without any of its messages, and learns in the same way where the others count.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from vcs.batch import Position

_PLACE = struct.Struct("<QQI")
RECENT_MAX = 4096
"Bytes."


def _empty() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _standing(mark: Position) -> tuple[int, int, int]:
    """Whose count is right: of those with the most companions the lowest. Those who began in the middle have none; if there is nobody
    else, who counted furthest."""
    return mark.companions, 0 if mark.companions else mark.seq, -mark.lowest


@dataclass(slots=True)
class GroupOrder:
    """A group that this node is a member of."""

    name: str
    event: int = 0
    "In force: the newest that was started; 0 before the first."
    members: frozenset[int] = frozenset()
    count: int = 0
    "Messages of the event so far."
    paused: set[int] = field(default_factory=set)
    "Members with a program that is behind: nobody hands in more."
    behind: int = 0
    "This node, as long as it began in the middle of the event and was not told where the others count; else 0."
    mark: Position | None = None
    "Where this node stood when the ring began; None if it was in no event of the group then."
    _places: hashlib.blake2b = field(default_factory=_empty)
    _recent: bytearray = field(default_factory=bytearray)
    "Places that are not in the digest yet."

    def start(self, event: int, members: frozenset[int]) -> bool:
        """The event is started: messages behind this place are of it. False: it was in force already."""
        if event == self.event:
            return False
        self.event, self.members, self.count, self.behind = event, members, 0, 0
        self._forget()
        return True

    def enter(self, event: int, members: frozenset[int], nodeid: int, ring_seq: int) -> None:
        """The same for an event that was started before this node (a daemon of it) began to count, which it does in this ring. Should
        there be nobody left who knows better, no number is given twice."""
        self.start(event, members)
        self.behind, self.count = nodeid, ring_seq << 32
        self.mark = Position(event, self.count, 0, nodeid, self._digest())

    def accept(self, sender: int, ring_seq: int, seq: int, messages: int) -> int:
        """A bundle of so many messages: the sequence of the first one, or 0 if its sender is no member."""
        if sender not in self.members:
            return 0
        first = self.count + 1
        self.count += messages
        self._recent += _PLACE.pack(ring_seq, seq, sender)
        if len(self._recent) >= RECENT_MAX:
            self._digest()
        return first

    def _digest(self) -> bytes:
        """Of the places of all bundles since the event or the last sync."""
        self._places.update(self._recent)
        self._recent.clear()
        return self._places.digest()

    def _forget(self) -> None:
        self._places = _empty()
        self._recent.clear()

    def new_ring(self, companions: frozenset[int]) -> None:
        """A new regular configuration, into which ``companions`` came together with this node."""
        self.paused.clear()
        along = frozenset() if self.behind else companions & self.members
        lowest = self.behind or min(along, default=0)
        self.mark = Position(self.event, self.count, len(along), lowest, self._digest()) if self.event else None

    def synced(self) -> None:
        """The sync is sent: differences from here on can only come from a later ring."""
        self._forget()

    def missed(self, theirs: Position) -> bool:
        """Another member's sync: has this node missed what that one has?"""
        mine = self.mark
        if mine is None or (mine.event, mine.seq, mine.digest) == (theirs.event, theirs.seq, theirs.digest):
            return False
        if mine.event != theirs.event:
            return mine.event < theirs.event
        return _standing(theirs) > _standing(mine)

    def adopt(self, theirs: Position) -> None:
        """Count on from where the others are; what came since the ring began has been counted here too."""
        if self.mark is not None and self.event == theirs.event:
            self.count += theirs.seq - (self.mark.seq if self.mark.event == theirs.event else 0)
            self.mark = theirs
            self.behind = self.behind if not theirs.companions else 0
