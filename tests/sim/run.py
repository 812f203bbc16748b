# SPDX-License-Identifier: GPL-2.0-only
"""Runs seeds of the cluster simulation: ``python -m tests.sim.run --count N --seed FIRST``.

A seed draws its configuration first (swarm), then its faults. Safety phase: faults, and the checkers must stay silent. Liveness phase:
everything is healed, and the cluster must become whole within bounded time. The first failing seed prints how to replay it.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
import traceback
from dataclasses import dataclass, field
from random import Random

from bridge.coordinator import Coordinator
from tests.sim.checkers.groups import GroupCheckers
from tests.sim.cluster import Cluster, MakeCoordinator
from tests.sim.engine_run import run_engine_seed
from tests.sim.faults import Faults
from tests.sim.node import GROUPS
from tests.sim.oracle import Oracle
from tests.sim.totem_port import TotemPort
from tests.sim.world import SECOND, Violation, World
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, QuorumConfig

SAFETY_NS = 25 * SECOND
LIVENESS_NS = 120 * SECOND
EVENTS_MAX = 60000
TOTEM_SHARE = 0.3
"The share of seeds that run the real engine; the others run the quicker ideal one, with nastier legal timing."
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    ok: bool
    name: str = ""
    "The broken rule."
    detail: str = ""
    trace_hash: str = ""
    events: int = 0
    seen: frozenset[str] = frozenset()
    log: tuple[str, ...] = field(default=(), repr=False)


def draw_config(rng: Random) -> ClusterConfig:
    """The seed's cluster: mostly three nodes, the defaults more often than not."""
    count = rng.choice((1, 2, 3, 3, 3, 3, 4, 5))
    return ClusterConfig(
        name="sim",
        nodes=tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)),
        quorum=QuorumConfig(wait_for_all=rng.random() < 0.6),
        fencing=FencingConfig(agent="sim", retry_ms=200, retry_max_ms=2000),
        lease=LeaseConfig(lease_ms=rng.choice((0, 0, 5000))),
    )


def run(seed: int, make_coordinator: MakeCoordinator = Coordinator, layer: str = "") -> Outcome:
    """One seed from beginning to end. ``layer``: the engine, ``totem`` or ``oracle``; the seed draws it otherwise.
    ``engine``: the engine alone, with its own faults and checkers."""
    if layer == "engine":
        return run_engine(seed)
    world = World(seed, EVENTS_MAX)
    config = draw_config(world.rng("config"))
    layer = layer or ("totem" if world.rng("layer").random() < TOTEM_SHARE else "oracle")
    engine: Oracle | TotemPort = TotemPort(world, config) if layer == "totem" else Oracle(world)
    world.trace("seed", seed, layer, config)
    cluster = Cluster(world, config, engine, GROUPS, make_coordinator)
    checkers = GroupCheckers(cluster)
    faults = Faults(cluster, engine)
    name = detail = ""
    try:
        faults.begin(world.now + SAFETY_NS)
        world.run(world.now + SAFETY_NS)
        faults.heal()
        heal_ns = world.now
        while cluster.unsettled() and world.now < heal_ns + LIVENESS_NS and world.events < EVENTS_MAX:
            world.run(world.now + SECOND // 4)
        stuck = cluster.unsettled()
        if stuck:
            raise Violation("stuck", "; ".join(stuck))
        world.run(world.now + SECOND)
    except Violation as violation:
        name, detail = violation.name, violation.detail
    except Exception:
        name, detail = "crash", traceback.format_exc()
    return Outcome(seed, not name, name, detail, world.trace_hash, world.events, frozenset(checkers.seen), tuple(world.log))


def run_engine(seed: int) -> Outcome:
    result = run_engine_seed(seed)
    name, _, detail = result.violation.partition(": ")
    return Outcome(seed, result.ok, name, detail, result.trace_hash, result.events, log=result.log)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=lambda s: int(s, 0), default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--layer", choices=("totem", "oracle", "engine"), default="", help="the engine of every seed")
    parser.add_argument("--trace", action="store_true", help="print the end of the trace of every seed")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    seeds = range(args.seed, args.seed + args.count)
    passed, events = 0, 0
    failed: list[Outcome] = []
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    with multiprocessing.Pool(min(PROCESSES, args.count)) as pool:
        for outcome in pool.imap(functools.partial(run, layer=args.layer), seeds, chunksize=4):
            events += outcome.events
            if args.trace or (not outcome.ok and not failed):
                print("\n".join(outcome.log[-400 if not args.trace else -4000:]))
            if outcome.ok:
                passed += 1
            else:
                failed.append(outcome)
                print(f"FAILED {outcome.name}: {outcome.detail}\nreplay: make sim N=1 SEED={outcome.seed}", flush=True)
    took = time.monotonic() - began
    print(f"{events} events in {took:.1f} s")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
