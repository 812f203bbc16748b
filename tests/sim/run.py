# SPDX-License-Identifier: GPL-2.0-only
"""Runs seeds of the cluster simulation: ``python -m tests.sim.run --count N --seed FIRST``.

A seed draws its configuration first (swarm), then its faults. Safety phase: faults, and the checkers must stay silent. Liveness phase:
everything is healed, and the cluster must become whole within bounded time. The first failing seed prints how to replay it.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
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
EVENTS_MAX = 8000
SAFETY_EVENTS = 3600
"""The safety phase ends here at the latest: the rest is for becoming whole."""
SHARES = {"oracle": 45, "totem": 30, "engine": 25}
"""Which layers the seeds run: whole machines over an ideal engine (quick, with the nastiest legal timing), whole machines over the
real engine, the real engine alone with the harshest network."""
REPLAYED = 4
"So many seeds are run a second time, in a process of their own: the same seed must give the same trace."
PROCESSES = 2
ENOUGH = 200
EXERCISED = frozenset({
    "configuration", "view_installed", "node_failed", "node_joined", "node_left", "obligation", "fence_launched", "fence_result",
    "group_stop", "group_start", "group_finish", "group_left", "merged", "waiting_for_all", "new", "readmitted",
})
"A run of ENOUGH seeds that does not show each of these proves nothing about it, and fails."


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


def draw_config(rng: Random) -> ClusterConfig:
    """The seed's cluster: mostly three nodes, the defaults more often than not."""
    count = rng.choice((1, 2, 3, 3, 3, 3, 4, 5))
    agent = "sim" if rng.random() < 0.85 else ""
    if not agent:
        count = min(count, 3)  # pressing buttons one by one takes long
    return ClusterConfig(
        name="sim",
        nodes=tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)),
        quorum=QuorumConfig(wait_for_all=rng.random() < 0.6),
        fencing=FencingConfig(agent=agent, retry_ms=200, retry_max_ms=2000),
        lease=LeaseConfig(lease_ms=rng.choice((0, 0, 5000))),
    )


def _engine_alone(seed: int) -> Outcome:
    """A seed of the lower half: the engine with faults of every datagram, and the checkers of extended virtual synchrony."""
    result = run_engine_seed(seed)
    name, _, detail = result.violation.partition(": ")
    return Outcome(seed, "engine", result.ok, name, detail, result.trace_hash, result.events, frozenset(), result.log)


def run(
    seed: int, make_coordinator: MakeCoordinator = Coordinator, layer: str = "", faults: tuple[str, ...] = ()
) -> Outcome:
    """One seed from beginning to end. ``layer`` is one of SHARES, ``faults`` names of the menu; the seed draws them otherwise."""
    world = World(seed, EVENTS_MAX)
    config = draw_config(world.rng("config"))
    layer = layer or world.rng("layer").choices(tuple(SHARES), tuple(SHARES.values()))[0]
    if layer == "engine":
        return _engine_alone(seed)
    engine: Oracle | TotemPort = TotemPort(world, config) if layer == "totem" else Oracle(world)
    world.trace("seed", seed, layer, config)
    cluster = Cluster(world, config, engine, GROUPS, make_coordinator)
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
    return Outcome(seed, layer, not name, name, detail, world.trace_hash, world.events, frozenset(checkers.seen), tuple(world.log))


def _replay_differs(outcome: Outcome) -> bool:
    """Run the seed again in a new interpreter, with another hash seed, and compare the fingerprints."""
    command = [sys.executable, "-m", "tests.sim.run", "--hash", f"--seed={outcome.seed}", f"--layer={outcome.layer}"]
    environment = {**os.environ, "PYTHONHASHSEED": str(outcome.seed % 1000 + 1)}
    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()
    return again != outcome.trace_hash


def _replay_command(outcome: Outcome) -> str:
    return f"make sim N=1 SEED={outcome.seed}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=lambda s: int(s, 0), default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--layer", choices=tuple(SHARES), default="", help="the layer of every seed")
    parser.add_argument("--trace", action="store_true", help="print the end of the trace of every seed")
    parser.add_argument("--hash", action="store_true", help="print the trace hash of one seed, nothing else")
    args = parser.parse_args(arguments)
    if args.hash:
        print(run(args.seed, layer=args.layer).trace_hash)
        return 0
    return batch(range(args.seed, args.seed + args.count), args.layer, args.trace)


def batch(seeds: range, layer: str = "", trace: bool = False) -> int:
    """Run the seeds; print the failures, each with its replay command, and the verdict. The exit code."""
    began = time.monotonic()
    outcomes: list[Outcome] = []
    failed: list[Outcome] = []
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    with multiprocessing.Pool(min(PROCESSES, len(seeds))) as pool:
        for outcome in pool.imap(functools.partial(run, layer=layer), seeds, chunksize=1 if len(seeds) < 20 else 4):
            outcomes.append(replace(outcome, log=()))
            if trace or (not outcome.ok and not failed):
                print("\n".join(outcome.log[-400 if not trace else -4000:]))
            if not outcome.ok:
                failed.append(outcome)
                print(f"FAILED {outcome.name} ({outcome.layer}): {outcome.detail}\nreplay: {_replay_command(outcome)}", flush=True)
    for outcome in outcomes[:REPLAYED]:
        if _replay_differs(outcome):
            failed.append(outcome)
            print(f"FAILED the same seed gave two traces ({outcome.layer})\nreplay: {_replay_command(outcome)}")
    _summary(outcomes, time.monotonic() - began)
    unseen = EXERCISED - set().union(*(o.seen for o in outcomes))
    if unseen and len(seeds) >= ENOUGH and not layer:
        print(f"FAILED these seeds never showed: {', '.join(sorted(unseen))}")
        return 1
    bad = len({o.seed for o in failed})
    print(f"{len(seeds) - bad} passed, {bad} failed")
    return 1 if failed else 0


def _summary(outcomes: list[Outcome], seconds: float) -> None:
    layers = Counter(o.layer for o in outcomes)
    events = sum(o.events for o in outcomes)
    seen = sorted(set().union(*(o.seen for o in outcomes)))
    print(f"{events} events in {seconds:.1f} s; layers: {', '.join(f'{k} {v}' for k, v in sorted(layers.items()))}")
    if seen:
        print(f"exercised: {', '.join(seen)}")


if __name__ == "__main__":
    sys.exit(main())
