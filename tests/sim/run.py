# SPDX-License-Identifier: GPL-2.0-only
"""One seed of the simulation, of any layer; batch.py runs many.

A seed draws its configuration first (swarm), then its faults. Safety phase: faults, and the checkers must stay silent. Liveness phase:
everything is healed, and the cluster must become whole within bounded time.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field, replace
from random import Random

from bridge.coordinator import Coordinator
from tests.sim.checkers.groups import GroupCheckers
from tests.sim.cluster import DEAD, Cluster, MakeCoordinator
from tests.sim.engine_run import run_engine_seed
from tests.sim.faults import Faults
from tests.sim.node import GROUPS
from tests.sim.oracle import Oracle
from tests.sim.totem_port import TotemPort
from tests.sim.world import SECOND, Violation, World
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, FencingConfig, LeaseConfig, NodeConfig, QuorumConfig, WitnessConfig

SAFETY_NS = 25 * SECOND
LIVENESS_NS = 120 * SECOND
EVENTS_MAX = 24_000
SAFETY_EVENTS = 3600
"""The safety phase ends here at the latest: the rest is for becoming whole."""
SHARES = {"oracle": 30, "totem": 20, "engine": 50}
"""Which layers the seeds run: whole machines over an ideal engine (quick, with the nastiest legal timing), whole machines over the
real engine, the real engine alone with the harshest network."""


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    layer: str
    ok: bool
    name: str = ""
    "The broken rule."
    detail: str = ""
    trace_hash: str = ""
    events: int = 0
    seen: frozenset[str] = frozenset()
    log: tuple[str, ...] = field(default=(), repr=False)
    plan: str = ""
    "What the seed drew."
    cells: frozenset[tuple[int, int]] = frozenset()
    "Cells of the engine's state table that were visited."
    measures: tuple[tuple[str, int], ...] = ()
    "(what, ns)"


def draw_quorum(rng: Random, count: int, agent: str) -> QuorumConfig:
    """Mostly the plain majority; else any mixture of rules that cluster.toml may hold."""
    plain = QuorumConfig(wait_for_all=rng.random() < 0.6)
    if rng.random() < 0.55:
        return plain
    tie = rng.random() < 0.5
    if count == 2 and agent and rng.random() < 0.7:
        delay_ms = rng.choice((0, 500, 2000))
        return QuorumConfig(two_node=True, auto_tie_breaker=tie, fence_delay_ms=delay_ms, fence_delay_node=rng.randint(0, 2))
    last = rng.random() < 0.6
    return QuorumConfig(
        wait_for_all=last or plain.wait_for_all, auto_tie_breaker=tie, last_man_standing=last,
        last_man_standing_window_ms=rng.choice((0, 500, 3000)), auto_tie_breaker_node=rng.choice(("lowest", "highest", "3 2 1")),
    )


def draw_config(rng: Random, lease: bool = False) -> ClusterConfig:
    """The seed's cluster: mostly three nodes, the defaults more often than not. With ``lease``, one that fences itself."""
    count = rng.choice((1, 2, 3, 3, 3, 3, 4, 5))
    agent = "sim" if rng.random() < 0.85 and not lease else ""
    if lease:
        count = 3
    if not agent:
        count = min(count, 3)  # pressing buttons one by one takes long
    config = ClusterConfig(
        name="sim",
        nodes=tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)),
        quorum=draw_quorum(rng, count, agent),
        fencing=FencingConfig(agent=agent, retry_ms=200, retry_max_ms=2000),
        lease=LeaseConfig(*ALONE) if lease else draw_lease(rng, not agent and count >= 3),
    )
    return two_methods(config) if agent and rng.random() < 0.3 else config


