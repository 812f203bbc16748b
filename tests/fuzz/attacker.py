# SPDX-License-Identifier: GPL-2.0-only
"""Somebody on the wire: ``python -m tests.fuzz.attacker INTERFACE PORT FRAMES SEED``, as root, in a node's network namespace.

Listens to the engine's datagrams on the interface, and sends wrong ones of every kind that needs no key (tests/fuzz/mutate.py), as
whole Ethernet frames with the addresses of a real sender: they pass every filter that is not the seal. Prints ``sent N``.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from random import Random

from tests.fuzz.mutate import BLIND

ETH = 14
BURST = 200
PAUSE_S = 0.004
PACKET_MAX = 1400
"Payload of one packet: what is longer is cut, as the wire takes no more."


def checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(like: bytes, payload: bytes) -> bytes:
    """An Ethernet frame with the addresses and ports of ``like`` and another payload. No UDP checksum: IPv4 allows that."""
    ip = bytearray(like[ETH:ETH + 20])
    struct.pack_into(">H", ip, 2, 28 + len(payload))
    ip[6:8] = b"\0\0"
    ip[10:12] = b"\0\0"
    struct.pack_into(">H", ip, 10, checksum(bytes(ip)))
    ports = like[ETH + 20:ETH + 24]
    return like[:ETH] + bytes(ip) + ports + struct.pack(">HH", 8 + len(payload), 0) + payload


def payload_of(frame: bytes, port: int) -> bytes | None:
    """The UDP payload, if it is a datagram of the engine."""
    if len(frame) < ETH + 28 or frame[12:14] != b"\x08\x00" or frame[ETH] != 0x45 or frame[ETH + 9] != socket.IPPROTO_UDP:
        return None
    if struct.unpack_from(">H", frame, ETH + 22)[0] != port:
        return None
    return frame[ETH + 28:ETH + 20 + struct.unpack_from(">H", frame, ETH + 24)[0]]


class Attacker:
    def __init__(self, interface: str, port: int, seed: int) -> None:
        self.rng = Random(seed)
        self.port = port
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((interface, 0))
        self.mac = bytes(self.socket.getsockname()[4])
        self.seen: list[bytes] = []
        "Frames that left this node: their addresses are believed."

    def listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.socket], [], [], left)[0]:
            frame = self.socket.recv(65535)
            if frame[6:12] == self.mac and payload_of(frame, self.port):
                self.seen = [*self.seen[-200:], frame]

    def attack(self, frames: int) -> int:
        """Send so many, in bursts, listening in between. How many were sent."""
        sent = 0
        while sent < frames:
            self.listen(PAUSE_S)
            for _ in range(BURST if self.seen else 0):
                like = self.rng.choice(self.seen)
                try:
                    self.socket.send(packet(like, self._wrong(payload_of(like, self.port) or b"")[:PACKET_MAX]))
                    sent += 1
                except OSError:  # the interface's queue is full
                    break
        return sent

    def _wrong(self, genuine: bytes) -> bytes:
        rng = self.rng
        match rng.randrange(8):
            case 0:
                return genuine  # a copy, to the same node: a replay
            case 1:
                return rng.randbytes(rng.choice((0, 1, 40, 56, 57, 1400)))
            case 2:
                return genuine[:rng.choice((2, 3, 4, 16, 40))] + rng.randbytes(rng.randrange(200))
            case 3:
                other = payload_of(rng.choice(self.seen), self.port) or b""
                return genuine[:40] + other[40:] if other[40:] != genuine[40:] else rng.randbytes(60)
            case _:
                return rng.choice(BLIND)(rng, genuine)


def main() -> None:
    interface, port, frames, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    attacker = Attacker(interface, port, seed)
    attacker.listen(1)
    print(f"heard {len(attacker.seen)}", flush=True)
    print(f"sent {attacker.attack(frames)}", flush=True)


if __name__ == "__main__":
    main()
