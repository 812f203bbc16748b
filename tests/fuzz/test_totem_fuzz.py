# SPDX-License-Identifier: GPL-2.0-only
"""A member that holds the key and speaks nonsense: whatever it sends, the others neither raise nor grow, and go on when it is gone."""

from __future__ import annotations

from random import Random

import pytest

from membership.api import Processor
from membership.totem import frames, wire
from membership.totem.limits import PAYLOAD_MAX, PIECE_MAX, PROCESSORS_MAX, RING_SEQ_MAX, STORE_MAX
from membership.totem.seal import Sealer
from tests.sim.engine_node import CheapSuite, EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS, SECOND, World
from vcs.errors import RemoteError
from vcs.model import RingId


class Liar:
    """Makes bodies that the codec accepts, out of what it has seen and of extremes."""

    def __init__(self, rng: Random, host: EngineHost, others: list[EngineHost]) -> None:
        self.rng = rng
        self.host = host
        self.others = others
        self.strangers = [Processor(n, rng.randrange(1, 9), rng.randrange(1, 9)) for n in (1, 2, 3, 4, 99)]

    def number(self, top: int = 2**64 - 1) -> int:
        near = self.rng.choice((0, 1, 2, 3, 17, STORE_MAX, top, top - 1, self.host.core.core.ring.high, self.host.core.core.ring.aru + 1))
        return min(near, top)

    def ring(self) -> RingId:
        known = [h.core.core.ring.id for h in self.others]
        known += [h.core.core.forming.ring.id for h in self.others if h.core.core.forming is not None]
        return self.rng.choice([*known, RingId(self.number(RING_SEQ_MAX - 1), self.rng.choice((1, 2, 3, 99)))])

    def some(self) -> tuple[Processor, ...]:
        pool = [*self.strangers, *(h.processor for h in self.others), self.host.processor]
        return tuple(sorted(set(self.rng.sample(pool, self.rng.randint(0, len(pool))))))

    def body(self) -> bytes:
        rng = self.rng
        heard = tuple(sorted({*self.some(), *(h.processor for h in self.others)}))
        match rng.randrange(8):
            case 0:
                seq = self.number()
                aru = min(seq, self.number())
                rtr = [frames.Range(rng.choice((1, 2, 3, 99)), 1, min(seq, 40), rng.randrange(256))] if seq and rng.random() < 0.5 else []
                seen = max(h.core.core.ring.token.seen for h in self.others)
                return frames.encode_token(frames.Token(
                    self.ring(), rng.choice((1, seen + 1, seen + 2, 2**63)), seq, aru, rng.choice((0, 1, 2, 99)),
                    self.number(2**32 - 1), self.number(2**32 - 1), rng.random() < 0.5, rtr, rng.choice((0, 1, 2, 3, 99)),
                    self.number(2**32 - 1), self.number(2**32 - 1)))
            case 1:
                content = rng.choice(((b"abc", b""), frames.Fragment(10, 4, b"xx"), frames.Fragment(1 << 20, 0, b"y" * 100)))
                inner = frames.make_regular(self.ring(), max(1, self.number()), rng.choice((1, 2, 3, 99)), rng.random() < 0.5, content)
                if rng.random() < 0.5:
                    return inner.body
                return frames.make_encapsulated(self.ring(), max(1, self.number()), rng.choice((1, 2, 3, 99)), inner).body
            case 2:
                proc = self.some() or (self.host.processor,)
                fail = tuple(p for p in proc[1:] if rng.random() < 0.4)
                return wire.encode(wire.Join(self.number(RING_SEQ_MAX - 1), proc, fail, heard))
            case 3:
                members = {p.nodeid: p for p in self.some()} | {h.processor.nodeid: h.processor for h in self.others}
                entries = tuple(
                    wire.Entry(members[n], rng.random() < 0.7, self.ring(), self.number(), self.number(), self.ring(), self.number())
                    for n in sorted(members))
                return wire.encode(wire.Commit(RingId(self.ring().seq, entries[0].processor.nodeid), max(1, self.number()), entries))
            case 4:
                return wire.encode(wire.Beacon(self.ring(), heard))
            case 5:
                return wire.encode(wire.Hurry(self.ring()))
            case 6:
                size = rng.choice((1300, 2000, PAYLOAD_MAX))
                at = rng.randrange(0, size, PIECE_MAX)
                return frames.encode_piece(frames.Piece(self.ring(), max(1, self.number()), size, at, bytes(min(PIECE_MAX, size - at))))
            case _:
                return rng.randbytes(rng.randrange(60))


@pytest.mark.parametrize("seed", range(12))
def test_a_lying_member(seed: int) -> None:
    world = World(f"liar{seed}", events_max=100_000)
    rng = world.rng("liar")
    network = Network(world, (1, 2, 3))
    hosts: dict[int, EngineHost] = {}

    def program(node: Node, processor: Processor) -> EngineHost:
        hosts[node.nodeid] = EngineHost(node, processor, lambda _event: None)
        return hosts[node.nodeid]

    nodes = {n: Node(world, network, n, program) for n in network.nodes}
    for node in nodes.values():
        node.start()
    world.run(world.now + SECOND)
    liar = Liar(rng, hosts[3], [hosts[1], hosts[2]])
    sealer = Sealer("sim", hosts[3].processor, CheapSuite())
    sealer._counter = 1 << 40  # beyond what the honest half of node 3 uses
    for i in range(400):
        try:
            body = liar.body()
            wire.decode(body)
        except RemoteError:
            continue
        network.send(3, rng.choice(((1,), (2,), (1, 2))), sealer.seal(body))
        if i % 5 == 0:
            hosts[rng.choice((1, 2))].submit(b"honest %d" % i)
        world.run(world.now + rng.choice((1, 1, 10, 200)) * MS)
        for n in (1, 2):
            core = hosts[n].core.core
            assert len(core.ring.store) <= 2 * STORE_MAX
            assert len(core.proc) <= PROCESSORS_MAX
            assert hosts[n].processor not in core.fail
    nodes[3].crash()
    settled = world.run(world.now + 20 * SECOND, lambda: all(hosts[n].core.core.ring.nodeids == (1, 2) for n in (1, 2)))
    assert settled, [hosts[n].core.status() for n in (1, 2)]