def draw_witness(rng: Random, config: ClusterConfig) -> ClusterConfig:
    """Half of the clusters of two and four that break their ties by no other rule have a witness."""
    rules = config.quorum
    if len(config.nodes) not in (2, 4) or rules.two_node or rules.auto_tie_breaker or rules.last_man_standing or rng.random() < 0.5:
        return config
    rules = replace(rules, witness=WitnessConfig("10.0.0.99", timeout_ms=rng.choice((1000, 2000, 4000))))
    return replace(config, quorum=rules, lease=config.lease if config.fences or rng.random() < 0.3 else LeaseConfig(*ALONE))


def two_methods(config: ClusterConfig) -> ClusterConfig:
    """The first one never works."""
    methods = (FenceMethod((DEAD,)), FenceMethod((config.fencing.agent,)))
    return replace(config, nodes=tuple(replace(n, methods=methods) for n in config.nodes), fence_devices=(FenceDevice(DEAD, DEAD),))


ALONE = (3000, "on", 500, 1000)
"Lease, self-fencing, grace, margin: shorter than the defaults, so that more of them fit into a seed."


def draw_lease(rng: Random, alone: bool) -> LeaseConfig:
    """``alone``: without an agent, so that mostly the nodes fence themselves."""
    lease_ms = rng.choice((0, 0, 5000))
    if alone and rng.random() < 0.8:
        return LeaseConfig(*ALONE)
    return LeaseConfig(lease_ms, "off")


def draw_dry(rng: Random, config: ClusterConfig) -> frozenset[int]:
    """Nodes whose module resets nothing: one of them in some of the clusters that fence themselves."""
    if not config.self_fencing or rng.random() < 0.8:
        return frozenset()
    return frozenset({rng.choice(config.nodes).id})


def engine_alone(seed: int) -> Outcome:
    """A seed of the lower half: the engine with faults of every datagram, and the checkers of extended virtual synchrony."""
    result = run_engine_seed(seed)
    name, _, detail = result.violation.partition(": ")
    return Outcome(seed, "engine", result.ok, name, detail, result.trace_hash, result.events, frozenset(), result.log,
                   result.plan, frozenset((int(s), int(e)) for s, e in result.cells), result.measures)


def run(
    seed: int, make_coordinator: MakeCoordinator = Coordinator, layer: str = "", faults: tuple[str, ...] = (),
    lease: bool = False,
) -> Outcome:
    """One seed from beginning to end. ``layer`` is one of SHARES, ``faults`` names of the menu; the seed draws them otherwise.
    ``lease``: a cluster that fences itself."""
    world = World(seed, EVENTS_MAX)
    config = draw_witness(world.rng("witness drawn"), draw_config(world.rng("config"), lease))
    layer = layer or world.rng("layer").choices(tuple(SHARES), tuple(SHARES.values()))[0]
    if layer == "engine":
        return engine_alone(seed)
    engine: Oracle | TotemPort = TotemPort(world, config) if layer == "totem" else Oracle(world)
    world.trace("seed", seed, layer, config)
    cluster = Cluster(world, config, engine, GROUPS, make_coordinator)
    cluster.dry = draw_dry(world.rng("dry"), config)
    checkers = GroupCheckers(cluster)
    trouble = Faults(cluster, engine, faults)
    name = detail = ""
    try:
        trouble.begin(world.now + SAFETY_NS)
        world.run(world.now + SAFETY_NS, lambda: world.events >= SAFETY_EVENTS)
        trouble.heal()
        heal_ns = world.now
        while cluster.unsettled() and world.now < heal_ns + LIVENESS_NS and world.events < EVENTS_MAX:
            world.run(world.now + SECOND // 4)
        stuck = cluster.unsettled()
        if stuck:
            raise Violation("stuck", f"at {world.events} events: " + "; ".join(stuck))
        world.run(world.now + SECOND)
    except Violation as violation:
        name, detail = violation.name, violation.detail
    except Exception:
        name, detail = "crash", traceback.format_exc()
    return Outcome(seed, layer, not name, name, detail, world.trace_hash, world.events, frozenset(checkers.seen), tuple(world.log),
                   str(config))
