# SPDX-License-Identifier: GPL-2.0-only
"""The lab of bench/ on a real ring: a cut host is missed and comes back, clients are told everything, and nothing remains."""

from __future__ import annotations

import os

import pytest

from bench import lab as labs
from bench.contest import Tally
from bench.lab import Lab
from bench.ours import Ours


def mine() -> list[str]:
    """The namespaces that this process made."""
    return [line for line in labs.run("ip", "netns", "list").splitlines() if f"-{os.getpid()}-" in line]


@pytest.mark.root
def test_three_machines_their_clients_and_what_remains() -> None:
    with Lab(3) as lab:
        with Ours(lab, channel=True) as ring:
            ring.start()
            clients = {n: ring.client(lab.machines[n]) for n in ring.nodes}
            try:
                marks = {n: c.mark() for n, c in clients.items()}
                clients[2].say("ping 3 1000 64")
                clients[2].say("flood 1300 0.2")
                for n, client in clients.items():
                    pinged = client.wait("pings", Tally.of, marks[n])
                    assert (pinged.sender, pinged.count, len(pinged.latencies)) == (2, 3, 3)
                counts = set()
                for client in clients.values():
                    flooded = client.wait("flood", lambda line: t if (t := Tally.of(line)) and not t.latencies else None)
                    assert flooded.octets == 1300 * flooded.count
                    counts.add(flooded.count)
                assert len(counts) == 1
                assert counts.pop() > 10
            finally:
                for client in clients.values():
                    client.end()
            ring.mark()
            packets, octets = lab.machines[1].counters()
            began = lab.machines[3].cut()
            formed = ring.await_all([1, 2])
            assert all(f.time_ns > began for f in formed.values())
            more, longer = lab.machines[1].counters()
            assert more > packets
            assert longer > octets
            ring.mark()
            lab.machines[3].mend()
            ring.await_all([1, 2, 3])
            assert ring.nodes[1].status()["members"] == [1, 2, 3]
        assert len(mine()) == 4
    assert not mine()
