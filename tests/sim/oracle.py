# SPDX-License-Identifier: GPL-2.0-only
"""An ideal engine: extended virtual synchrony by decree, for testing what stands on it.

Every ring has one log. A member *receives* it from the front, each at its own pace; an entry is delivered in the regular configuration
once every member has received it (safe delivery). When the network changes, those who move on together deliver the stable prefix, then
the transitional configuration, then what any of them had received beyond it, then the new regular configuration. That is what a
correct engine promises, with its nastiest legal timing; how an engine keeps the promise is tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from membership.api import Configuration, EngineEvent, Health, Kind, Message, Processor, Rotation
from tests.sim.world import World
from vcs.model import RingId

HOP_NS = (200_000, 3_000_000)
"How long one member takes to receive the next entry."
FORM_NS = (5_000_000, 60_000_000)
"How long a new configuration takes to form."
ROTATE_NS = 200_000_000


@dataclass(slots=True)
class Ring:
    ring: RingId
    members: tuple[Processor, ...]
    log: list[tuple[Processor, bytes]] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)
    delivered: dict[int, int] = field(default_factory=dict)
    began: dict[int, int] = field(default_factory=dict)

    def stable(self) -> int:
        return min(self.received.values())


@dataclass(slots=True)
class Seat:
    """One engine process."""

    who: Processor
    sink: Callable[[EngineEvent], None]
    ring: Ring | None = None
    queue: list[bytes] = field(default_factory=list)
    paused: bool = False


class Oracle:
    """``cut(groups)`` says who can hear whom; nodes outside all groups are alone."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("engine")
        self.seats: dict[int, Seat] = {}
        self.ring_seq: dict[int, int] = {}
        "The persisted ring sequence per node: it survives the process."
        self.sides: list[set[int]] = []
        self._forming = False
        self._again = False

    # --- life of a node ---------------------------------------------------------------------------------------------------
    def start(self, who: Processor, sink: Callable[[EngineEvent], None]) -> None:
        seat = self.seats[who.nodeid] = Seat(who, sink)
        self._form({who.nodeid})
        assert seat.ring is not None
        self.changed()

    def stop(self, nodeid: int, gasp: bool = False) -> None:
        """The process is gone, or has left. With ``gasp`` its end is told to those who can hear it, each of them or not."""
        hearers = self._side(nodeid) - {nodeid} if gasp and nodeid in self.seats else set()
        seat = self.seats.pop(nodeid, None)
        if seat is None:
            return
        for n in sorted(hearers):
            if self.rng.random() < 0.8:
                self.seats[n].sink(Health(nodeid, "process_dead", engine=seat.who.engine))
        self.changed()

    def leave(self, nodeid: int) -> None:
        self.stop(nodeid)

    def submit(self, nodeid: int, payload: bytes) -> None:
        seat = self.seats.get(nodeid)
        if seat is not None:
            seat.queue.append(payload)
            self.world.after(self.rng.randint(*HOP_NS), lambda: self._send(seat))

    def pause(self, nodeid: int, paused: bool) -> None:
        if nodeid in self.seats and self.seats[nodeid].paused != paused:
            self.seats[nodeid].paused = paused
            self.changed()

    def connect(self, sides: list[set[int]]) -> None:
        self.sides = sides
        self.changed()

    def one_way(self, source: int, to: int) -> None:
        """A correct engine makes two sides of a link that works one way; which of the two stays with the rest is its choice."""
        alone = self.rng.choice((source, to))
        self.connect([{alone}, set(self.seats) - {alone}])

    def noise(self, level: float) -> None:
        """The order hides it."""

    # --- the order --------------------------------------------------------------------------------------------------------
    def _send(self, seat: Seat) -> None:
        ring = seat.ring
        if self.seats.get(seat.who.nodeid) is not seat or ring is None or seat.paused or not seat.queue:
            return
        ring.log.append((seat.who, seat.queue.pop(0)))
        ring.received[seat.who.nodeid] = len(ring.log)  # it has its own, and so everything before it
        self._spread(ring)

    def _spread(self, ring: Ring) -> None:
        for member in ring.members:
            self.world.after(self.rng.randint(*HOP_NS), lambda n=member.nodeid: self._receive(ring, n))

    def _receive(self, ring: Ring, nodeid: int) -> None:
        seat = self.seats.get(nodeid)
        if seat is None or seat.ring is not ring or seat.paused:
            return
        if ring.received[nodeid] < len(ring.log):
            ring.received[nodeid] += 1
            if ring.received[nodeid] < len(ring.log):
                self.world.after(self.rng.randint(*HOP_NS), lambda: self._receive(ring, nodeid))
        for member in ring.members:
            self.world.after(self.rng.randint(*HOP_NS), lambda n=member.nodeid: self._deliver(ring, n, ring.stable()))

    def _deliver(self, ring: Ring, nodeid: int, upto: int) -> None:
        seat = self.seats.get(nodeid)
        if seat is None or seat.ring is not ring or seat.paused:
            return
        while ring.delivered[nodeid] < upto and seat.ring is ring:
            at = ring.delivered[nodeid]
            ring.delivered[nodeid] = at + 1
            sender, payload = ring.log[at]
            seat.sink(Message(sender, ring.ring, at + 1, payload))

    def _rotate(self, ring: Ring) -> None:
        """One token rotation is complete, as long as everybody of the ring still turns it."""
        seats = [s for m in ring.members if (s := self.seats.get(m.nodeid)) is not None and s.ring is ring]
        if not seats:
            return
        if len(seats) == len(ring.members) and not any(s.paused for s in seats) and self._joined(ring):
            for seat in seats:
                seat.sink(Rotation(ring.ring, ring.began[seat.who.nodeid]))
                ring.began[seat.who.nodeid] = self.world.now
        self.world.after(ROTATE_NS, lambda: self._rotate(ring))

    # --- configurations -----------------------------------------------------------------------------------------------------
    def _side(self, nodeid: int) -> set[int]:
        if self.seats[nodeid].paused:
            return {nodeid}
        for side in self.sides:
            if nodeid in side:
                return {n for n in side if n in self.seats and not self.seats[n].paused}
        return {nodeid}

    def _joined(self, ring: Ring) -> bool:
        return self._side(ring.members[0].nodeid) >= {m.nodeid for m in ring.members}

    def changed(self) -> None:
        """Somebody came, went or cannot be heard: form again, a moment later."""
        self._again = True
        if not self._forming:
            self._forming = True
            self.world.after(self.rng.randint(*FORM_NS), self._settle)

    def _settle(self) -> None:
        self._forming = self._again = False
        seen: set[int] = set()
        for nodeid in sorted(self.seats):
            seat = self.seats.get(nodeid)
            if seat is None or nodeid in seen or seat.paused:
                continue  # gone: a daemon may end by what it was told just now
            side = self._side(nodeid)
            seen |= side
            rings = {id(self.seats[n].ring) for n in side}
            ring = seat.ring
            if len(rings) == 1 and ring is not None and {m.nodeid for m in ring.members} == side and \
                    all(self.seats[m.nodeid].who == m for m in ring.members):
                continue
            self._form(side)
        if self._again:
            self.changed()

    def _form(self, side: set[int]) -> None:
        for ring in {id(s.ring): s.ring for n in side if (s := self.seats[n]).ring is not None}.values():
            assert ring is not None
            together = sorted(n for n in side if n in self.seats and self.seats[n].ring is ring)
            if together:
                self._end(ring, together)
        side = side & self.seats.keys()  # a daemon may end by what it was told just now
        if not side:
            return
        seq = max(self.ring_seq.get(n, 0) for n in side) + 4
        members = tuple(sorted(self.seats[n].who for n in side))
        zero = {m.nodeid: 0 for m in members}
        new = Ring(RingId(seq, min(side)), members, received=dict(zero), delivered=dict(zero), began=dict.fromkeys(zero, self.world.now))
        for n in sorted(side):
            self.ring_seq[n] = seq
            self.seats[n].ring = new
        for n in sorted(side):
            if n in self.seats and self.seats[n].ring is new:
                self.seats[n].sink(Configuration(Kind.REGULAR, new.ring, members))
                for _ in self.seats[n].queue if n in self.seats else []:
                    self.world.after(self.rng.randint(*HOP_NS), lambda s=self.seats[n]: self._send(s))
        self.world.after(ROTATE_NS, lambda: self._rotate(new))

    def _end(self, ring: Ring, together: list[int]) -> None:
        """Those who leave ``ring`` together: stable prefix, transitional configuration, what any of them holds beyond."""
        stable = max(ring.stable(), *(ring.delivered[n] for n in together))
        beyond = max(ring.received[n] for n in together)
        members = tuple(m for m in ring.members if m.nodeid in together)
        for n in together:
            self._deliver(ring, n, stable)
        for n in together:
            if n in self.seats and self.seats[n].ring is ring:
                self.seats[n].sink(Configuration(Kind.TRANSITIONAL, ring.ring, members))
                self._deliver(ring, n, beyond)
