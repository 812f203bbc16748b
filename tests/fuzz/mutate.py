# SPDX-License-Identifier: GPL-2.0-only
"""Frames and bodies made wrong on purpose, out of genuine ones: with the structure in mind where it is known, blindly elsewhere.

A :class:`Corpus` keeps genuine frames as they go over the simulated wires, a few of each message type (types are not listed here:
what the engine sends is what is mutated, so a new message is covered the day it is sent).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from membership.api import Processor
from membership.totem import wire
from membership.totem.control import PROBE, PROBE_ACK, TOKEN_ACK
from membership.totem.frames import TOKEN, Fragment, Regular, make_encapsulated, make_regular
from membership.totem.seal import HEADER, Sealer
from membership.totem.wire import Type
from vcs.errors import VcsError
from vcs.model import RingId

TYPES = frozenset(wire._DECODERS)
"Of all messages that there are."
PERSONAL = frozenset({TOKEN, Type.COMMIT, PROBE, PROBE_ACK, TOKEN_ACK})
"""Those that mean something to their receiver alone. Ordered frames, Joins and the like are statements to all members: who carries one
to a member that lacks it does the network's work, not harm. A Hurry only ends a rest."""
KEPT = 64
"Genuine frames kept of each type."
BODY_MAX = 4096
INTERESTING = (0, 1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 65, 100, 127, 128, 129, 255, 256, 1000, 1024, 4095, 4096, 4097, 32767, 32768, 65535,
               65536, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**42 - 1, 2**42, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


class Corpus:
    """Genuine frames: (receiver, datagram) and, opened, their bodies by type."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.frames: dict[int, list[tuple[int, bytes]]] = {}
        self.bodies: dict[int, list[bytes]] = {}
        self.count = 0

    def add(self, target: int, frame: bytes, body: bytes) -> None:
        if not body or len(body) > BODY_MAX:
            return
        self.count += 1
        self._keep(self.frames.setdefault(body[0], []), (target, frame))
        self._keep(self.bodies.setdefault(body[0], []), body)

    def _keep(self, kept: list[Any], what: object) -> None:
        """A sample of all that ever came, old ones included: those are the replays."""
        if len(kept) < KEPT:
            kept.append(what)
        elif self.rng.random() < 0.05:
            kept[self.rng.randrange(KEPT)] = what

    def frame(self, kinds: frozenset[int] = TYPES) -> tuple[int, bytes]:
        return self.rng.choice(self.frames[self.rng.choice([t for t in self.frames if t in kinds])])

    def body(self) -> bytes:
        return self.rng.choice(self.bodies[self.rng.choice(list(self.bodies))])


# --- bytes ------------------------------------------------------------------------------------------------------------------


def flip(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(rng: Random, data: bytes) -> bytes:
    return data[:rng.randrange(len(data) + 1)]


def grow(rng: Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.choice((1, 2, 16, 20, 1500)))


def number(rng: Random, data: bytes) -> bytes:
    """An interesting number somewhere, in a width that fields have."""
    form = rng.choice((">B", ">H", ">I", ">Q"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = rng.randrange(len(data) - size + 1)
    return data[:at] + struct.pack(form, rng.choice(INTERESTING) % (1 << 8 * size)) + data[at + size:]


def repeat(rng: Random, data: bytes) -> bytes:
    """A piece of it twice: one entry more than the count says."""
    if len(data) < 2:
        return data
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:last] + data[first:last] + data[last:]


def drop(rng: Random, data: bytes) -> bytes:
    if len(data) < 2:
        return data
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:first] + data[last:]


BLIND: tuple[Callable[[Random, bytes], bytes], ...] = (flip, cut, grow, number, number, repeat, drop)

# --- structure --------------------------------------------------------------------------------------------------------------


class Structure:
    """Changes fields of decoded messages to values that mean something, and encodes them again."""

    def __init__(self, rng: Random, rings: Callable[[], list[RingId]], processors: Callable[[], list[Processor]]) -> None:
        self.rng = rng
        self.rings = rings
        self.processors = processors

    def mutate(self, body: bytes) -> bytes | None:
        """None: what came out has no encoding."""
        try:
            message = wire.decode(body)
            for _ in range(self.rng.choice((1, 1, 2, 3))):
                message = self._message(message)
            return wire.encode(message)
        except (VcsError, struct.error, ValueError, OverflowError, AttributeError, TypeError, KeyError, IndexError):
            return None

    def _message(self, message: Any) -> Any:
        """A copy with one field changed, or the same object, changed."""
        if isinstance(message, Regular):
            return self._regular(message)
        if isinstance(message, tuple):
            at = self.rng.randrange(len(message))
            return type(message)(*(self._value(v) if i == at else v for i, v in enumerate(message)))
        if dataclasses.is_dataclass(message) and not isinstance(message, type):
            name = self.rng.choice([f.name for f in dataclasses.fields(message)])
            return dataclasses.replace(message, **{name: self._value(getattr(message, name))})
        name = self.rng.choice(type(message).__slots__)
        setattr(message, name, self._value(getattr(message, name)))
        return message

    def _regular(self, frame: Regular) -> Regular:
        rng = self.rng
        ring, seq, origin, safe = frame.ring, frame.seq, frame.origin, frame.safe
        match rng.randrange(6):
            case 0:
                ring = self._value(ring)
            case 1:
                seq = self._int(seq)
            case 2:
                origin = self._int(origin)
            case 3:
                safe = not safe
            case 4:
                total = rng.choice((2, 3, 100, 2**20, 2**20 + 1))
                return make_regular(ring, seq, origin, safe, Fragment(total, self._int(0), rng.randbytes(rng.randrange(1, 200))))
            case _:
                return make_encapsulated(self._value(ring), self._int(seq), origin, frame)
        return make_regular(ring, seq, origin, safe, frame.content())

    def _value(self, value: Any) -> Any:
        rng = self.rng
        if isinstance(value, bool):
            return not value
        if isinstance(value, RingId):
            return rng.choice([*self.rings(), RingId(self._int(value.seq), value.rep), RingId(value.seq, self._int(value.rep))])
        if isinstance(value, Processor):
            return rng.choice([*self.processors(), Processor(self._int(value.nodeid) % 2**32, self._int(value.boot), value.engine)])
        if isinstance(value, int):
            return self._int(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._message(value)
        if isinstance(value, tuple | list):
            return self._items(value)
        if isinstance(value, bytes | memoryview):
            return rng.choice(BLIND)(rng, bytes(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._message(value)
        return value

    def _int(self, value: int) -> int:
        return self.rng.choice((value + 1, max(0, value - 1), value ^ 1 << self.rng.randrange(64), self.rng.choice(INTERESTING)))

    def _items(self, value: Any) -> Any:
        rng, items = self.rng, list(value)
        match rng.randrange(5):
            case 0 if items:
                items.pop(rng.randrange(len(items)))
            case 1 if items:
                at = rng.randrange(len(items))
                items[at] = self._value(items[at])
            case 2 if items:
                items.append(rng.choice(items))
            case 3 if not items or isinstance(items[0], Processor):
                items = sorted(set(rng.sample(self.processors(), rng.randrange(1 + min(8, len(self.processors()))))))
            case _:
                rng.shuffle(items)
        return type(value)(items)


# --- frames without the key ---------------------------------------------------------------------------------------------------


class Outsider:
    """Somebody on the network without the key: sees every datagram, and sends what it likes."""

    KINDS = ("blind", "blind", "header", "splice", "random", "replay", "other_key", "other_cluster", "empty", "huge")

    def __init__(self, rng: Random, corpus: Corpus, strangers: list[Sealer], carries: bool = False) -> None:
        self.rng = rng
        self.kinds = ("misdirect", "replay") if carries else self.KINDS
        self.corpus = corpus
        self.strangers = strangers
        "Sealers of other clusters or with other keys."

    def frame(self) -> tuple[str, int, bytes]:
        """(what it is, the node it was meant for, datagram). Only a replay goes to that very node."""
        rng = self.rng
        kind = rng.choice(self.kinds)
        target, data = self.corpus.frame()
        if kind == "blind":
            changed = rng.choice(BLIND)(rng, data)
            kind, data = ("replay", data) if changed == data else (kind, changed)
        elif kind == "header":
            data = self._header(data)
        elif kind == "splice":
            other = self.corpus.frame()[1]
            data = data[:HEADER.size] + other[HEADER.size:] if data[HEADER.size:] != other[HEADER.size:] else flip(rng, data)
        elif kind == "random":
            data = data[:rng.choice((0, 2, HEADER.size))] + rng.randbytes(rng.choice((0, 1, 15, 16, 17, 100, 1400)))
        elif kind in ("other_key", "other_cluster"):
            data = rng.choice(self.strangers).seal(self.corpus.body())
        elif kind == "empty":
            data = b""
        elif kind == "misdirect":
            target, data = self.corpus.frame(PERSONAL) if PERSONAL & set(self.corpus.frames) else (target, b"\0")
        elif kind == "huge":
            data = data[:HEADER.size] + rng.randbytes(2000) * 32
        return kind, target, data

    def _header(self, data: bytes) -> bytes:
        at = self.rng.randrange(HEADER.size)
        return data[:at] + bytes([data[at] ^ 1 + self.rng.randrange(255)]) + data[at + 1:]
