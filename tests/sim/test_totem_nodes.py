# SPDX-License-Identifier: GPL-2.0-only
"""Nodes are added and removed while the others run, one node at a time taking the new configuration, at the worst moments."""

from __future__ import annotations

import pytest

from membership.api import Configuration, EngineEvent, Kind, Processor
from tests.sim.engine_node import EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS, SECOND, World

EVERYBODY = (1, 2, 3, 4, 5)
STAY = (1, 2, 3)


@pytest.mark.parametrize("seed", [*range(15), 60, 87])
def test_the_configured_nodes_end_in_one_ring(seed: int) -> None:
    world = World(f"nodes{seed}", events_max=400_000)
    rng = world.rng("nodes")
    network = Network(world, EVERYBODY, ways=rng.choice((1, 2)))
    hosts: dict[int, EngineHost] = {}
    now_configured: dict[int, tuple[int, ...]] = dict.fromkeys(EVERYBODY, EVERYBODY)

    def program(node: Node, processor: Processor) -> EngineHost:
        hosts[node.nodeid] = EngineHost(node, processor, lambda _event: None, nodes=now_configured[node.nodeid])
        return hosts[node.nodeid]

    nodes = {n: Node(world, network, n, program) for n in EVERYBODY}
    for node in nodes.values():
        node.start()
    network.set_all(loss=rng.choice((0.0, 0.05)))
    for _ in range(12):
        guests = tuple(n for n in (4, 5) if rng.random() < 0.5)
        for n in rng.sample(STAY, len(STAY)):
            world.run(world.now + rng.choice((0, 1, 5, 30, 300)) * MS)
            now_configured[n] = tuple(sorted((*STAY, *guests)))
            hosts[n]._run(hosts[n].core.reconfigure(now_configured[n], world.now))
            nodes[n].poke()
            hosts[n].submit(b"x")
        for n in (4, 5):
            if not nodes[n].up:
                nodes[n].start(reboot=rng.random() < 0.5)
            elif n not in guests and rng.random() < 0.7:
                nodes[n].crash()
    network.perfect()
    wanted = now_configured[1]
    for n in (4, 5):
        nodes[n].crash()  # who was removed meanwhile comes back by a restart only, with the configuration that holds
        now_configured[n] = wanted
        if n in wanted:
            nodes[n].start()
    settled = world.run(world.now + 60 * SECOND, lambda: all(hosts[n].core.core.ring.nodeids == wanted for n in wanted))
    assert settled, [(n, hosts[n].core.status()) for n in wanted]
    for n in STAY:
        core = hosts[n].core.core
        assert set(core.peers) <= set(EVERYBODY) and core.everybody == tuple(m for m in wanted if m != n)
    world.run(world.now + 5 * SECOND)  # what was on its way when the faults ended
    for n in {4, 5}.difference(wanted):
        now_configured[n] = EVERYBODY
        nodes[n].start()
    rings: list[EngineEvent] = []
    hosts[1].sink = lambda event: rings.append(event) if isinstance(event, Configuration) and event.kind is Kind.REGULAR else None
    world.run(world.now + 10 * SECOND)
    assert not rings, "who is configured no longer, and does not know it, disturbs nobody"
