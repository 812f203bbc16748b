# SPDX-License-Identifier: GPL-2.0-only
"""Datagrams that nobody should believe, sent to a node's Totem port from another virtual machine, where this runs.

    python3 -S -m tests.cluster.datagrams TARGET CLUSTER KEYFILE

Sends garbage, frames of another cluster, frames sealed with another key, frames of a node that no configuration knows, real frames with a
bit turned over, and real frames again: those that this machine's own vcsd has just sent to TARGET, taken from the network device. Prints
one object of JSON: how many were sent, by the name of the counter that they should end in.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time

from membership.api import Processor
from membership.totem.aes import aes_gcm
from membership.totem.seal import HEADER, MAGIC, VERSION, Sealer

PORT = 5405
EACH = 20
ETH_P_IP = 0x0800
CAPTURE_S = 20.0
PAUSE_S = 0.002


def capture(target: str, number: int) -> list[bytes]:
    """Payloads of ``number`` datagrams that this machine sends to ``target``. Raises TimeoutError."""
    wanted = socket.inet_aton(target)
    found: list[bytes] = []
    deadline = time.monotonic() + CAPTURE_S
    # ETH_P_ALL: outgoing frames are shown to nobody who asks for one protocol only.
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003)) as tap:
        tap.settimeout(CAPTURE_S)
        while len(found) < number and time.monotonic() < deadline:
            packet, address = tap.recvfrom(65536)
            head = (packet[0] & 15) * 4 if packet else 0
            if address[1] != ETH_P_IP or len(packet) < head + 8 or packet[9] != socket.IPPROTO_UDP or packet[16:20] != wanted:
                continue
            if packet[6] & 0x3F or packet[7]:
                continue  # a fragment
            if int.from_bytes(packet[head + 2 : head + 4], "big") == PORT:
                size = int.from_bytes(packet[head + 4 : head + 6], "big") - 8
                found.append(packet[head + 8 : head + 8 + size])
    if len(found) < number:
        raise TimeoutError(f"{len(found)} of {number} frames seen in {CAPTURE_S:.0f} s")
    return found


def other_key(key: bytes) -> bytes:
    """A key with another id: one pair in 256 shares it."""
    while True:
        found = os.urandom(32)
        if aes_gcm(found).key_id != aes_gcm(key).key_id:
            return found


def make(cluster: str, key: bytes, real: list[bytes]) -> dict[str, list[bytes]]:
    """Counter -> datagrams."""
    us = Processor(2, random.getrandbits(64), random.getrandbits(64))
    stranger = Processor(9, random.getrandbits(64), random.getrandbits(64))
    foreign = Sealer(cluster + "-other", us, aes_gcm(key))
    wrong = Sealer(cluster, us, aes_gcm(other_key(key)))
    unknown = Sealer(cluster, stranger, aes_gcm(key))
    old = HEADER.pack(MAGIC, VERSION + 1, 0, 0, 2, 1, 1, 1)
    turned = [frame[:60] + bytes([frame[60] ^ 1]) + frame[61:] for frame in real]
    return {
        "dropped_short": [os.urandom(n % 50) for n in range(EACH)],
        "dropped_magic": [b"\0\0" + os.urandom(random.choice((100, 1400, 9000))) for _ in range(EACH)],
        "dropped_version": [old + os.urandom(100) for _ in range(EACH)],
        "dropped_cluster": [foreign.seal(os.urandom(64)) for _ in range(EACH)],
        "dropped_key": [wrong.seal(os.urandom(64)) for _ in range(EACH)],
        "dropped_seal": turned,
        "dropped_unknown_node": [unknown.seal(os.urandom(64)) for _ in range(EACH)],
        "dropped_replayed": real,
    }


def main(target: str, cluster: str, keyfile: str) -> int:
    with open(keyfile, encoding="ascii") as file:
        key = bytes.fromhex(file.read().strip())
    kinds = make(cluster, key, capture(target, EACH))
    everything = [datagram for kind in kinds.values() for datagram in kind]
    random.shuffle(everything)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for datagram in everything:
            sock.sendto(datagram, (target, PORT))
            time.sleep(PAUSE_S)
    print(json.dumps({name: len(kind) for name, kind in kinds.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3]))
