# SPDX-License-Identifier: GPL-2.0-only
"""Netlink messages made from the spec's tables, for sender.c: courses of commands that a real provider and its consumers could give, in
which some messages are wrong in a way that the spec lets one think of. Pure: everything comes from the seed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping

from vcs import _spec

RECORD = struct.Struct("=HBBHH")
MAGIC = 0x7663735F << 32
SLOTS, INCARNATION, NOW = 64, 64, 65
REOPEN = 0xFFFF
DUMP = 0x300
NESTED = 0x8000
SOCKETS = 8
CLUSTERS = ("fuzz0", "fuzz1", "fuzz2")
GROUPS = ("a", "b", "c", "d")
USED = (4, 2, 1)
"How many of the groups each cluster has: with few there are times without any, as a detach needs them."
COURSES = {
    "life": 1, "provider": 2, "heartbeat": 1, "view": 1, "lease": 1, "join": 1, "event": 8, "leave": 1, "claim": 1, "read": 2, "end": 1,
}
"What a course is about, and how often."
Values = Mapping[str, int | str | bytes]
ATTRS = {name: {a.name: a for a in table} for name, table in _spec.ATTRIBUTE_SETS.items()}
DUMPS = tuple(op for op in _spec.OPS if op.dump is not None)
DOS = {op.name: op for op in _spec.OPS if op.do is not None}
EDGES = (0, 1, 2, 7, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
EDGES64 = (*EDGES, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, MAGIC | INCARNATION, MAGIC | NOW)


def attribute(kind: int, payload: bytes, length: int | None = None) -> bytes:
    length = 4 + len(payload) if length is None else length
    return struct.pack("=HH", length & 0xFFFF, kind & 0xFFFF) + payload + b"\0" * (-len(payload) % 4)


def kind_of(attr: _spec.Attr) -> int:
    return attr.value | (NESTED if attr.type == "nest" else 0)


class Fuzzer:
    """Messages without end. ``wrong`` is how often one of them is spoiled."""

    def __init__(self, seed: int, wrong: float = 0.3) -> None:
        self.rng = random.Random(seed)
        self.wrong = wrong
        self.events = 0

    # --- values ---------------------------------------------------------------------------------------------------

    def text(self) -> bytes:
        rng = self.rng
        return rng.choice((
            b"a\0", b"", b"\0", b"x" * 64 + b"\0", b"x" * 65 + b"\0", b"no end", b"a/b\0", b"..\0", b"\xff\xfe\0", b"a\nb\0",
            "\u00fc\U0001f600".encode() + b"\0", rng.randbytes(rng.randrange(80)) + b"\0",
        ))

    def any_value(self, attr: _spec.Attr) -> bytes:
        """Anything at all in the form of that attribute."""
        rng = self.rng
        if attr.type == "u32":
            return struct.pack("=I", rng.choice(EDGES))
        if attr.type == "u64":
            return struct.pack("=Q", rng.choice(EDGES64))
        if attr.type == "string":
            return self.text()
        if attr.type == "nest":
            return self.nest(attr.nested)
        return rng.randbytes(rng.choice((0, 1, 4, 16, 32, 64, 65, 4096, 4097)) if attr.type == "binary" else rng.randrange(9))

    def nest(self, name: str) -> bytes:
        """Some attributes of a set, in any order, now and then one twice."""
        table = _spec.ATTRIBUTE_SETS[name]
        chosen = self.rng.choices(table, k=self.rng.randrange(2 * len(table)))
        return b"".join(attribute(kind_of(a), self.any_value(a)) for a in chosen)

    def members(self, name: str = "member") -> list[bytes]:
        """This node and others, sorted or not."""
        kind, table = ATTRS["vcs"][name].value, ATTRS["member"]
        others = self.rng.choice((0, 1, 2, 5, 5, 64, 700))
        ids = [1, *self.rng.sample(range(2, 2000), others)]
        if self.rng.random() < 0.05:
            ids += ids[-1:]
        made = [
            attribute(table["nodeid"].value, struct.pack("=I", n))
            + attribute(table["incarnation"].value, struct.pack("=Q", MAGIC | INCARNATION if n == 1 else n))
            for n in ids
        ]
        return [attribute(kind | NESTED, one) for one in made]

    # --- messages -------------------------------------------------------------------------------------------------

    def message(self, command: str, values: Values, *, sock: int = 0, slot: int = SLOTS, flags: int = 0, members: bool = False) -> bytes:
        """A whole record of a good message, or of one that was spoiled; ``slot`` keeps the session of the answer."""
        parts = []
        for name, value in values.items():
            attr = ATTRS["vcs"][name]
            if isinstance(value, int):
                payload = struct.pack("=I" if attr.type == "u32" else "=Q", value)
            else:
                payload = value.encode() + b"\0" if isinstance(value, str) else value
            parts.append(attribute(kind_of(attr), payload))
        if members:
            parts += self.members()
        code = _spec.COMMANDS[command]
        if self.rng.random() < self.wrong:
            code, flags, parts = self.spoil(code, flags, parts)
        body = struct.pack("=BBH", code, _spec.VERSION, 0) + b"".join(parts)
        if self.rng.random() < self.wrong / 10:
            body = body[: self.rng.randrange(len(body) + 1)]
        return RECORD.pack(len(body), sock, slot, flags, 0) + body if len(body) < 1 << 16 else b""

    def spoil(self, code: int, flags: int, parts: list[bytes]) -> tuple[int, int, list[bytes]]:
        rng = self.rng
        what = rng.randrange(10)
        at = rng.randrange(len(parts)) if parts else 0
        table = _spec.ATTRIBUTE_SETS["vcs"]
        if what == 0:
            return rng.choice((rng.randrange(256), rng.choice(_spec.OPS).value)), flags, parts
        if what == 1:
            return code, flags ^ rng.choice((DUMP, 0x100, 0x200, 0x400)), parts
        if what == 2 and parts:
            del parts[at]
        elif what == 3 and parts:
            parts.insert(at, parts[at])
        elif what == 4:
            attr = rng.choice(table)
            parts.insert(at, attribute(kind_of(attr), self.any_value(attr)))
        elif what == 5 and parts:
            kind = struct.unpack_from("=H", parts[at], 2)[0] & 0x3FFF
            attr = next((a for a in table if a.value == kind), rng.choice(table))
            parts[at] = attribute(kind | rng.choice((0, NESTED, 0x4000)), self.any_value(attr))
        elif what == 6:
            parts.insert(at, attribute(rng.choice((0, 49, 500, 0x3FFF)), rng.randbytes(rng.randrange(12))))
        elif what == 7 and parts:
            length = rng.choice((0, 1, 3, 4, 5, len(parts[at]) + 1, len(parts[at]) + 400, 0xFFFF))
            parts[at] = struct.pack("=H", length) + parts[at][2:]
        elif what == 8 and parts:
            broken = bytearray(parts[at])
            broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x80, 0xFF))
            parts[at] = bytes(broken)
        else:
            rng.shuffle(parts)
        return code, flags, parts

    # --- courses --------------------------------------------------------------------------------------------------

    def course(self) -> Iterator[bytes]:
        """A few commands that belong together, on one of few clusters, so that courses meet."""
        rng, say = self.rng, self.message
        c = rng.randrange(len(CLUSTERS))
        g = rng.randrange(USED[c])
        seat, held, provider, consumer = c, 8 + c * len(GROUPS) + g, c, 4 + g % (SOCKETS - 4)
        cluster: Values = {"handle": CLUSTERS[c]}
        seated: Values = {**cluster, "session": MAGIC | seat}
        group: Values = {"group": GROUPS[g]}
        kind = rng.choices(tuple(COURSES), tuple(COURSES.values()))[0]
        if kind == "life":
            yield say("cluster-add", {**cluster, "name": f"name{c}", "nodeid": 1})
        elif kind == "provider":
            lease = rng.choice((0, 0, 20, 1000, 3600_000))
            grace = rng.choice((0, 20, 1000)) if lease else 0
            yield say("provider-attach", {**cluster, "lease-ms": lease, "grace-ms": grace}, sock=provider, slot=seat)
        elif kind == "heartbeat":
            yield say("provider-attach", {**cluster, "provider": "heartbeat", "config": self.beats(c)}, sock=provider)
            yield say("provider-detach", cluster)
        elif kind == "view":
            ring: Values = {"ring-seq": rng.randrange(1 << 40), "ring-rep": 1, "view-flags": rng.choice((0, 1, 1, 1))}
            yield say("view-set", {**seated, **ring}, members=True, sock=provider)
        elif kind == "lease":
            yield say("lease-renew", {**seated, "valid-from-ns": MAGIC | NOW}, sock=provider)
            if rng.random() < 0.1:
                yield say("lease-freeze", {**seated, "freeze-until-ns": rng.choice(EDGES64)}, sock=provider)
            fate: Values = {"nodeid": rng.randrange(1, 4), "incarnation": rng.choice(EDGES64), "error": rng.choice((0, 0, 5))}
            yield say("fenced", {**seated, **fate}, sock=provider)
        elif kind == "join":
            how: Values = {"level": rng.randrange(1, 5), "group-flags": rng.randrange(4), "owner": "fuzz"}
            yield say("group-join", {**cluster, **group, **how}, sock=consumer, slot=held)
        elif kind == "event":
            yield from self.event({**seated, **group}, {**cluster, "session": MAGIC | held, **group}, provider, consumer)
        elif kind == "leave":
            yield say("group-leave", {**cluster, "session": MAGIC | held, **group}, sock=consumer)
            yield say("group-left", {**seated, **group, "error": rng.choice((0, 0, 0, 5))}, sock=provider)
        elif kind == "claim":
            data = rng.randbytes(rng.choice((1, 50, 4096)))
            yield say("claim", {"claim": rng.choice(("dlm", "x")), "claim-data": data}, sock=consumer)
        elif kind == "read":
            op = rng.choice(DUMPS)
            yield say(op.name, cluster if "handle" in (op.dump or ()) else {}, flags=DUMP, sock=rng.randrange(SOCKETS))
            yield say("info-get", {})
            yield say("cluster-get", cluster)
        elif rng.random() < 0.5:
            yield RECORD.pack(0, rng.choice((provider, consumer)), 0, REOPEN, 0)
        else:
            yield say("provider-detach", seated, sock=provider)
            yield say("cluster-del", cluster)

    def event(self, seated: Values, held: Values, provider: int, consumer: int) -> Iterator[bytes]:
        """A whole one, which only good luck leaves unspoiled."""
        self.events += 1
        which: Values = {"event": self.events}
        yield self.message("group-stop", {**seated, **which}, sock=provider)
        yield self.message("group-ack", {**held, **which, "phase": 1}, sock=consumer)
        yield self.message("group-start", {**seated, **which}, members=True, sock=provider)
        yield self.message("group-ack", {**held, **which, "phase": 2}, sock=consumer)
        yield self.message("group-finish", {**seated, **which}, sock=provider)

    def beats(self, cluster: int) -> bytes:
        """A configuration of the heartbeat that can be used: this node and a few others on the loopback."""
        table, node = ATTRS["heartbeat"], ATTRS["heartbeat-node"]
        nodes = [
            attribute(node["nodeid"].value, struct.pack("=I", n)) + attribute(node["address"].value, bytes((127, 0, cluster, n)))
            + attribute(node["port"].value, struct.pack("=I", 7000 + cluster))
            for n in range(1, self.rng.randrange(2, 6))
        ]
        return (
            attribute(table["key"].value, bytes(32)) + attribute(table["interval-ms"].value, struct.pack("=I", 20))
            + b"".join(attribute(kind_of(table["node"]), one) for one in nodes)
        )  # fmt: skip

    def records(self, count: int) -> bytes:
        """So many messages, and what closes sockets between them."""
        out, n = [], 0
        while n < count:
            for record in self.course():
                out.append(record)
                n += bool(record) and RECORD.unpack_from(record)[3] != REOPEN
        return b"".join(out)
