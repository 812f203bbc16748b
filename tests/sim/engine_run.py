# SPDX-License-Identifier: GPL-2.0-only
"""One seed of the engine alone: the seed draws the cluster, the faults and the load; then the faults end, and the core must come together.

    safety phase: faults of every kind that the plan names, with the checkers watching
    liveness phase: a drawn core is made whole, the other nodes stay outside in some way for ever: one ring of exactly the core (L1), in
                    which everything submitted is delivered (L2) and a consumer's state exchange completes (L4); in some seeds one
                    member then ends, and the others must notice in time (F2)
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from itertools import combinations
from random import Random

from membership.api import Processor
from membership.totem.states import Event, State
from tests.sim.canaries_engine import ENGINE_CANARIES, Canary
from tests.sim.checkers.live import notice_ns, together
from tests.sim.engine_chaos import Chaos
from tests.sim.engine_plan import FROZEN, Plan
from tests.sim.engine_stage import Action, Frozen, Stage
from tests.sim.network import Fate
from tests.sim.world import MS, SECOND, Violation, World

__all__ = ["ENGINE_CANARIES", "EngineRun", "Result", "run_engine_seed"]

SAFETY_NS = 12 * SECOND
LIVE_NS = 45 * SECOND
"Longer than the longest time for which a node that came and went again and again is kept outside (limits.HOLD_MAX_NS)."
PARTED_SETTLE_NS = 8 * SECOND
PARTED_NS = 15 * SECOND
PARTED_CHANGES = 2
"Configurations of one node in PARTED_NS, after PARTED_SETTLE_NS, with something cut for ever."
STAY_NS = SECOND
"A ring that has formed in the liveness phase must stay for so long."
EVENTS_MAX = 150_000


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    violation: str
    "``NAME: detail``, empty if there was none."
    trace_hash: str
    events: int
    log: tuple[str, ...] = ()
    "The tail of the trace."
    plan: str = ""
    cells: frozenset[tuple[State, Event]] = frozenset()
    "Cells of the state table that were visited."
    measures: tuple[tuple[str, int], ...] = ()
    "(what, ns): how long the core took to come together, and to notice a member's end."


@dataclass(slots=True)
class Recording:
    """Everything that chance decided in one run."""

    actions: list[Action] = field(default_factory=list)
    fates: dict[tuple[int, int, int, int], Fate] = field(default_factory=dict)
    end_ns: int = 0
    "When the safety phase ended."
    frozen: Frozen | None = None


class Live:
    """The liveness phase on a stage."""

    def __init__(self, stage: Stage, live_ns: int = LIVE_NS) -> None:
        self.stage = stage
        self.world = stage.world
        self.live_ns = live_ns
        self.measures: list[tuple[str, int]] = []

    def run(self, frozen: Frozen) -> None:
        stage, world = self.stage, self.world
        stage.freeze(frozen)
        core = list(frozen.core)
        if frozen.cuts:
            self._parted(core, frozen.cuts)
            return
        began = world.now
        last: list[bytes] = []
        while True:
            if not self._until(lambda: self._whole(core), began + self.live_ns - world.now):
                self._stuck("L1", "the core is not together")
            self.measures.append(("together", world.now - began))
            rings = self._rings(core)
            last = [stage.do_submit(n, 60, safe) for n in core for safe in (False, True)]
            # Either this ring carries all that is submitted from now on, and stays; or it was about to end, which is no fault yet.
            if self._until(lambda: self._all_told(core, last) or self._rings(core) != rings, self.live_ns):  # noqa: B023
                self._until(lambda: self._rings(core) != rings, STAY_NS)  # noqa: B023
                if self._rings(core) == rings:
                    break
            else:
                self._stuck("L2", "not everything was delivered")
        self._own_told(core)
        if stage.plan.sync:
            waiting = {n: stage.sync.open(p) for n in core if (p := stage.nodes[n].processor) is not None}
            if any(waiting.values()):
                self._stuck("L4", f"the state exchange is not complete: {waiting}")
        if frozen.probe and len(core) > 1:
            self._probe(core, frozen.probe)

    def _parted(self, core: list[int], cuts: tuple[tuple[int, int], ...]) -> None:
        """L3: whatever stays cut for ever, rings come to rest: as large as one step can make them, and they serve."""
        stage, world = self.stage, self.world
        began = world.now
        self._until(lambda: False, PARTED_SETTLE_NS)
        before = {n: len(stage.record.periods[stage.hosts[n].processor]) for n in core}
        self._until(lambda: False, PARTED_NS)
        changes = {n: (len(stage.record.periods[stage.hosts[n].processor]) - before[n]) // 2 for n in core}
        if world.events >= world.events_max or max(changes.values()) > PARTED_CHANGES:
            self._stuck("L3", f"configurations of each node in {PARTED_NS / SECOND} s, with {cuts} cut for ever: {changes}")
        rings = {n: stage.hosts[n].core.core.ring.nodeids for n in core}
        apart = {(min(c), max(c)) for c in cuts}
        for n, ring in rings.items():
            for other in set(rings.values()):
                joined = not any((min(n, x), max(n, x)) in apart for x in other)
                if n not in other and joined and len(other) + 1 > len(ring):
                    self._stuck("L3", f"node {n} stays in {ring} and not with {other}, with {cuts} cut")
        last = {n: stage.do_submit(n, 60, True) for n in core}
        self.measures.append(("parted", world.now - began))
        if not self._until(lambda: all(self._told(m, last[n]) for n in core for m in rings[n]), self.live_ns):
            self._stuck("L2", f"not everything was delivered within {rings}")

    def _own_told(self, core: list[int]) -> None:
        """Whoever submitted a message, and goes on, has been told it."""
        record = self.stage.record
        told = {p: {m.payload for x in record.periods[p] for m in x.messages} for p in (self.stage.hosts[n].processor for n in core)}
        lost = [payload[:24] for payload, sent in record.submitted.items() if sent.sender in told and payload not in told[sent.sender]]
        if lost:
            self._stuck("L2", f"messages were lost: {lost[:5]}")

    def _told(self, n: int, payload: bytes) -> bool:
        return any(m.payload == payload for m in self.stage.record.periods[self.stage.hosts[n].processor][-1].messages)

    def _whole(self, core: list[int]) -> bool:
        hosts = [self.stage.hosts[n] for n in core]
        return all(h.alive and not h.writing for h in hosts) and together(hosts)

    def _until(self, condition: object, limit_ns: int) -> bool:
        return self.world.run(self.world.now + limit_ns, condition)  # type: ignore[arg-type]

    def _rings(self, core: list[int]) -> list[str]:
        return [str(self.stage.hosts[n].core.core.ring.id) for n in core]

    def _probe(self, core: list[int], manner: str) -> None:
        stage, world = self.stage, self.world
        victim = core[self.world.rng("probe").randrange(len(core))]
        left = [n for n in core if n != victim]
        began = world.now
        getattr(stage, "do_crash" if manner == "silent" else f"do_{manner}")(victim)
        slowest = max((stage.hosts[n].config for n in core), key=lambda c: c.token_ms)
        watches = [stage.hosts[n].core.core.watch for n in left]
        clocks = [w.clocks[victim] for w in watches]
        limit = notice_ns(slowest, manner, len(core), stage.plan.delay_ns + stage.plan.jitter_ns, max(w.doubt for w in watches),
                          any(c.mean_ns + 8 * c.dev_ns > slowest.detect_ms * MS for c in clocks))
        if not self._until(lambda: together([stage.hosts[n] for n in left]), limit):
            self._stuck("F2", f"node {victim} ended ({manner}) and {limit / MS} ms later its peers are not in a ring without it")
        self.measures.append((manner, world.now - began))

    def _stuck(self, name: str, what: str) -> None:
        self.stage.at_end()  # a broken promise says more than a standstill
        states = {n: h.core.status() for n, h in sorted(self.stage.hosts.items())}
        raise Violation(name, f"{what} after {self.world.events} events: {states}")

    def _all_told(self, core: list[int], last: list[bytes]) -> bool:
        """Nothing waits anywhere, and the last messages are told to everybody."""
        hosts = [self.stage.hosts[n] for n in core]
        if any(h.core.core.queue for h in hosts):
            return False
        told: dict[Processor, set[bytes]] = {
            h.processor: {m.payload for m in self.stage.record.periods[h.processor][-1].messages} for h in hosts}
        return all(t >= set(last) for t in told.values())


class EngineRun:
    def __init__(self, seed: int | str, canary: Canary | None = None, plan: Plan | None = None, record: bool = False) -> None:
        self.world = World(seed, EVENTS_MAX)
        rng = self.world.rng("plan")
        self.plan = plan or (canary.plan(rng) if canary is not None else Plan.draw(rng))
        self.recording = Recording()
        self.stage = Stage(self.world, self.plan, "lose_disk" in self.plan.weights, canary)
        if record:
            self.stage.tape = self.recording.actions
            self.stage.network.recorded = self.recording.fates
        self.chaos = Chaos(self.stage)
        self.stage.installed = self.chaos.snipe  # type: ignore[method-assign]
        self.live = Live(self.stage)

    def run(self) -> None:
        self.world.trace("plan", 0, self.plan)
        for node in self.stage.nodes.values():
            node.start()
        self.chaos.begin()
        self.world.run(self.world.now + SAFETY_NS, lambda: self.world.events >= self.plan.events)
        self.chaos.on = False
        self.recording.end_ns = self.world.now
        self.recording.frozen = frozen = self._draw_frozen()
        self.live.run(frozen)
        self.stage.at_end()

    def _draw_frozen(self) -> Frozen:
        rng = self.world.rng("live")
        ids = list(self.stage.network.nodes)
        if self.plan.partial:
            return Frozen(tuple(ids), cuts=draw_cuts(rng, ids, self.plan.partial))
        core = sorted(rng.sample(ids, max(1, round(self.plan.core * len(ids)))))
        return Frozen(tuple(core), {n: rng.choice(FROZEN) for n in ids if n not in core}, self.plan.probe)

    def result(self, violation: str) -> Result:
        return Result(not violation, violation, self.world.trace_hash, self.world.events, tuple(self.world.log), str(self.plan),
                      frozenset(self.stage.cells()), tuple(self.live.measures))


def draw_cuts(rng: Random, ids: list[int], kind: str) -> tuple[tuple[int, int], ...]:
    """Directed pairs, for ``Plan.partial``."""
    row = rng.sample(ids, len(ids))
    pairs = {"pair": [(row[0], row[1])], "one_way": [(row[0], row[1])],
             "chain": [(row[i], b) for i in range(len(row)) for b in row[i + 2:]],
             "some": [(a, b) for a, b in combinations(row, 2) if rng.random() < 0.3] or [(row[0], row[1])]}[kind]
    both = [(a, b) for p in pairs for a, b in ((p,) if kind == "one_way" or (kind == "some" and rng.random() < 0.3) else (p, p[::-1]))]
    return tuple(sorted(both))


def run_engine_seed(seed: int | str, canary: str | None = None) -> Result:
    """Run one seed, if asked with one rule broken on purpose (a name of ENGINE_CANARIES). Never raises a violation: see Result."""
    broken = ENGINE_CANARIES[canary]() if canary is not None else None
    return run_plan(seed, broken)[0]


def run_plan(seed: int | str, canary: Canary | None = None, plan: Plan | None = None, record: bool = False) -> tuple[Result, EngineRun]:
    """As ``run_engine_seed``; with a plan that the seed does not draw, if one is given."""
    run = EngineRun(seed, canary, plan, record)
    violation = ""
    try:
        if canary is not None:
            with canary:
                run.run()
        else:
            run.run()
    except Violation as v:
        violation = str(v)
    except Exception:
        violation = f"crash: {traceback.format_exc()}"
    return run.result(violation), run
