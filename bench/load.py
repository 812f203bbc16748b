# SPDX-License-Identifier: GPL-2.0-only
"""What clients send and count, the same on both sides: bench/cpg_client.c has it in C.

A payload begins with a header: kind, sender, time sent (ns). An end mark makes everybody tell what came from that sender since the last
one: "end SENDER COUNT BYTES T_FIRST T_LAST LATENCY..." (latencies of pings, in ns).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

HEADER = struct.Struct("=IIQ")
FLOOD, PING, END = 1, 2, 3
FLOOD_START = HEADER.pack(FLOOD, 0, 0)[:4]
FLOOD_ALONE = {FLOOD_START}


def gap(mean_us: int) -> float:
    """A pause in seconds, of half to one and a half times the mean: pings in step with a timer of the ring would measure the step."""
    return random.uniform(0.5, 1.5) * mean_us / 1e6


class Tally:
    """What came from one sender."""

    __slots__ = ("count", "first", "last", "latencies", "octets")

    def __init__(self) -> None:
        self.count = self.octets = self.first = self.last = 0
        self.latencies: list[int] = []


class Load:
    def __init__(self, local: int, say: Callable[[str], None]) -> None:
        self.local = local
        self.own_pings = 0
        self.own_ends = 0
        self.last_own = 0
        "Latency of the last own ping, in ns."
        self._say = say
        self._tallies: dict[int, Tally] = {}

    def flood(self, size: int) -> bytes:
        return HEADER.pack(FLOOD, self.local, 0).ljust(size, b"x")

    def ping(self, size: int, now: int) -> bytes:
        return HEADER.pack(PING, self.local, now).ljust(size, b"x")

    def end(self) -> bytes:
        return HEADER.pack(END, self.local, 0)

    def take(self, sender: int, payload: bytes, now: int) -> bool:
        """Count one message. True: it is our own."""
        self.take_all(sender, (payload,), now)
        return sender == self.local

    def take_all(self, sender: int, payloads: Sequence[bytes], now: int) -> None:
        """Count messages that came together at ``now``."""
        tally = self._tallies.get(sender)
        if tally is None:
            tally = self._tallies[sender] = Tally()
        if {payload[:4] for payload in payloads} == FLOOD_ALONE:
            tally.first = tally.first or now
            tally.count += len(payloads)
            tally.octets += sum(map(len, payloads))
            tally.last = now
            return
        for payload in payloads:
            if payload[:4] != FLOOD_START:
                kind, _sender, sent = HEADER.unpack_from(payload)
                if kind == END:
                    self._tell(sender, tally)
                    tally = self._tallies[sender] = Tally()
                    continue
                tally.latencies.append(now - sent)
                if sender == self.local:
                    self.own_pings += 1
                    self.last_own = now - sent
            tally.first = tally.first or now
            tally.count += 1
            tally.octets += len(payload)
            tally.last = now

    def _tell(self, sender: int, tally: Tally) -> None:
        if sender == self.local:
            self.own_ends += 1
        latencies = "".join(f" {n}" for n in tally.latencies)
        self._say(f"end {sender} {tally.count} {tally.octets} {tally.first} {tally.last}{latencies}")
